"""Messages of pictures and controls, whatever encoding they are in.

    schema                              encodings            becomes
    sensor_msgs/msg/CompressedImage     cdr, json            a picture
    foxglove(_msgs) CompressedImage     cdr, json, protobuf  a picture
    foxglove(_msgs) CompressedVideo     cdr, json, protobuf  a picture of a video
    sensor_msgs/msg/Joy                 cdr, json            axes and buttons
    geometry_msgs/msg/Twist(Stamped)    cdr, json            six numbers

Layouts are those of ROS 2's common_interfaces and of the Foxglove SDK's schemas.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from wham_data.files.json_lines import json_value
from wham_data.files.mcap import McapMessage
from wham_data.files.messages.cdr import CdrValues
from wham_data.files.messages.protobuf import Message
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.declarations import is_number
from wham_data.schemas.errors import Reason, RefusedInput

Kind = Literal["picture", "video", "control"]
Numbers = NDArray[np.float64]
NO_NUMBERS: Final = np.zeros(0)
XYZ: Final = ("x", "y", "z")
TWIST: Final = tuple(f"{which}_{axis}" for which in ("linear", "angular") for axis in XYZ)
MOST_CONTROLS: Final = 512
MOST_SECONDS: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class MessageType:
    """What a schema's messages are.

    fields  name and type of each, in the order of the definition
    """

    kind: Kind
    fields: tuple[tuple[str, str], ...]

    @property
    def is_twist(self) -> bool:
        """Six numbers with names, of any size."""
        return self.fields[-1][1] == "xyz"


_IMAGE: Final = (
    ("stamp", "time"),
    ("frame_id", "text"),
    ("data", "octets"),
    ("format", "text"),
)
_VELOCITY: Final = (("linear", "xyz"), ("angular", "xyz"))
_HEADER: Final = ("stamp", "header")
TYPES: Final = MappingProxyType(
    {
        "sensor_msgs/CompressedImage": MessageType(
            "picture", (_HEADER, ("format", "text"), ("data", "octets"))
        ),
        "foxglove/CompressedImage": MessageType("picture", _IMAGE),
        "foxglove/CompressedVideo": MessageType("video", _IMAGE),
        "sensor_msgs/Joy": MessageType("control", (_HEADER, ("axes", "f4"), ("buttons", "i4"))),
        "geometry_msgs/Twist": MessageType("control", _VELOCITY),
        "geometry_msgs/TwistStamped": MessageType("control", (_HEADER, *_VELOCITY)),
    }
)


@dataclass(frozen=True, slots=True)
class Content:
    """What a message says.

    stamp_ns  the time in its own header; None: there is none, or it is 0
    data      of a picture, coded
    format    of the picture, as the message calls it
    axes      float64 [A]  numbers of any size for a Twist
    buttons   float64 [B]
    """

    stamp_ns: int | None = None
    data: bytes = b""
    format: str = ""
    axes: Numbers = field(default_factory=lambda: NO_NUMBERS)
    buttons: Numbers = field(default_factory=lambda: NO_NUMBERS)


def type_of(schema: str) -> MessageType | None:
    """The type that a schema's name stands for; None for one that is not read.

    `foxglove.CompressedImage`, `foxglove_msgs/msg/CompressedImage` and the like are one type.
    """
    parts = [part for part in re.split(r"[./:]+", schema) if part != "msg"]
    return TYPES.get("/".join(parts).replace("foxglove_msgs/", "foxglove/", 1))


def content_of(message: McapMessage, type: MessageType) -> Content:
    """What a message says.

    Raises:
        RefusedInput: LOG_SYNTAX, LOG_ENCODING or LOG_TYPE, it cannot be read as its type;
            FORMAT_NOT_ALLOWED, its encoding is not read; TOO_LARGE.
    """
    read = _ENCODINGS.get(message.encoding)
    if read is None:
        raise RefusedInput(
            Reason.FORMAT_NOT_ALLOWED,
            f"messages of {message.schema} encoded as {message.encoding[:40]!r}, expected "
            f"{', '.join(_ENCODINGS)}: convert the recording to ROS 2",
        )
    found = read(message, type)
    if type.is_twist:
        axes = np.concatenate([found["linear"], found["angular"]])
        return Content(found.get("stamp"), axes=axes)
    if type.kind == "control":
        axes, buttons = found["axes"].astype(np.float64), found["buttons"].astype(np.float64)
        if len(axes) + len(buttons) > MOST_CONTROLS:
            raise RefusedInput(
                Reason.TOO_LARGE, f"{len(axes)} axes and {len(buttons)} buttons: too many"
            )
        return Content(found["stamp"], axes=axes, buttons=buttons)
    return Content(found["stamp"], found["data"], found["format"])


def _from_cdr(message: McapMessage, type: MessageType) -> dict[str, Any]:
    values = CdrValues(message.data)
    found: dict[str, Any] = {}
    for name, how in type.fields:
        match how:
            case "time" | "header":
                found[name] = values.time_ns() or None
                if how == "header":
                    values.text()  # frame_id
            case "text":
                found[name] = values.text()
            case "octets":
                found[name] = values.octets()
            case "xyz":
                found[name] = values.numbers(np.dtype("f8"), len(XYZ))
            case _:
                found[name] = values.numbers(np.dtype(how))
    values.check_end()
    return found


def _from_json(message: McapMessage, type: MessageType) -> dict[str, Any]:
    content = json_value(message.data, f"a message of {message.schema}")
    if not isinstance(content, dict):
        raise RefusedInput(Reason.LOG_TYPE, f"a message of {message.schema} that is no object")
    header = content.get("header")
    stamp = header.get("stamp") if isinstance(header, dict) else content.get("timestamp")
    found: dict[str, Any] = {"stamp": _json_time(stamp)}
    for name, how in type.fields:
        value = content.get(name)
        match how:
            case "text":
                found[name] = value if isinstance(value, str) else ""
            case "octets":
                found[name] = _json_octets(value)
            case "xyz":
                inner = value if isinstance(value, dict) else {}
                found[name] = _json_numbers([inner.get(axis) for axis in XYZ], name)
            case "f4" | "i4":
                found[name] = _json_numbers(value, name)
    return found


def _json_time(value: object) -> int | None:
    """A time {sec, nanosec}, as the names of its parts vary."""
    if not isinstance(value, dict):
        return None
    seconds = next((value[key] for key in ("sec", "secs") if key in value), None)
    rest = next((value[key] for key in ("nanosec", "nsec", "nsecs") if key in value), None)
    if not (isinstance(seconds, int) and isinstance(rest, int)):
        return None
    return _time_ns(seconds, rest)


def _time_ns(seconds: int, rest_ns: int) -> int | None:
    sound = 0 <= seconds < MOST_SECONDS and 0 <= rest_ns < SECOND_NS
    return (seconds * SECOND_NS + rest_ns if sound else 0) or None


def _json_octets(value: object) -> bytes:
    """Bytes in base64, or as a list of numbers."""
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
        if isinstance(value, list):
            return bytes(value)
    except (binascii.Error, ValueError, TypeError):
        pass
    raise RefusedInput(Reason.LOG_TYPE, "data is neither base64 nor a list of bytes")


def _json_numbers(value: object, name: str) -> Numbers:
    if not isinstance(value, list) or not all(map(is_number, value)):
        raise RefusedInput(Reason.LOG_TYPE, f"{name} holds something else than numbers")
    return np.array(value, np.float64)


def _from_protobuf(message: McapMessage, type: MessageType) -> dict[str, Any]:
    if type.kind == "control":
        raise RefusedInput(
            Reason.FORMAT_NOT_ALLOWED,
            f"messages of {message.schema} in protobuf, expected cdr or json",
        )
    numbers = _field_numbers(message.definition, message.schema)
    found = Message.parse(message.data)
    stamp = found.message(numbers.get("timestamp", 0))
    return {
        "stamp": _time_ns(stamp.integer(1), stamp.integer(2)),
        "data": found.octets(numbers["data"]),
        "format": found.text(numbers.get("format", 0)),
    }


@lru_cache(maxsize=64)
def _field_numbers(definition: bytes, schema: str) -> dict[str, int]:
    """The numbers of a message's fields, by name, as a FileDescriptorSet has them.

    Raises:
        RefusedInput: LOG_SYNTAX, it does not define a message of this name with `data`.
    """
    for file in Message.parse(definition).messages(1):
        for message in file.messages(4):
            if ".".join(filter(None, (file.text(2), message.text(1)))) == schema:
                found = {each.text(1): each.integer(3) for each in message.messages(2)}
                if "data" in found:
                    return found
    raise RefusedInput(Reason.LOG_SYNTAX, f"the file does not define the fields of {schema[:80]}")


_ENCODINGS: Final[dict[str, Callable[[McapMessage, MessageType], dict[str, Any]]]] = {
    "cdr": _from_cdr,
    "json": _from_json,
    "protobuf": _from_protobuf,
}
