"""What a power cut may leave of a folder, told from what this process did to it and what it synced.

What `fsync` was called on is there after a cut, and no more is taken for granted. Every name that
was given or taken away since its folder was synced is there or not, each by itself. Of a file that
was not synced since it was written there may be no byte, the first half, zeros, or all. (A file
system may promise more: that a rename is whole, or that names survive in the order they were given.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from wham_data.corpus.storage.contract import TEMPORARY

T = TypeVar("T")
Choice = Callable[[Sequence[Any]], Any]
"""Takes one of several possibilities: the first is what is durable, the last what is there now."""

Image = dict[Path, bytes | None]
"""What is in a folder, by path within it: the bytes of files, None for folders."""

CHANGES: Final = ("mkdir", "rmdir", "link", "unlink", "rename", "replace", "fsync")


def oldest(options: Sequence[T]) -> T:
    """What is durable."""
    return options[0]


def newest(options: Sequence[T]) -> T:
    """What is there now."""
    return options[-1]


def is_visible(path: Path) -> bool:
    """Whether it is not, and is not in, something that is still being made."""
    return not any(part.startswith(TEMPORARY) for part in path.parts)


@dataclass(eq=False, slots=True)
class Node:
    """A file (its bytes as they are now, and whether they are durable) or a folder (None)."""

    content: bytes | None
    synced: bool = False

    def remains(self) -> tuple[bytes | None, ...]:
        """What it may hold after a cut."""
        if self.content is None or self.synced:
            return (self.content,)
        half, zeros = self.content[: len(self.content) // 2], bytes(len(self.content))
        return (b"", half, zeros, self.content)


@dataclass(frozen=True, slots=True)
class Cut:
    """The power goes: what each path may name, what each file may hold, what was promised."""

    names: Mapping[Path, tuple[Node | None, ...]]
    contents: Mapping[Node, tuple[bytes | None, ...]]
    promised: frozenset[str]

    def image(self, name: Choice, content: Choice) -> Image:
        """One of the folders that it may leave."""
        held = {node: content(options) for node, options in self.contents.items()}
        found: Image = {}
        for path in sorted(self.names):
            node = name(self.names[path])
            if node is not None and (path.parent in found or not path.name):
                found[path] = held[node]
        return found


class Disk:
    """A folder that is watched: before and after each call that changes it, the power may go.

    What is written without such a call (by Arrow, by `open`) is seen at the next one.

    Attributes:
        cuts: every moment so far.
    """

    def __init__(self, root: Path, *, syncs_files: bool = True, syncs_folders: bool = True) -> None:
        """Of an empty folder; `fsync` can be made to do nothing."""
        self.root, self.cuts = root, list[Cut]()
        self._syncs = {False: syncs_files, True: syncs_folders}
        self._names: dict[Path, list[Node | None]] = {Path(): []}
        self._nodes: dict[int, Node] = {}
        self._promised: frozenset[str] = frozenset()
        self._visible, self._moments = set[Path](), 0
        self._interrupt: tuple[int, Callable[[], None]] | None = None

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """From now on, as long as the patch lasts."""
        for name in CHANGES:
            patch.setattr(os, name, self._watched(getattr(os, name)))

    def promise(self, *names: str) -> None:
        """Somebody was told that these are there: no cut from now on may take them away."""
        self._promised |= {*names}
        self._cut()

    def interrupt(self, moment: int, work: Callable[[], None]) -> None:
        """After the n-th change from now on that others can see, counted from 0, do something else."""
        self._interrupt = (self._moments + moment, work)

    def now(self) -> Image:
        """What is really there, whatever was watched."""
        return {
            path.relative_to(self.root): None if path.is_dir() else path.read_bytes()
            for path in (self.root, *self.root.rglob("*"))
        }

    def _watched(self, call: Callable[..., T]) -> Callable[..., T]:
        def watched(*arguments: Any, **options: Any) -> T:
            self._cut()
            result = call(*arguments, **options)
            if call.__name__ == "fsync":
                self._sync(os.fstat(arguments[0]).st_ino)
            self._cut()
            return result

        return watched

    def _cut(self) -> None:
        self._look()
        names = {path: tuple(options) for path, options in self._names.items()}
        # In the order of their paths, for a seed to choose the same every time.
        nodes = (node for path in sorted(names) for node in names[path] if node is not None)
        cut = Cut(names, {node: node.remains() for node in nodes}, self._promised)
        if not self.cuts or cut != self.cuts[-1]:
            self.cuts.append(cut)
        visible = {path for path, options in names.items() if options[-1] and is_visible(path)}
        if visible != self._visible:
            self._visible, self._moments = visible, self._moments + 1
            if self._interrupt is not None and self._moments > self._interrupt[0]:
                (_, work), self._interrupt = self._interrupt, None
                work()

    def _look(self) -> None:
        """Take note of what has changed."""
        found = self.now()
        inodes = {path: (self.root / path).lstat().st_ino for path in found}
        for inode in self._nodes.keys() - set(inodes.values()):
            del self._nodes[inode]  # what has this number next is something else
        for path, content in found.items():
            node = self._nodes.setdefault(inodes[path], Node(content))
            if node.content != content:
                node.content, node.synced = content, False
        for path in self._names.keys() | found.keys():
            live = self._nodes[inodes[path]] if path in found else None
            options = self._names.setdefault(path, [None])
            if options[-1:] != [live]:
                options.append(live)

    def _sync(self, inode: int) -> None:
        node = self._nodes.get(inode)
        if node is None or not self._syncs[node.content is None]:
            return
        node.synced = True
        places = {path for path, options in self._names.items() if options[-1] is node}
        for path, options in self._names.items():
            if path.name and path.parent in places and node.content is None:
                self._names[path] = options[-1:]
