"""Readers: how recordings of each source format are recognised and opened.

A reader is one file of this package: docs/add-a-reader.md says how to add one. Discovery lists files
and folders, and each reader takes the files that it recognises. A file that looks like a video and
that no reader takes is refused with a reason.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol, runtime_checkable

from wham_data.corpus.storage.sources.at_hand import (
    LaidOut,
    at_hand,
    here,
    recording_there,
    there,
    told_refusal,
)
from wham_data.files.archives import refuse_archive
from wham_data.files.found import (
    ARCHIVE_ENDINGS,
    Listing,
    head_of,
    heads_remembered,
    sniff,
)
from wham_data.files.links import (
    follow_within,
    needless_links,
)
from wham_data.files.marks import model_of_file, refuse_synthetic
from wham_data.files.npz import array_shapes
from wham_data.pipelines.align import DEFAULT_MAX_GAP_NS
from wham_data.pipelines.readers.kit.gaps import apply_max_gap
from wham_data.pipelines.readers.kit.given import files_beside, given
from wham_data.pipelines.readers.kit.listing import formats_in
from wham_data.pipelines.readers.kit.not_downloaded import (
    among_pointers,
    better_reason,
    pointers_among,
    refusal_of,
    unclaimed_refusal,
)
from wham_data.pipelines.readers.kit.options import configured, options_of
from wham_data.pipelines.readers.kit.units import FoundInUnit, Search, Unit
from wham_data.pipelines.readers.video_log.neighbours import (
    LOG_ENDINGS,
    dash_refusal,
    pieces_of_playlists,
    session_log,
)
from wham_data.pipelines.readers.video_log.reader import (
    METADATA_ENDINGS,
    VideoLog,
    is_video,
    log_missing,
)
from wham_data.pipelines.readers.wham_npz import WhamNpz
from wham_data.pipelines.video import HEAD_BYTES, VideoLimits, refuse_by_content
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.errors import Reason, RefusedInput, UsageError
from wham_data.schemas.mask import Mask
from wham_data.schemas.paths import is_in_store
from wham_data.schemas.recording import OpenRecording, Recording, RefusedFile

TARGET: Final = "target"
NO_OPTIONS: Final[Mapping[str, str]] = MappingProxyType({})


@runtime_checkable
class Reader(Protocol):
    """Recognises and opens one source format. A frozen dataclass; its options are its fields.

    Attributes:
        name: the format's name for `--format`.
        about: one line for help and documentation.

    A reader may also have the attribute `order`, a number, 500 by default. Readers look for
    recordings one after the other, and a later reader does not see files that an earlier one took.
    Lower numbers come first; equal ones are sorted by name. `video-log`, which takes any video with
    a log beside it, comes last (1000).

    A reader with a field `target: ActionSpace | None = None` is given the action space of the corpus
    there before `open`, to decide by where a log fits several.
    Folders are searched one after the other: see `kit/units.py`. A reader whose recordings may have
    files in several folders is `Spanning` too.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def about(self) -> str: ...  # noqa: D102

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """The recordings of this format among `files` (sorted, absolute, regular files).

        Recognise a file by its content and the files beside it, never by its suffix alone. Several
        recordings may share files; each then has its own `part`. For a file that is certainly of this
        format but cannot be taken, yield a `RefusedFile`. `find` itself must never raise.
        """
        ...

    def open(self, recording: Recording, limits: VideoLimits) -> OpenRecording:
        """Read the times and actions of one recording.

        Args:
            recording: a result of `find`.
            limits: the largest size and length.

        Raises:
            RefusedInput: the recording goes to quarantine for this reason.
        """
        ...


@runtime_checkable
class Spanning(Protocol):
    """A reader whose recordings may have files in several folders."""

    def spans(self, folder: Path, listing: Listing) -> bool:
        """Whether recordings may have files in several folders below this one.

        Everything below it is then listed before a recording is recognised there.

        Args:
            folder: its path.
            listing: the files and folders directly in it.
        """
        ...


@runtime_checkable
class Joining(Protocol):
    """A reader that may join videos which lie beside a log of their own name, each, in one recording."""

    def joins(self, stem: str) -> bool:
        """Whether a file of this name, without its ending, may be one of several of a recording."""
        ...


READERS: Final = tuple(
    each for each in formats_in(sys.modules[__name__]) if isinstance(each, Reader)
)
"""Every reader, in the order in which they look. They are found, not listed: see `kit/listing.py`."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """The result of a search. Every file is in exactly one of the three.

    recordings  the recordings that readers recognised, sorted by path
    refused     inputs that cannot be used, each with its reason, sorted by path
    ignored     files that do not belong to any recording
    """

    recordings: tuple[Recording, ...]
    refused: tuple[tuple[Path, RefusedInput], ...]
    ignored: tuple[Path, ...]


def reader_named(name: str) -> Reader:
    """The reader with the name of `--format`.

    Raises:
        UsageError: there is no such reader. The message lists all readers.
    """
    for reader in READERS:
        if reader.name == name:
            return reader
    known = ", ".join(reader.name for reader in READERS)
    raise UsageError(f"no format called {name[:80]!r}; known formats: auto, {known}")


def chosen_readers(format: str, options: Mapping[str, str] = NO_OPTIONS) -> tuple[Reader, ...]:
    """The readers that look for recordings, in their order.

    Args:
        format: a reader's name, or "auto" for all readers.
        options: values of readers' options, as texts.

    Raises:
        UsageError: there is no such format, or no reader has one of the options.
    """
    return configured(READERS if format == "auto" else (reader_named(format),), options)


def open_recording(
    recording: Recording,
    limits: VideoLimits | None = None,
    max_gap_ns: int = DEFAULT_MAX_GAP_NS,
    options: Mapping[str, str] = NO_OPTIONS,
    masks: tuple[Mask, ...] = (),
    target: ActionSpace | None = None,
) -> OpenRecording:
    """Open a recording with the reader that recognised it.

    Args:
        recording: a recording of `discover`.
        limits: by default `VideoLimits()`.
        max_gap_ns: a time without a new frame, or without a row of a sampled log, is a gap if it is
            longer than this.
        options: values of readers' options; those of other readers are ignored.
        masks: rectangles to blacken in every picture, besides those of the recording itself.
        target: the space that actions are wanted in, which decides where a log fits several spaces
            alike. The actions may still be in another one.

    Raises:
        RefusedInput: the recording goes to quarantine for this reason.
    """
    reader = reader_named(recording.format)
    mine = {name: options[name] for name in options if name in options_of(reader)}
    (reader,) = configured((reader,), mine)
    if any(each.name == TARGET for each in fields(reader)):  # type: ignore[arg-type]  # a dataclass
        reader = replace(reader, target=target)  # type: ignore[type-var]
    limits = limits or VideoLimits()
    recording, files = at_hand(recording)
    if files is not None:
        _last_opened.append(files)
    follow_links_of(recording)
    synthetic = _dreamt(recording, limits)
    try:
        opened = reader.open(recording, limits)
    except RefusedInput as why:
        raise better_reason(recording, why) from None
    apply_max_gap(opened, max_gap_ns)
    opened.masks += masks
    opened.notes = tuple(dict.fromkeys((*opened.notes, *synthetic)))
    return opened


_last_opened: Final[deque[LaidOut]] = deque(maxlen=64)
"""Of recordings in a store, the files of those that were opened last stay at hand."""


def follow_links_of(recording: Recording) -> None:
    """Follow links from here on as the input allows in which a recording was found."""
    if recording.root is None:
        follow_within((), [recording.path])
    else:
        follow_within([recording.root])


def _dreamt(recording: Recording, limits: VideoLimits) -> tuple[str, ...]:
    """What to say of a recording whose files say that a world model made them, where it is allowed.

    Raises:
        RefusedInput: SYNTHETIC, it is not.
    """
    for path in recording.files:
        model = model_of_file(path)
        if model is not None:
            if not limits.allow_synthetic:
                refuse_synthetic(model, path.name)
            return (f"synthetic: dreamt by {model[:80]}",)
    return ()


def discover(
    sources: Sequence[str | Path], format: str = "auto", options: Mapping[str, str] = NO_OPTIONS
) -> Discovery:
    """Find the recordings in files and folders, in an order that depends only on their names.

    Args:
        sources: files and folders. With a file, the files beside it that it needs are found too. A
            folder is searched with all its subfolders.
        format: a reader's name to look for that format only; "auto" uses every reader.
        options: values of readers' options.

    Raises:
        UsageError: a source does not exist, or there is no such format or option.
    """
    recordings: list[Recording] = []
    refused: dict[Path, RefusedInput] = {}
    ignored: set[Path] = set()
    elsewhere: set[Path] = set()
    for found in SourceSearch(sources, format, options).found():
        if isinstance(found, Recording):
            recordings.append(found)
        else:
            refused |= found.refused
            ignored.update(found.ignored)
            elsewhere |= found.elsewhere
    return Discovery(
        tuple(recordings),
        tuple((path, refused[path]) for path in sorted(refused.keys() - elsewhere)),
        tuple(sorted(ignored - elsewhere)),
    )


class SourceSearch:
    """Finds recordings as `discover` does, but one by one, while the next folders are not listed yet.

    Args:
        sources, format, options: see `discover`.

    Raises:
        UsageError: as `discover`.
    """

    def __init__(
        self,
        sources: Sequence[str | Path],
        format: str = "auto",
        options: Mapping[str, str] = NO_OPTIONS,
    ) -> None:
        self._readers = chosen_readers(format, options)
        self._given, self._roots = given(sources)

    def found(
        self, known: Callable[[Unit], FoundInUnit | None] = lambda _: None
    ) -> Iterator[Recording | FoundInUnit]:
        """The recordings, sorted by path, and after those of a unit what else is in it.

        What is refused or ignored counts only if it is not `elsewhere` in another unit.

        Args:
            known: what is in a unit, if it is known without looking; None: look.
        """
        spanning = [reader.spans for reader in self._readers if isinstance(reader, Spanning)]
        joining = [reader.joins for reader in self._readers if isinstance(reader, Joining)]
        search = Search(
            recognise=lambda unit: known(unit) or self.look(unit),
            spans=lambda folder, listing: any(spans(folder, listing) for spans in spanning),
            joins=lambda name: any(joins(name) for joins in joining),
            beside=files_beside,
        )
        return search.found(self._given)

    def look(self, unit: Unit) -> FoundInUnit:
        """What is in a unit."""
        if is_in_store(unit.folder):
            return self._look_in_store(unit)
        return recognise(unit, self._readers, self._roots)

    def _look_in_store(self, unit: Unit) -> FoundInUnit:
        paths = [*unit.files(), *unit.neighbours]
        with LaidOut(paths, dict(zip(paths, unit.stamps, strict=False))) as files:
            roots = [here(root) for root in self._roots if is_in_store(root)]
            follow_within(roots)
            gone = files.refused.keys()
            names = tuple(name for name in unit.names if unit.folder / name not in gone)
            refused = {**unit.refused, **files.refused}
            local = replace(
                unit,
                folder=here(unit.folder),
                names=names,
                refused={here(path): why for path, why in refused.items()},
                neighbours=frozenset(map(here, unit.neighbours - gone)),
            )
            found = recognise(local, self._readers, roots)
        return FoundInUnit(
            unit,
            tuple(map(recording_there, found.recordings)),
            {there(path): told_refusal(why) for path, why in found.refused.items()},
            tuple(map(there, found.ignored)),
            frozenset(map(there, found.elsewhere)),
        )


def recognise(unit: Unit, readers: tuple[Reader, ...], roots: Sequence[Path]) -> FoundInUnit:
    """The recordings in a unit.

    Args:
        unit: the files.
        readers: those that look, in their order.
        roots: the folders that were given.
    """
    files, refused = set(unit.files()), dict(unit.refused)
    with heads_remembered():
        pointers = pointers_among(files | unit.neighbours)
        left = sorted(files | unit.neighbours)
        unclaimed = set(files)
        recordings: list[Recording] = []
        for reader in readers:
            open_to_it = frozenset(unclaimed)
            for found in reader.find(tuple(left)):
                if isinstance(found, RefusedFile):
                    if found.path in open_to_it:
                        refused[found.path] = found.why
                        unclaimed.discard(found.path)
                elif not open_to_it.isdisjoint(found.files):
                    if (why := refusal_of(found, pointers)) is None:
                        recordings.append(found)
                    else:
                        refused[found.path] = why
                    unclaimed.difference_update(found.files, found.companions)
            if len(unclaimed) < len(open_to_it):
                left = [path for path in left if path in unclaimed or path in unit.neighbours]
        pieces = pieces_of_playlists(unclaimed)
        ignored = set(pieces)
        for path in sorted(unclaimed - pieces):
            refusal = unclaimed_refusal(path, pointers) or _refusal(path, readers, unclaimed)
            if refusal is None:
                ignored.add(path)
            else:
                refused[path] = refusal
    refused = {path: among_pointers(path, why, pointers) for path, why in refused.items()}
    taken = {path for recording in recordings for path in recording.files}
    needless = set(needless_links(files, taken, roots))
    with_companions = taken.union(*(recording.companions for recording in recordings))
    return FoundInUnit(
        unit,
        tuple(sorted((_rooted(each, roots) for each in recordings), key=lambda each: each.path)),
        {path: why for path, why in refused.items() if path not in needless},
        tuple(sorted(ignored - needless)),
        frozenset((with_companions | needless) - files),
    )


def _rooted(recording: Recording, roots: Sequence[Path]) -> Recording:
    """The recording with the outermost folder in which it was given: links are followed within it."""
    above = [root for root in roots if any(path.is_relative_to(root) for path in recording.files)]
    return replace(recording, root=min(above, key=lambda root: len(root.parts), default=None))


def _refusal(path: Path, readers: tuple[Reader, ...], unclaimed: set[Path]) -> RefusedInput | None:
    """The refusal of a file that no reader took; None for a file that can be ignored."""
    name = path.name.lower()
    looks_for_videos = any(isinstance(reader, VideoLog) for reader in readers)
    if looks_for_videos and (dash := dash_refusal(path)) is not None:
        return dash
    if looks_for_videos and is_video(path):
        try:
            refuse_by_content(head_of(path, HEAD_BYTES))
        except RefusedInput as why:
            return why
        if sniff(path) != "video":
            return RefusedInput(
                Reason.NOT_A_VIDEO, f"not a video by its content, and {log_missing(path).message}"
            )
        logs = (each for each in unclaimed if each.name.lower().endswith(LOG_ENDINGS))
        return log_missing(path, session_log(path, logs))
    if name.endswith(".npz") and any(isinstance(reader, WhamNpz) for reader in readers):
        try:
            array_shapes(path)
        except RefusedInput as damaged:
            return damaged
    if looks_for_videos and name.endswith(LOG_ENDINGS):
        stem = path.name[: -len(next(e for e in LOG_ENDINGS if name.endswith(e)))]
        if any(path.with_name(stem + ending) in unclaimed for ending in METADATA_ENDINGS):
            return RefusedInput(
                Reason.NOT_A_VIDEO, f"a log with metadata, but no video {stem}.mp4 or the like"
            )
        return None
    if path.suffix.lower() in ARCHIVE_ENDINGS:
        return refuse_archive(path)
    return None


__all__ = [
    "READERS",
    "Discovery",
    "Reader",
    "chosen_readers",
    "discover",
    "open_recording",
    "reader_named",
]
