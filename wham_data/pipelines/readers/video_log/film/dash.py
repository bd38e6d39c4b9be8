"""Recordings of game launchers as DASH: a playlist (.mpd) beside a first piece and numbered chunks.

The playlist is a stranger's XML. It is read within limits, and only names of files in its folder are
taken from it: nothing is fetched, and nothing outside is opened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from wham_data.files.found import read_whole
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.errors import Reason, RefusedInput, printable

PLAYLIST_ENDING: Final = ".mpd"
PIECE_ENDING: Final = ".m4s"
MAX_PLAYLIST_BYTES: Final = 4 << 20
MAX_DEPTH: Final = 32
MAX_ELEMENTS: Final = 200_000
MAX_CHUNKS: Final = 100_000
MOST_NAMED: Final = 8

_TOKEN: Final = re.compile(
    r"\$(RepresentationID|Bandwidth|Number|Time)?(?:%0(\d\d?)d)?\$", re.ASCII
)
_PLAIN: Final = re.compile(r"[^./\\:\0][^/\\:\0]{0,200}")
_DURATION: Final = re.compile(
    r"P(?:(\d{1,4})D)?T(?:(\d{1,6})H)?(?:(\d{1,8})M)?(?:(\d{1,9}(?:\.\d{1,9})?)S)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Playlist:
    """What an .mpd says of its video with the largest pictures.

    first      name of the piece with which all begins
    before, digits, after  a chunk's name is `before`, its number with at least so many digits, `after`
    start      number of the first chunk; None: chunks are named by their times
    numbers    the chunks' numbers, in order; None: not said
    length_ns  length of the recording; None: not said
    chunk_ns   length of a chunk, about; None: not said
    zero_ns    time stamp of the video that is the recording's zero
    """

    first: str
    before: str
    digits: int
    after: str
    start: int | None
    numbers: tuple[int, ...] | None
    length_ns: int | None
    chunk_ns: int | None
    zero_ns: int

    def name(self, number: int) -> str:
        """The name of a chunk."""
        return f"{self.before}{number:0{self.digits}}{self.after}"

    def number(self, name: str) -> int | None:
        """The number of the chunk of this name; None for another file."""
        digits = name.removeprefix(self.before).removesuffix(self.after)
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            return None
        return int(digits) if self.name(int(digits)) == name else None


class _Tree(TreeBuilder):
    """An XML tree of limited depth and size, without a document type, so without entities."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = self._count = 0

    def doctype(self, *_: object) -> None:
        raise _refused("it has a document type, which a playlist has not")

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        self._depth, self._count = self._depth + 1, self._count + 1
        if self._depth > MAX_DEPTH or self._count > MAX_ELEMENTS:
            raise _refused(
                f"it is nested deeper than {MAX_DEPTH} or has over {MAX_ELEMENTS} elements"
            )
        return super().start(tag.rpartition("}")[2], attrs)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag.rpartition("}")[2])


def _refused(why: str, reason: Reason = Reason.FORMAT_NOT_ALLOWED) -> RefusedInput:
    return RefusedInput(
        reason,
        f"a DASH recording that cannot be read: {why}; export it, or join its pieces: "
        "cat init-stream0.m4s chunk-stream0-*.m4s > session.mp4",
    )


def read_playlist(path: Path) -> Playlist:
    """Read an .mpd.

    Raises:
        RefusedInput: FORMAT_NOT_ALLOWED, it is no playlist of one stretch of plainly named pieces;
            UNSAFE_PATH, it names something that is not in its folder; TOO_LARGE.
    """
    parser = XMLParser(target=_Tree())
    try:
        parser.feed(read_whole(path, MAX_PLAYLIST_BYTES).decode("utf-8-sig"))
        root = parser.close()
    except (ParseError, ValueError) as error:
        raise _refused(f"{path.name} is no XML in UTF-8 ({str(error)[:80]})") from None
    return playlist_of(root)


def playlist_of(root: Element) -> Playlist:
    """What the XML of an .mpd says; see `read_playlist`."""
    periods = root.findall("Period")
    if root.tag != "MPD" or len(periods) != 1:
        raise _refused(f"{len(periods)} periods, expected one")
    if any((base.text or "").strip() not in ("", ".", "./") for base in root.iter("BaseURL")):
        raise _refused("its pieces are in another place (BaseURL)", Reason.UNSAFE_PATH)
    videos = [
        (of_set, one)
        for of_set in periods[0].findall("AdaptationSet")
        for one in of_set.findall("Representation")
        if _is_video(of_set) or _is_video(one)
    ]
    if not videos:
        raise _refused("it names no video")
    of_set, video = max(videos, key=lambda pair: _size(pair[1]))
    levels = [periods[0], of_set, video]
    templates = [each for level in levels for each in level.findall("SegmentTemplate")]
    said = {name: value for template in templates for name, value in template.attrib.items()}
    if "media" not in said or "initialization" not in said:
        raise _refused("its pieces are not named by a SegmentTemplate")
    names = {"RepresentationID": video.get("id", ""), "Bandwidth": video.get("bandwidth", "")}
    first, media = _filled(said["initialization"], names), _filled(said["media"], names)
    tokens = list(_TOKEN.finditer(media))
    if _TOKEN.search(first) or len(tokens) != 1 or tokens[0][1] not in ("Number", "Time"):
        raise _refused("the names of its pieces have no number, or more than one")
    token = tokens[0]
    for name in (first, media[: token.start()] + "1" + media[token.end() :]):
        if not _PLAIN.fullmatch(name):
            raise _refused(
                f"{printable(name[:80])!r} is no plain name in its folder", Reason.UNSAFE_PATH
            )
    start = _whole(said.get("startNumber", "1")) if token[1] == "Number" else None
    scale = _whole(said.get("timescale", "1")) or 1
    duration = _whole(said.get("duration", "0"))
    timeline = next((t for each in templates for t in each.findall("SegmentTimeline")), None)
    times = None if timeline is None else _times(timeline)
    numbers = times
    if times is not None and start is not None:
        numbers = tuple(range(start, start + len(times)))
    return Playlist(
        first=first,
        before=media[: token.start()],
        digits=int(token[2] or 1),
        after=media[token.end() :],
        start=start,
        numbers=numbers,
        length_ns=_nanoseconds(root.get("mediaPresentationDuration", "")),
        chunk_ns=duration * SECOND_NS // scale if duration else None,
        zero_ns=_whole(said.get("presentationTimeOffset", "0")) * SECOND_NS // scale,
    )


def _is_video(element: Element) -> bool:
    return element.get("contentType") == "video" or element.get("mimeType", "").startswith("video/")


def _size(video: Element) -> tuple[int, int]:
    width, height, bandwidth = (
        _whole(video.get(name, "0")) for name in ("width", "height", "bandwidth")
    )
    return width * height, bandwidth


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise _refused(f"{printable(text[:40])!r} where a number is expected")
    return int(text)


def _filled(template: str, values: Mapping[str, str]) -> str:
    """A template of names in which everything but the number and the time of a chunk is filled in."""
    return _TOKEN.sub(lambda token: values.get(token[1] or "", token[0]), template)


def _times(timeline: Element) -> tuple[int, ...] | None:
    """When each chunk starts, in units of the time scale; None where the last number is left open."""
    times: list[int] = []
    now = 0
    for stretch in timeline.findall("S"):
        now, length = _whole(stretch.get("t", str(now))), _whole(stretch.get("d", "0"))
        again = stretch.get("r", "0")
        if again.startswith("-"):
            return None
        count = _whole(again) + 1
        if len(times) + count > MAX_CHUNKS:
            raise _refused(f"over {MAX_CHUNKS} chunks")
        times += range(now, now + count * length, length) if length else [now] * count
        now += count * length
    return tuple(times)


def _nanoseconds(text: str) -> int | None:
    """A duration such as PT1H2M3.5S in nanoseconds; None for another text."""
    parts = _DURATION.fullmatch(text)
    if parts is None:
        return None
    days, hours, minutes, seconds = (Decimal(part or 0) for part in parts.groups())
    return int((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * SECOND_NS)


def pieces_among(playlist: Playlist, files: Mapping[str, Path]) -> tuple[Path, ...]:
    """The pieces of the video in their order, as far as they are there.

    Args:
        playlist: of the folder.
        files: the files of the folder, by name.
    """
    numbered = ((playlist.number(name), path) for name, path in files.items())
    chunks = sorted((number, path) for number, path in numbered if number is not None)
    first = files.get(playlist.first)
    return (*([first] if first else []), *(path for _, path in chunks if path != first))


def check_pieces(playlist: Playlist, names: list[str]) -> tuple[str, ...]:
    """Refuse a recording of which pieces are missing; return what a person should know.

    Chunks that are missing at the start are no damage: launchers keep the last minutes only.

    Raises:
        RefusedInput: TRUNCATED, with the names of the missing pieces.
    """
    found = {number for name in names if (number := playlist.number(name)) is not None}
    if playlist.first not in names or not found:
        what = playlist.first if playlist.first not in names else playlist.name(playlist.start or 1)
        raise _refused(f"{printable(what)} is missing", Reason.TRUNCATED)
    if len(found) > MAX_CHUNKS:
        raise _refused(f"over {MAX_CHUNKS} chunks", Reason.TOO_LARGE)
    low, high = min(found), max(found)
    if high - low > MAX_CHUNKS and playlist.start is not None:
        raise _refused("its chunks are numbered with gaps", Reason.TRUNCATED)
    expected = set(playlist.numbers or ())
    if playlist.numbers is None and playlist.start is not None:
        expected = set(range(low, high + 1))
    missing = sorted(number for number in expected - found if number > low)
    if missing:
        named = ", ".join(map(playlist.name, missing[:MOST_NAMED]))
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        raise _refused(
            f"{len(missing)} of {len(expected | found)} chunks are missing: {printable(named)}{more}",
            Reason.TRUNCATED,
        )
    first = min(playlist.numbers or (playlist.start or low,))
    if first < low:
        return (printable(f"begins with {playlist.name(low)}: the chunks before it are not there"),)
    return ()


def check_end(playlist: Playlist, names: list[str], start_ns: int, end_ns: int) -> None:
    """Refuse a recording whose last chunks are missing, by the length that the playlist says.

    Args:
        playlist: of the folder.
        names: of the pieces.
        start_ns, end_ns: the time of the video in them, on the recording's clock.

    Raises:
        RefusedInput: TRUNCATED, with the name of the first missing chunk.
    """
    if playlist.length_ns is None or playlist.start is None:
        return
    found = [number for name in names if (number := playlist.number(name)) is not None]
    length_ns = end_ns - (start_ns if playlist.start in found else 0)
    slack_ns = playlist.chunk_ns // 2 if playlist.chunk_ns else SECOND_NS
    if playlist.length_ns - length_ns > max(slack_ns, SECOND_NS // 10):
        raise _refused(
            f"{printable(playlist.name(max(found) + 1))} is missing: {length_ns / SECOND_NS:.2f} of "
            f"{playlist.length_ns / SECOND_NS:.2f} s are there",
            Reason.TRUNCATED,
        )
