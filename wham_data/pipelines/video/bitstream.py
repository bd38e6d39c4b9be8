"""Read from the first bytes of a packet what kind of picture it holds; nothing is decoded.

If no other picture refers to a picture, it need not be decoded unless it is picked. If a picture
refers to no earlier picture, decoding can start there. A few header bits of each codec show both:

    codec    disposable                          start from        source
    H.264    nal_ref_idc 0                       IDR               ITU-T H.264, 7.4.1
    HEVC     sub-layer non-reference picture     IDR, CRA          ITU-T H.265, 7.4.2.2
    AV1      refresh_frame_flags 0               shown key frame   AV1 specification, 5.9.2
    VP9      never                               shown key frame   VP9 specification, 6.2
    VP8      never                               shown key frame   RFC 6386, 9.1
    MPEG-4   B-VOP                               -                 ISO/IEC 14496-2, 6.2.5
    MJPEG, PNG and other codecs of single pictures: always, anywhere

VP9 pictures are never marked as disposable: the next picture may use motion vectors and probabilities
of the picture decoded before it, even if that one refreshes no buffer. A packet that cannot be parsed
is not marked as disposable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntFlag


class Picture(IntFlag):
    """Flags of the picture in a packet. The temporal layer (HEVC) is in the bits from LAYER_SHIFT up."""

    UNKNOWN = 0
    DISPOSABLE = 1
    """No other picture of its temporal layer is predicted from it."""
    RESTART = 2
    """Decoding can start here: nothing later refers to anything earlier."""
    OPEN_RESTART = 4
    """As RESTART, except that pictures shown before this one but coded after it need earlier ones."""
    HIDDEN = 8
    """The picture is decoded but never shown."""


LAYER_SHIFT = 8
HEADER_BYTES = 1 << 16
"""Bytes of a coded still picture in which its size is looked for."""

Inspect = Callable[[memoryview], int]
"""A function from the bytes of a packet to its Picture flags and temporal layer."""


def inspector(codec: str, extradata: bytes) -> Inspect:
    """The function that reads the packets of one stream.

    Args:
        codec: FFmpeg's name of the codec ("h264", "hevc", "av1", "vp9", "vp8", "mpeg4", "mjpeg", ...).
            For a codec that is not known here the function always returns UNKNOWN.
        extradata: the configuration of the codec from the container; Annex B or empty in a stream
            with start codes.
    """
    if codec in ("h264", "hevc"):
        length_size = _length_size(codec, extradata)
        read = _h264 if codec == "h264" else _hevc
        return lambda packet: read(packet, length_size)
    if codec == "av1":
        return _Av1(extradata)
    if codec == "vp9":
        return _vp9
    if codec == "vp8":
        return _vp8
    if codec == "mpeg4":
        return _mpeg4
    if codec in ("mjpeg", "png", "prores", "huffyuv", "ffvhuff", "utvideo"):
        return lambda _: int(Picture.DISPOSABLE | Picture.RESTART)
    return lambda _: int(Picture.UNKNOWN)


def size_marker(codec: str, extradata: bytes) -> Callable[[memoryview], bytes | None]:
    """The function that finds in a key frame the bytes that say its size.

    Frames with equal bytes have one size; None where a packet, or this codec, says nothing.

    Args:
        codec, extradata: as in `inspector`.
    """
    if codec in ("h264", "hevc"):
        length_size = _length_size(codec, extradata)
        # Sequence parameter sets are NAL units of the types 7 and 33.
        return lambda packet: b"".join(
            unit
            for unit in nal_units(bytes(packet), length_size)
            if unit and (unit[0] & 31 == 7 if codec == "h264" else unit[0] >> 1 == 33)
        )
    if codec == "av1":
        return lambda packet: b"".join(bytes(body) for body in _sequence_headers(packet))
    if codec == "vp8":
        return lambda packet: bytes(packet[6:10])
    if codec == "vp9":
        return lambda packet: bytes(packet[4:9])
    if codec in ("mjpeg", "png"):
        return lambda packet: repr(image_size(bytes(packet[:HEADER_BYTES]))).encode()
    return lambda _: None


def _sequence_headers(packet: memoryview) -> list[memoryview]:
    try:
        return [body for kind, body in _obus(packet) if kind == 1]
    except IndexError:
        return []


def _length_size(codec: str, extradata: bytes) -> int:
    """Bytes of the length before each NAL unit; 0 in a stream with start codes."""
    at = 4 if codec == "h264" else 21
    # An avcC or hvcC box starts with its version, 1; Annex B starts with a start code.
    return (extradata[at] & 3) + 1 if len(extradata) > at and extradata[0] == 1 else 0


def nal_units(data: bytes, length_size: int = 0) -> Iterator[bytes]:
    """The NAL units of a packet, as far as their lengths are valid; 0: it has start codes."""
    if not length_size:
        yield from (unit.rstrip(b"\0") for unit in data.split(b"\0\0\1")[1:])
        return
    at = 0
    while at + length_size < len(data):
        end = at + length_size + int.from_bytes(data[at : at + length_size], "big")
        yield data[at + length_size : end]
        at = end


def _nal_headers(packet: memoryview, length_size: int) -> list[tuple[int, int]] | None:
    """The first two bytes of every NAL unit; None if the lengths of the units are not valid."""
    headers: list[tuple[int, int]] = []
    end = len(packet)
    if length_size:
        at = 0
        while at + length_size < end:
            length = int.from_bytes(packet[at : at + length_size], "big")
            at += length_size
            if length < 2 or at + length > end:
                return None
            headers.append((packet[at], packet[at + 1]))
            at += length
        return headers if at == end else None
    data = bytes(packet)
    at = data.find(b"\0\0\1")
    while at >= 0 and at + 4 < end:
        headers.append((data[at + 3], data[at + 4]))
        at = data.find(b"\0\0\1", at + 3)
    return headers


def _h264(packet: memoryview, length_size: int) -> int:
    headers = _nal_headers(packet, length_size)
    if headers is None:
        return 0
    slices: list[int] = []
    keeps_state = False
    for first, _ in headers:
        kind = first & 31
        if 1 <= kind <= 5:
            slices.append(first)
        elif kind not in (6, 9, 12):
            # The decoder needs parameter sets and extensions, but not SEI, delimiters and filler.
            keeps_state = True
    if not slices:
        return 0
    if slices[0] & 31 == 5:
        return int(Picture.RESTART)
    if keeps_state or any(first & 0x60 for first in slices):
        return 0
    return int(Picture.DISPOSABLE)


def _hevc(packet: memoryview, length_size: int) -> int:
    headers = _nal_headers(packet, length_size)
    if headers is None:
        return 0
    kinds: list[int] = []
    keeps_state = False
    layer = 0
    for first, second in headers:
        kind = first >> 1 & 63
        if kind < 32:
            if first & 1 or second >> 3:
                return 0  # another layer of scalable or multiview video
            kinds.append(kind)
            layer = (second & 7) - 1
        elif kind not in (35, 38, 39, 40):
            keeps_state = True
    if not kinds or layer < 0:
        return 0
    flags = layer << LAYER_SHIFT
    if kinds[0] in (19, 20):
        return flags | Picture.RESTART
    if kinds[0] == 21:
        return flags | Picture.OPEN_RESTART
    if not keeps_state and all(kind < 16 and kind % 2 == 0 for kind in kinds):
        return flags | Picture.DISPOSABLE
    return flags


def _vp8(packet: memoryview) -> int:
    if not len(packet) or not packet[0] & 0x10:  # show_frame
        return int(Picture.HIDDEN)
    return 0 if packet[0] & 1 else int(Picture.RESTART)


def _vp9(packet: memoryview) -> int:
    """A superframe starts with its first frame, so the first byte is that of a frame header."""
    if len(packet) < 2 or packet[0] >> 6 != 2:
        return 0
    bits = _Bits(packet[:4])
    bits.read(2)
    profile = bits.read(1) | bits.read(1) << 1
    if profile == 3:
        bits.read(1)
    if bits.read(1):  # show_existing_frame
        return 0
    is_inter, shown = bits.read(1), bits.read(1)
    if is_inter:
        alone = packet[-1] & 0xE0 != 0xC0
        return int(Picture.HIDDEN) if alone and not shown else 0
    return int(Picture.RESTART) if shown else 0


def _mpeg4(packet: memoryview) -> int:
    data = bytes(packet)
    at = data.find(b"\0\0\1\xb6")
    # A packed packet holds a P-VOP and a B-VOP, so the decoder needs it.
    if at < 0 or at + 4 >= len(data) or data.find(b"\0\0\1\xb6", at + 4) >= 0:
        return 0
    return int(Picture.DISPOSABLE) if data[at + 4] >> 6 == 2 else 0


class _Bits:
    """Reads bits from the start, most significant first; raises IndexError past the end."""

    __slots__ = ("_at", "_length", "_value")

    def __init__(self, data: memoryview | bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._length = len(data) * 8
        self._at = 0

    def read(self, count: int) -> int:
        self._at += count
        if self._at > self._length:
            raise IndexError("header longer than its bytes")
        return self._value >> (self._length - self._at) & ((1 << count) - 1)


@dataclass(slots=True)
class _Av1Sequence:
    """The fields of a sequence header that are needed to read the start of a frame header."""

    readable: bool
    choose_screen_content: bool = False
    force_screen_content: bool = False
    choose_integer_mv: bool = False
    order_hint_bits: int = 0


class _Av1:
    """Reads the temporal units of one AV1 stream; keeps its latest sequence header."""

    def __init__(self, extradata: bytes) -> None:
        self._sequence = _Av1Sequence(readable=False)
        # An av1C box: four bytes of configuration, then OBUs.
        if len(extradata) > 4 and extradata[0] == 0x81:
            self(memoryview(extradata)[4:])

    def __call__(self, packet: memoryview) -> int:
        try:
            return self._temporal_unit(packet)
        except IndexError:
            return 0

    def _temporal_unit(self, packet: memoryview) -> int:
        starts_sequence = False
        flags: int | None = None
        for kind, body in _obus(packet):
            if kind == 1:
                self._sequence = _av1_sequence(body)
                starts_sequence = True
            elif kind in (3, 6):
                frame_flags = _av1_frame(body, self._sequence)
                # The unit is disposable only if all its frames are. The other flags are those of the
                # first frame.
                flags = (
                    frame_flags if flags is None else flags & (frame_flags | ~Picture.DISPOSABLE)
                )
            elif kind not in (2, 4, 5, 7, 15):
                return 0
        if flags is None:
            return 0
        return flags & ~(Picture.DISPOSABLE if starts_sequence else Picture.RESTART)


def _obus(packet: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and body of each OBU (AV1 specification, 5.3)."""
    at = 0
    while at < len(packet):
        header = packet[at]
        at += 2 if header & 4 else 1
        length = len(packet) - at
        if header & 2:
            length, shift = 0, 0
            while True:
                byte = packet[at]
                at += 1
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128 or shift > 28:
                    break
        if at + length > len(packet):
            raise IndexError("OBU longer than its packet")
        yield header >> 3 & 15, packet[at : at + length]
        at += length


def _av1_sequence(body: memoryview) -> _Av1Sequence:
    bits = _Bits(body)
    bits.read(3)
    bits.read(1)
    if bits.read(1):  # reduced_still_picture_header
        return _Av1Sequence(readable=False)
    if bits.read(1):  # timing_info_present_flag
        bits.read(64)
        if bits.read(1):  # equal_picture_interval: num_ticks_per_picture_minus_1 as uvlc
            zeros = 0
            while not bits.read(1):
                zeros += 1
            bits.read(zeros)
        if bits.read(
            1
        ):  # decoder_model_info_present_flag: frame headers gain fields we do not read
            return _Av1Sequence(readable=False)
    delay_present = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay_present and bits.read(1):
            bits.read(4)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    bits.read(width_bits + height_bits)
    if bits.read(1):  # frame_id_numbers_present_flag
        return _Av1Sequence(readable=False)
    bits.read(7)
    order_hint = bits.read(1)
    if order_hint:
        bits.read(2)
    choose_screen = bool(bits.read(1))
    force_screen = bool(bits.read(1)) if not choose_screen else False
    choose_mv = True
    if choose_screen or force_screen:
        choose_mv = bool(bits.read(1))
        if not choose_mv:
            bits.read(1)
    return _Av1Sequence(
        readable=True,
        choose_screen_content=choose_screen,
        force_screen_content=force_screen,
        choose_integer_mv=choose_mv,
        order_hint_bits=bits.read(3) + 1 if order_hint else 0,
    )


def _av1_frame(body: memoryview, sequence: _Av1Sequence) -> int:
    if not sequence.readable:
        return 0
    bits = _Bits(body[:8])
    if bits.read(1):  # show_existing_frame: may refresh every buffer when it shows a key frame
        return 0
    kind, shown = bits.read(2), bits.read(1)
    if kind == 0:
        return int(Picture.RESTART) if shown else 0
    if kind == 3:  # switch frame
        return 0
    if not shown:
        bits.read(1)
    resilient = bits.read(1)
    bits.read(1)  # disable_cdf_update
    screen = bits.read(1) if sequence.choose_screen_content else sequence.force_screen_content
    if screen and sequence.choose_integer_mv:
        bits.read(1)
    bits.read(1)  # frame_size_override_flag
    bits.read(sequence.order_hint_bits)
    if kind != 2 and not resilient:
        bits.read(3)  # primary_ref_frame
    return int(Picture.DISPOSABLE) if shown and bits.read(8) == 0 else 0


JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"


def image_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels from the header of a PNG, JPEG or WebP; None if it cannot be read."""
    if data.startswith(PNG) and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if is_webp(data):
        return _webp_size(data)
    at = 2 if data.startswith(JPEG) else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def is_webp(data: bytes) -> bool:
    """Whether these are the first bytes of a WebP picture."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Of a lossy, a lossless or an extended one (RFC 9649); None also for one that moves."""
    chunk = data[12:16]
    if chunk == b"VP8 " and data[23:26] == b"\x9d\x01\x2a" and len(data) >= 30:
        width, height = (int.from_bytes(data[at : at + 2], "little") for at in (26, 28))
        return width & 0x3FFF, height & 0x3FFF
    if chunk == b"VP8L" and data[20:21] == b"\x2f" and len(data) >= 25:
        sizes = int.from_bytes(data[21:25], "little")
        return (sizes & 0x3FFF) + 1, (sizes >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X" and len(data) >= 30 and not data[20] & 2:
        width, height = (int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        return width + 1, height + 1
    return None
