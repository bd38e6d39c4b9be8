"""MCAP files, record by record, and messages of ROS 2 and Foxglove in them."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa

MAGIC = b"\x89MCAP0\r\n"
START_NS = 1_700_000_000_000_000_000
MS = 1_000_000
EVERY_MS = 50
LATE_NS = 5 * MS
"""How long after its stamp a message is recorded."""
SIZE = (64, 48)


def record(kind: int, body: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(body)) + body


def text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode()


def chunk(records: bytes, codec: str) -> bytes:
    packed = pa.compress(records, codec, asbytes=True) if codec else records
    head = struct.pack("<QQQI", 0, 0, len(records), zlib.crc32(records))
    return record(6, head + text(codec) + struct.pack("<Q", len(packed)) + packed)


@dataclass(frozen=True)
class Message:
    """A message to write."""

    topic: str
    schema: str
    encoding: str
    log_ns: int
    data: bytes
    definition: bytes = b""


def write(
    path: Path,
    messages: Sequence[Message],
    *,
    codec: str = "zstd",
    chunked: bool = True,
    profile: str = "ros2",
) -> Path:
    """A file of the messages in this order, four in each chunk."""
    about = list(dict.fromkeys((m.topic, m.schema, m.encoding, m.definition) for m in messages))
    names = b"".join(
        record(
            3,
            struct.pack("<H", number)
            + text(schema)
            + text("")
            + struct.pack("<I", len(definition))
            + definition,
        )
        + record(4, struct.pack("<HH", number, number) + text(topic) + text(encoding) + text(""))
        for number, (topic, schema, encoding, definition) in enumerate(about, start=1)
    )
    bodies = [
        record(
            5,
            struct.pack(
                "<HIQQ",
                about.index((m.topic, m.schema, m.encoding, m.definition)) + 1,
                0,
                m.log_ns,
                0,
            )
            + m.data,
        )
        for m in messages
    ]
    if chunked:
        fours = [b"".join(bodies[k : k + 4]) for k in range(0, len(bodies), 4)]
        content = b"".join(chunk(names * (k == 0) + four, codec) for k, four in enumerate(fours))
    else:
        content = names + b"".join(bodies)
    head = MAGIC + record(1, text(profile) + text("test"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + content + record(15, bytes(4)) + record(2, bytes(20)) + MAGIC)
    return path


class Cdr:
    """Values in CDR, little-endian."""

    def __init__(self) -> None:
        self._values = b""

    def numbers(self, code: str, *values: float) -> Cdr:
        size = struct.calcsize(code)
        if values:
            self._values += bytes(-len(self._values) % size)
        self._values += struct.pack(f"<{len(values)}{code}", *values)
        return self

    def octets(self, data: bytes) -> Cdr:
        self.numbers("I", len(data))
        self._values += data
        return self

    def text(self, value: str) -> Cdr:
        return self.octets(value.encode() + b"\0")

    def stamp(self, time_ns: int) -> Cdr:
        return self.numbers("i", time_ns // 10**9).numbers("I", time_ns % 10**9)

    def bytes(self) -> bytes:
        return b"\0\1\0\0" + self._values


def at(ms: float) -> int:
    return START_NS + round(ms * MS)


def image(
    ms: float,
    data: bytes,
    format: str = "jpeg",
    *,
    topic: str = "/camera",
    late_ns: int = LATE_NS,
    shift_ns: int = 0,
) -> Message:
    """A picture of ROS 2, stamped at `ms` (and `shift_ns`), recorded `late_ns` later."""
    cdr = Cdr().stamp(at(ms) + shift_ns).text("cam").text(format).octets(data)
    return Message(topic, "sensor_msgs/msg/CompressedImage", "cdr", at(ms) + late_ns, cdr.bytes())


def joy(
    ms: float,
    axes: Sequence[float],
    buttons: Sequence[int],
    *,
    topic: str = "/joy",
    late_ns: int = LATE_NS,
    shift_ns: int = 0,
) -> Message:
    """The state of a pad, stamped and recorded as `image`."""
    cdr = Cdr().stamp(at(ms) + shift_ns).text("").numbers("I", len(axes)).numbers("f", *axes)
    cdr.numbers("I", len(buttons)).numbers("i", *buttons)
    return Message(topic, "sensor_msgs/msg/Joy", "cdr", at(ms) + late_ns, cdr.bytes())


def twist(ms: float, forward: float, turn: float) -> Message:
    """A velocity; it has no stamp."""
    cdr = Cdr().numbers("d", forward, 0, 0, 0, 0, turn)
    return Message("/cmd_vel", "geometry_msgs/msg/Twist", "cdr", at(ms) + LATE_NS, cdr.bytes())


def video(ms: float, data: bytes, format: str) -> Message:
    """A picture of a video of Foxglove, in CDR."""
    cdr = Cdr().stamp(at(ms)).text("cam").octets(data).text(format)
    schema = "foxglove_msgs/msg/CompressedVideo"
    return Message("/video", schema, "cdr", at(ms) + LATE_NS, cdr.bytes())


def json_image(ms: float, data: bytes) -> Message:
    """A picture of Foxglove, in JSON."""
    seconds, rest = divmod(at(ms), 10**9)
    content = {
        "timestamp": {"sec": seconds, "nsec": rest},
        "frame_id": "cam",
        "data": base64.b64encode(data).decode(),
        "format": "png",
    }
    coded = json.dumps(content).encode()
    return Message("/camera", "foxglove.CompressedImage", "json", at(ms) + LATE_NS, coded)


def json_joy(ms: float, axes: Sequence[float], buttons: Sequence[int]) -> Message:
    """The state of a pad, in JSON."""
    seconds, rest = divmod(at(ms), 10**9)
    stamp = {"stamp": {"sec": seconds, "nanosec": rest}}
    content = {"header": stamp, "axes": list(axes), "buttons": list(buttons)}
    coded = json.dumps(content).encode()
    return Message("/joy", "sensor_msgs/msg/Joy", "json", at(ms) + LATE_NS, coded)


ENCODERS = {
    "h264": ("libx264", {"preset": "ultrafast", "tune": "zerolatency", "bf": "0"}),
    "h265": (
        "libx265",
        {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "x265-params": "bframes=0:log-level=none:repeat-headers=1",
        },
    ),
    "av1": ("libsvtav1", {"svtav1-params": "pred-struct=1"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "lag-in-frames": "0"}),
}


def grey(level: int) -> np.ndarray:
    return np.full((SIZE[1], SIZE[0], 3), level, np.uint8)


def moving(number: int) -> np.ndarray:
    """A noise that moves, so that pictures build on one another."""
    noise = np.random.default_rng(0).integers(0, 255, (SIZE[1], 400, 3), np.uint8)
    return np.ascontiguousarray(noise[:, 3 * number : 3 * number + SIZE[0]])


def coded(
    format: str,
    count: int,
    picture: Callable[[int], np.ndarray] = lambda number: grey(10 * number),
    *,
    every_key: int = 10,
    **more: str,
) -> list[bytes]:
    """The packets of a video, one for each picture, in the order in which they are decoded."""
    name, options = ENCODERS[format]
    context = av.CodecContext.create(name, "w")
    context.width, context.height = SIZE
    context.pix_fmt, context.time_base, context.framerate = "yuv420p", Fraction(1, 20), Fraction(20)
    context.gop_size = every_key
    context.options = options | more
    packets: list[bytes] = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
        frame.pts = number
        packets += [bytes(packet) for packet in context.encode(frame)]
    return packets + [bytes(packet) for packet in context.encode(None)]
