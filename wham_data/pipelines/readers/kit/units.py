"""Search folders piece by piece, so that the first recordings are found before the last are listed.

A *unit* is a set of files that are recognised together. It is

- the files directly in a folder; or
- of a large folder that holds nothing but videos, each with a log of its own name, about a hundred of
  those pairs. Where such a folder is divided depends on the names at that place alone, so a new file
  changes one unit; or
- all files below a folder, if a reader says that recordings may have files in several of its folders.

What is found comes in the order of the paths.
"""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final

from wham_data.corpus.storage.sources.folders import LookAhead, walk
from wham_data.files.found import VIDEO_ENDINGS, Listing, loops
from wham_data.schemas.errors import RefusedInput
from wham_data.schemas.recording import Recording

DIVIDED_FROM: Final = 512
"""A folder with fewer files is one unit."""
PAIRS_EACH: Final = 64
"""Pairs of a video and its log in a unit, on average."""
PAIR_LOGS: Final = (".csv", ".tsv", ".jsonl")
PAIR_ENDINGS: Final = frozenset({*PAIR_LOGS, ".toml", ".json"})
PAIR_VIDEOS: Final = VIDEO_ENDINGS - {".mpd", ".m3u8", ".m3u"}

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Unit:
    """Files that are recognised together.

    folder      absolute path
    names       paths of the files relative to the folder, in the order of their paths
    stamps      of each file, as in `Listing`; empty: not known
    refused     files that must not be opened, with the reasons
    neighbours  files beside them that were not given, but may belong to them
    alone       nothing but these files decides what is found
    listed_ns   when they were listed
    """

    folder: Path
    names: tuple[str, ...]
    stamps: tuple[Stamp, ...] = ()
    refused: Mapping[Path, RefusedInput] = field(default_factory=dict)
    neighbours: frozenset[Path] = frozenset()
    alone: bool = False
    listed_ns: int = field(default_factory=time.time_ns)

    def files(self) -> list[Path]:
        """The files, sorted."""
        return [self.folder / name for name in self.names]

    def signature(self, salt: bytes) -> bytes:
        """16 bytes that are others when a file is added, removed, renamed or changed."""
        told = hashlib.sha256(salt)
        told.update(os.fsencode(self.folder))
        for name, stamp in zip(self.names, self.stamps, strict=True):
            told.update(b"\0%b\0%d %d %d" % (os.fsencode(name), *stamp))
        return told.digest()[:16]


@dataclass(frozen=True, slots=True)
class FoundInUnit:
    """What is found in a unit.

    recordings  sorted by path
    refused     inputs that cannot be used, with their reasons
    ignored     files that belong to no recording
    elsewhere   files of the recordings that are not in the unit
    keys        hashes of its recordings, where an earlier run knew the unit; `recordings` is then empty
    n_files     so many of its files belong to one of those
    """

    unit: Unit
    recordings: tuple[Recording, ...] = ()
    refused: Mapping[Path, RefusedInput] = field(default_factory=dict)
    ignored: tuple[Path, ...] = ()
    elsewhere: frozenset[Path] = frozenset()
    keys: tuple[bytes, ...] = ()
    n_files: int = 0


@dataclass(slots=True)
class Given:
    """A folder that was given as a source, or one that leads to a source.

    whole    it was given, with all that is below it
    files    files in it that were given
    refused  sources in it that must not be opened, with the reasons
    folders  the folders in it that were given or lead to sources, by name
    """

    whole: bool = False
    files: set[str] = field(default_factory=set)
    refused: dict[Path, RefusedInput] = field(default_factory=dict)
    folders: dict[str, Given] = field(default_factory=dict)

    def at(self, folder: Path) -> Given:
        """The folder at a path; this one is the root of the file system."""
        node = self
        for part in folder.parts[1:]:
            node = node.folders.setdefault(part, Given())
        return node


@dataclass(frozen=True, slots=True)
class Search:
    """How folders are searched.

    recognise  what is found in a unit
    spans      whether recordings may have files in several folders below this one
    joins      whether a video of this name, beside a log of its own, may be one of several of a recording
    beside     files beside one that was given by name that may belong to it
    folders    lists them
    """

    recognise: Callable[[Unit], FoundInUnit]
    spans: Callable[[Path, Listing], bool]
    joins: Callable[[str], bool]
    beside: Callable[[Path], Iterator[Path]]
    folders: LookAhead = field(default_factory=LookAhead)

    def found(self, given: Given, root: Path = Path("/")) -> Iterator[Recording | FoundInUnit]:
        """The recordings in the order of their paths; each unit after the last of its recordings."""
        if given.whole:
            yield from self._below(root, given, set(), 0)
            return
        names = tuple(sorted(given.files))
        near = {path for name in names for path in self.beside(root / name)}
        near.difference_update(root / name for name in names)
        unit = Unit(root, names, refused=given.refused, neighbours=frozenset(near))
        units = [unit] if names or given.refused else []
        folders = deque(sorted(given.folders))
        yield from self._merged(units, folders, lambda n: self.found(given.folders[n], root / n))

    def _below(
        self, folder: Path, given: Given, seen: set[tuple[int, int]], depth: int
    ) -> Iterator[Recording | FoundInUnit]:
        """As `found`, for a folder that is searched whole."""
        if loops(folder, seen):
            return
        listing = self.folders.listed(folder, depth)
        # Given by name inside: only what is hidden does not come anyway.
        hidden = {name: inside for name, inside in given.folders.items() if name.startswith(".")}
        unlisted = {name for name in given.files if name.startswith(".")}
        if not hidden and not unlisted and self.spans(folder, listing):
            yield from self._merged([_tree(folder, self.folders)], deque(), lambda _: iter(()))
            return

        def below(name: str) -> Iterator[Recording | FoundInUnit]:
            if name in hidden:
                return self.found(hidden[name], folder / name)
            inside = given.folders.get(name, Given())
            return self._below(folder / name, inside, seen, depth + 1)

        if unlisted:
            yield from self.found(Given(files=unlisted), folder)
        folders = deque(sorted({*listing.folders, *hidden}))
        yield from self._merged(units_in(folder, listing, self.joins), folders, below)

    def _merged(
        self,
        units: list[Unit],
        folders: deque[str],
        below: Callable[[str], Iterator[Recording | FoundInUnit]],
    ) -> Iterator[Recording | FoundInUnit]:
        """What is in the units of a folder, and below its folders at their places in between."""

        def before(name: str) -> Iterator[Recording | FoundInUnit]:
            while folders and folders[0] < name:
                yield from below(folders.popleft())

        for unit in units:
            if unit.names:
                yield from before(unit.names[0])
            found = self.recognise(unit)
            for recording in found.recordings:
                if recording.path.parent == unit.folder:
                    yield from before(recording.path.name)
                yield recording
            yield found
        while folders:
            yield from below(folders.popleft())


def _tree(folder: Path, folders: LookAhead) -> Unit:
    """All files below a folder as one unit."""
    found = dict(walk(folder, folders))
    names = tuple(str(path.relative_to(folder)) for path, why in found.items() if why is None)
    return Unit(folder, names, refused={path: why for path, why in found.items() if why})


def units_in(folder: Path, listing: Listing, joins: Callable[[str], bool]) -> list[Unit]:
    """The units of the files directly in a folder."""
    refused = {folder / name: why for name, why in listing.refused.items()}
    names, stamps = listing.files, listing.stamps
    if not names and not refused:
        return []
    if len(names) < DIVIDED_FROM or refused or listing.links:
        divided = [range(len(names))]
    else:
        divided = list(_divided(names, joins)) or [range(len(names))]

    def is_alone(part: range) -> bool:
        first, last = names[part[0]], names[part[-1]]
        return not (refused or listing.links or any(first < n < last for n in listing.folders))

    return [
        Unit(
            folder,
            names[part.start : part.stop],
            stamps[part.start : part.stop],
            refused,
            alone=bool(part) and is_alone(part),
        )
        for part in divided
    ]


def _divided(names: tuple[str, ...], joins: Callable[[str], bool]) -> Iterator[range]:
    """Where a folder of pairs is divided; nothing, if there is anything else in it.

    Files whose names agree up to the first dot stay together, and stand together in the order.
    """
    start = stop = 0
    parts = []
    for stem, alike in groupby(names, key=lambda name: name.partition(".")[0]):
        family = list(alike)
        if joins(stem) or not _are_pairs(family):
            return
        stop += len(family)
        if zlib.crc32(os.fsencode(stem)) % PAIRS_EACH == 0:
            parts.append(range(start, stop))
            start = stop
    if start < stop:
        parts.append(range(start, stop))
    yield from parts


def _are_pairs(family: list[str]) -> bool:
    """Whether files are videos, each with a log of its name, and their metadata."""
    stems: dict[str, set[str]] = {}
    for name in family:
        stem, ending = os.path.splitext(name)  # noqa: PTH122  (a path for each name is slow)
        stems.setdefault(stem, set()).add(ending.lower())
    return all(
        len(endings & PAIR_VIDEOS) == 1
        and not endings.isdisjoint(PAIR_LOGS)
        and endings <= PAIR_VIDEOS | PAIR_ENDINGS
        for endings in stems.values()
    )
