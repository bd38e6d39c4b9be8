"""Reads `.bk2` movies as stable-retro writes them: zip files of three members.

    Header.txt      lines "Key value": MovieVersion, Platform, GameName, ...
    Input Log.txt   [Input], a line of names "P1 B|P1 A|...|", a line for each frame, [/Input]
    Core.bin        the state of the emulator before the first frame

A line of the log is `|..|....R.......|`: a group for the console, then one for each player, with a letter
for a button that is down and a dot for one that is not. stable-retro writes a line before the picture
that it leads to. The first line belongs to the picture after the reset, and no button is down in it.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.npz import opened_npz
from wham_data.schemas.errors import Reason, RefusedInput

HEADER, LOG, STATE = "Header.txt", "Input Log.txt", "Core.bin"
ENDING: Final = ".bk2"
MADE_BY: Final = "Retro"
"""MovieVersion in the movies of stable-retro."""
MOST_HEADER_BYTES: Final = 1 << 16
MOST_LOG_BYTES: Final = 32 << 20
NAMES_BYTES: Final = 1 << 13
MOST_STATE_BYTES: Final = 64 << 20
MOST_PLAYERS: Final = 8
MOST_BUTTONS: Final = 32
_LINE: Final = re.compile(rb"\|[A-Za-z.|]*\|")
_NAME: Final = re.compile(r"P([1-8]) ([A-Za-z0-9_-]{1,16})")


@dataclass(frozen=True, slots=True)
class RetroMovie:
    """A movie.

    game     its name in stable-retro, not checked
    players  for each player the names of the buttons in upper case, as in the log
    down     for each player, bool [N, B]: whether a button is down on the way to picture k
    state    of the emulator before the first picture; None: not in the file
    """

    game: str
    players: tuple[tuple[str, ...], ...]
    down: tuple[NDArray[np.bool_], ...]
    state: bytes | None

    @property
    def count(self) -> int:
        """How many pictures it makes."""
        return len(self.down[0])

    @classmethod
    def read(cls, path: Path) -> RetroMovie:
        """Read a movie.

        Raises:
            RefusedInput: FORMAT_NOT_ALLOWED, another program made it; LOG_EMPTY, LOG_SYNTAX,
                LOG_COLUMN, METADATA, TOO_LARGE; or the zip file is damaged.
        """
        with opened_npz(path) as archive:
            header = _header(archive)
            log = _read(archive, LOG, MOST_LOG_BYTES)
            there = STATE in archive.namelist()
            state = _read(archive, STATE, MOST_STATE_BYTES) if there else None
        lines = iter(log.split(b"\n"))
        players = _names(lines)
        return cls(header.get("GameName", ""), players, _parsed(lines, players), state)


def beginning_of(path: Path) -> tuple[str, int]:
    """The game that a movie names, and how many players it has, by its first lines.

    Raises:
        RefusedInput: as `RetroMovie.read`.
    """
    with opened_npz(path) as archive:
        game = _header(archive).get("GameName", "")
        with archive.open(_member(archive, LOG)) as stream:
            return game, len(_names(iter(stream.read(NAMES_BYTES).split(b"\n"))))


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(name)
    except KeyError:
        raise RefusedInput(Reason.METADATA, f"no {name} in it: not a movie") from None


def _read(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    info = _member(archive, name)
    if info.file_size > most:
        raise RefusedInput(Reason.TOO_LARGE, f"{name} of {info.file_size} bytes, limit {most}")
    with archive.open(info) as stream:
        return stream.read()  # at most as many as the directory says


def _header(archive: zipfile.ZipFile) -> Mapping[str, str]:
    data = _read(archive, HEADER, MOST_HEADER_BYTES)
    lines = data.decode("utf-8-sig", errors="replace").splitlines()
    pairs = (line.partition(" ") for line in lines)
    header = {key: value.strip() for key, _, value in pairs}
    if (version := header.get("MovieVersion", "")) != MADE_BY:
        raise RefusedInput(
            Reason.FORMAT_NOT_ALLOWED,
            f"a movie of {version[:60] or 'an unknown program'}: only stable-retro's are replayed, "
            "because another emulator would drift from what was played. Play it in the emulator that "
            "made it, and record a video with a log",
        )
    return header


def _names(lines: Iterator[bytes]) -> tuple[tuple[str, ...], ...]:
    """The names of the buttons by player, from the first two lines."""
    if next(lines).strip() != b"[Input]":
        raise RefusedInput(Reason.LOG_SYNTAX, f"{LOG} does not begin with [Input]")
    found: dict[int, list[str]] = {}
    names = next(lines, b"").strip().decode("latin-1").removesuffix("|").split("|")
    for name in names[: MOST_PLAYERS * MOST_BUTTONS]:
        match = _NAME.fullmatch(name)
        if match is None:
            raise RefusedInput(
                Reason.LOG_COLUMN,
                f"{LOG}: {name[:40]!r} in the line of names, expected such as 'P1 Up'",
            )
        found.setdefault(int(match[1]), []).append(match[2].upper())
    twice = any(len(set(names)) < len(names) for names in found.values())
    if list(found) != list(range(1, len(found) + 1)) or twice:
        raise RefusedInput(
            Reason.LOG_COLUMN, f"{LOG}: names of buttons that are not those of players 1, 2, ..."
        )
    return tuple(map(tuple, found.values()))


def _parsed(
    lines: Iterator[bytes], players: tuple[tuple[str, ...], ...]
) -> tuple[NDArray[np.bool_], ...]:
    """For each player whether each button is down, bool [N, B]."""
    sizes = [len(names) for names in players]
    rows = b"".join(_rows(lines, sizes))
    every = np.frombuffer(rows, np.uint8).reshape(-1, sum(sizes)) != ord(".")
    if not len(every):
        raise RefusedInput(Reason.LOG_EMPTY, f"{LOG} has no line of buttons")
    return tuple(np.split(every, np.cumsum(sizes)[:-1], axis=1))


def _rows(lines: Iterator[bytes], sizes: list[int]) -> Iterator[bytes]:
    """The letters and dots of each line, without the console's group. A line cut off is an error."""
    for number, line in enumerate(lines, start=3):
        line = line.strip()
        if line == b"[/Input]":
            return
        if not line:
            continue
        groups = line.split(b"|")[1:-1]
        if list(map(len, groups[1:])) != sizes or not _LINE.fullmatch(line):
            raise RefusedInput(
                Reason.LOG_SYNTAX,
                f"{LOG}, line {number}: {line[:40]!r}, expected the console's and then "
                f"{' and '.join(map(str, sizes))} buttons",
            )
        if groups[0].strip(b"."):
            raise RefusedInput(
                Reason.LOG_SYNTAX, f"{LOG}, line {number}: a button of the console is down"
            )
        yield b"".join(groups[1:])
    raise RefusedInput(Reason.TRUNCATED, f"{LOG} ends without [/Input]: the recorder was stopped")
