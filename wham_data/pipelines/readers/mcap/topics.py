"""The topics of a recording: what each holds, and which of them are taken."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.mcap import McapMessage, MessagesAgain, read_messages
from wham_data.pipelines.readers.mcap.messages import (
    TWIST,
    Content,
    Kind,
    MessageType,
    content_of,
    type_of,
)
from wham_data.pipelines.readers.video_log.log_table import check_room
from wham_data.pipelines.readers.video_log.log_words import listed
from wham_data.pipelines.video.bitstream import Picture, inspector
from wham_data.schemas.clock import Nanos
from wham_data.schemas.errors import Reason, RefusedInput

MOST_TOPICS: Final = 4096
MOST_MESSAGES: Final = 2_000_000
CODECS: Final = {"h264": "h264", "h265": "hevc", "hevc": "hevc", "av1": "av1", "vp9": "vp9"}
"""What CompressedVideo calls its formats, and FFmpeg."""
NO_STAMP: Final = -1
_DEPTH: Final = re.compile(r"compressedDepth|\b(?:16UC1|32FC1|mono16)\b", re.IGNORECASE)
"""In the format of a map of distances, which is no picture of what is seen."""

Place = tuple[int, int, int]
"""Of a message: the number of the file, and `McapMessage.place`."""


@dataclass(slots=True)
class Topic:
    """The messages of one topic, as they lie in the files.

    schema, encoding, definition  as `McapMessage` has them
    count   of its messages
    type    None for a schema that is not read, of which the rest is not known
    places, log_ns, stamps_ns  of each message; NO_STAMP where it has none
    sizes, keys  of each coded picture: its bytes, and whether decoding can start at it
    rows    the controls, row after row; names: of the columns
    format  as the first message calls it
    wrong   why it cannot be taken; None: it can
    """

    name: str
    schema: str
    encoding: str
    definition: bytes
    type: MessageType | None
    count: int = 0
    places: list[Place] = field(default_factory=list)
    log_ns: array[int] = field(default_factory=lambda: array("q"))
    stamps_ns: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    keys: array[int] = field(default_factory=lambda: array("b"))
    rows: array[float] = field(default_factory=lambda: array("d"))
    names: tuple[str, ...] = ()
    format: str = ""
    wrong: RefusedInput | None = None
    _inspect: Callable[[memoryview], int] | None = None

    @property
    def kind(self) -> Kind | None:
        """What its messages hold; None for a map of distances as well."""
        if self.type is None or (self.type.kind == "picture" and _DEPTH.search(self.format)):
            return None
        return self.type.kind

    @property
    def is_film(self) -> bool:
        """Whether it holds pictures or a video."""
        return self.kind in ("picture", "video")

    def add(self, message: McapMessage, number: int) -> None:
        """Note a message of the file of this number."""
        self.count += 1
        if self.type is None or self.wrong is not None:
            return
        try:
            content = content_of(message, self.type)
            if self.count > MOST_MESSAGES:
                raise RefusedInput(Reason.TOO_LARGE, f"over {MOST_MESSAGES} messages")
            if self.type.kind == "control":
                self._add_row(content)
            else:
                self._add_picture(content)
        except RefusedInput as why:
            at = f"{self.name}, message {self.count}"
            self.wrong = RefusedInput(why.reason, f"{at}: {why.message}")
            return
        self.places.append((number, *message.place))
        self.log_ns.append(message.log_time_ns)
        self.stamps_ns.append(NO_STAMP if content.stamp_ns is None else content.stamp_ns)

    def _add_row(self, content: Content) -> None:
        names = TWIST if self.type is not None and self.type.is_twist else _names(content)
        if self.names and names != self.names:
            raise RefusedInput(
                Reason.LOG_COLUMN,
                f"{len(content.axes)} axes and {len(content.buttons)} buttons, before it other numbers "
                "of them: two pads on one topic?",
            )
        if not names:
            raise RefusedInput(Reason.LOG_COLUMN, "neither axes nor buttons")
        check_room(self.count, len(names))
        self.names = names
        self.rows.extend((*content.axes, *content.buttons))

    def _add_picture(self, content: Content) -> None:
        if self.count > 1 and content.format != self.format:
            raise RefusedInput(
                Reason.FORMAT_NOT_ALLOWED,
                f"{content.format[:40]!r} after {self.format[:40]!r}: one topic, two formats",
            )
        self.format = content.format
        self.sizes.append(len(content.data))
        if self.type is not None and self.type.kind == "video":
            if self._inspect is None:
                self._inspect = inspector(self.codec, b"")
            flags = self._inspect(memoryview(content.data))
            self.keys.append(bool(flags & (Picture.RESTART | Picture.OPEN_RESTART)))

    @property
    def codec(self) -> str:
        """FFmpeg's name of a video's codec.

        Raises:
            RefusedInput: UNSUPPORTED_CODEC.
        """
        codec = CODECS.get(self.format.lower())
        if codec is None:
            raise RefusedInput(
                Reason.UNSUPPORTED_CODEC,
                f"a video of the format {self.format[:40]!r}, expected {', '.join(CODECS)}",
            )
        return codec

    def values(self) -> NDArray[np.float64]:
        """The controls, float64 [N, C]."""
        return np.frombuffer(self.rows, np.float64).reshape(-1, len(self.names))


def _names(content: Content) -> tuple[str, ...]:
    """The columns of a Joy, which has no names: axes_0 and so on, buttons_0 and so on."""
    axes = (f"axes_{i}" for i in range(len(content.axes)))
    return (*axes, *(f"buttons_{i}" for i in range(len(content.buttons))))


def read_topics(paths: Sequence[Path]) -> dict[str, Topic]:
    """The topics of a recording, in the order in which they come. Its files are read once.

    Raises:
        RefusedInput: TOO_LARGE, over MOST_TOPICS; as `read_messages`.
    """
    topics: dict[str, Topic] = {}
    for number, path in enumerate(paths):
        for message in read_messages(path):
            topic = topics.get(message.topic)
            if topic is None:
                if len(topics) == MOST_TOPICS:
                    raise RefusedInput(Reason.TOO_LARGE, f"over {MOST_TOPICS} topics")
                about = message.topic, message.schema, message.encoding, message.definition
                topic = topics[message.topic] = Topic(*about, type_of(message.schema))
            now, before = (message.schema, message.encoding), (topic.schema, topic.encoding)
            if now != before and topic.wrong is None:
                what = " and ".join(f"{schema[:80]} in {how[:20]}" for schema, how in (before, now))
                topic.wrong = RefusedInput(Reason.LOG_TYPE, f"{topic.name} holds {what}")
            topic.add(message, number)
    if not topics:
        raise RefusedInput(Reason.LOG_EMPTY, "no messages in it")
    return topics


def taken(
    topics: dict[str, Topic], wanted: str, option: str, fits: Callable[[Topic], bool], what: str
) -> Topic | None:
    """The topic to take; None where there is none of this sort.

    Args:
        topics: of the recording.
        wanted: its name, as `--option` gives it; "": the only one that fits.
        option: the name of the option, for messages.
        fits: whether a topic can be taken.
        what: such topics are called, for messages.

    Raises:
        RefusedInput: METADATA, several fit, or none has the wanted name; what is wrong with it.
    """
    found = [topic for topic in topics.values() if fits(topic)]
    if wanted:
        found = [topic for topic in found if topic.name == wanted]
        if not found:
            raise RefusedInput(
                Reason.METADATA,
                f"no {what} topic {wanted[:200]} (--option {option}); topics: {listing(topics)}",
            )
    if len(found) > 1:
        raise RefusedInput(
            Reason.METADATA,
            f"{len(found)} {what} topics: {listed([each.name for each in found])}; choose one with "
            f"--option {option}={found[0].name}",
        )
    if found and found[0].wrong is not None:
        raise found[0].wrong
    return found[0] if found else None


def listing(topics: dict[str, Topic]) -> str:
    """The topics with their schemas, and the formats of pictures."""
    shown = ((each.name, each.schema, each.format) for each in topics.values())
    return listed([f"{name} ({', '.join(filter(None, what))})" for name, *what in shown])


def again(paths: Sequence[Path], topic: Topic, order: Sequence[int]) -> Callable[[int], bytes]:
    """A function from a position in `order` to the coded picture of that message.

    Args:
        paths: the files of the recording.
        topic: of pictures.
        order: numbers of the topic's messages.
    """
    type = topic.type
    assert type is not None
    files = [MessagesAgain(path) for path in paths]

    def picture(position: int) -> bytes:
        number, chunk, place = topic.places[order[position]]
        data = files[number].data((chunk, place))
        about = topic.name, topic.schema, 0, data, (chunk, place), topic.encoding, topic.definition
        return content_of(McapMessage(*about), type).data

    return picture


def times_of(values: array[int]) -> Nanos:
    """Times as an array, int64 [N]."""
    return np.frombuffer(values, np.int64) if len(values) else np.zeros(0, np.int64)
