"""Finds where pictures are missing in a stream of H.264, by the numbers in its slice headers.

A decoder that misses a picture goes on without an error, and shows wrong pictures until the next key
frame. But pictures that others may refer to are counted (`frame_num`, ITU-T H.264, 7.4.3): a number that
is neither that of the last such picture nor the next one shows that some are missing between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wham_data.pipelines.video.bitstream import nal_units

HEAD_BYTES: Final = 64
WITH_CHROMA: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
"""Profiles whose parameters begin with the format of the colours."""
SLICE, IDR, PARAMETERS = 1, 5, 7
MOST_ZEROS: Final = 31


class _Bits:
    """The bits of a NAL unit, after its header."""

    def __init__(self, unit: bytes) -> None:
        head = unit[1 : 1 + HEAD_BYTES].replace(b"\0\0\3", b"\0\0")
        self._bits = "".join(f"{byte:08b}" for byte in head)
        self._at = 0

    def number(self, count: int) -> int:
        """A number of so many bits. Raises ValueError at the end."""
        self._at += count
        return int(self._bits[self._at - count : self._at].ljust(count, "x"), 2) if count else 0

    def golomb(self) -> int:
        """A number of any size (ue(v); of se(v) its code). Raises ValueError."""
        zeros = 0
        while not self.number(1):
            zeros += 1
            if zeros > MOST_ZEROS:
                raise ValueError
        return (1 << zeros) - 1 + self.number(zeros)


@dataclass(slots=True)
class FrameNumbers:
    """Whether pictures are missing before each one, from one to the next.

    number_bits  bits of a `frame_num`; 0: not known, or numbers may be left out, as the stream says
    """

    number_bits: int = 0
    separate_planes: bool = False
    _last: int | None = None

    def missing_before(self, packet: bytes) -> bool:
        """Whether pictures are missing before this one, with start codes; False if it is not known."""
        for unit in nal_units(packet):
            kind = unit[0] & 31 if unit else 0
            try:
                if kind == PARAMETERS:
                    self._read_parameters(_Bits(unit))
                elif kind == IDR:
                    self._last = 0
                    return False
                elif kind == SLICE:
                    return self._is_gap(_Bits(unit), refers=bool(unit[0] & 0x60))
            except ValueError:
                self._last = None
        return False

    def _is_gap(self, bits: _Bits, *, refers: bool) -> bool:
        if not self.number_bits:
            return False
        for _ in ("first_mb_in_slice", "slice_type", "pic_parameter_set_id"):
            bits.golomb()
        bits.number(2 if self.separate_planes else 0)
        number, last = bits.number(self.number_bits), self._last
        if refers or last is None:
            self._last = number
        return last is not None and number not in (last, (last + 1) % (1 << self.number_bits))

    def _read_parameters(self, bits: _Bits) -> None:
        """A sequence parameter set (7.3.2.1.1), up to whether numbers may be left out."""
        self.number_bits = 0
        profile = bits.number(8)
        bits.number(16)
        bits.golomb()
        self.separate_planes = False
        if profile in WITH_CHROMA:
            if bits.golomb() == 3:
                self.separate_planes = bool(bits.number(1))
            bits.golomb()
            bits.golomb()
            bits.number(1)
            if bits.number(1):  # scaling lists, which nobody uses for live video
                return
        number_bits = bits.golomb() + 4
        order = bits.golomb()
        if order == 0:
            bits.golomb()
        elif order == 1:
            bits.number(1)
            bits.golomb()
            bits.golomb()
            for _ in range(min(bits.golomb(), 255)):
                bits.golomb()
        bits.golomb()
        may_be_left_out = bits.number(1)
        self.number_bits = 0 if may_be_left_out or number_bits > 16 else number_bits
