"""Symbolic links among inputs: which are followed, and why the others are not.

A link is followed if its target is a file below a folder that was given as an input, or in the same
repository of a model hub's cache:

    REPO/snapshots/REVISION/data/x.mp4 -> REPO/blobs/HASH

The name of the link is the name of the file; the target is not an input of its own. All other links
are refused, so that a data set from a stranger cannot bring in files of this machine. A path that the
user names may be a link to anywhere.

Each process is told the inputs that it works on. Of several jobs in one process, the last that was
given the folder of a link decides: what an earlier one was given does not count for it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wham_data.schemas.errors import Reason, RefusedInput

BLOBS: Final = "blobs"
SNAPSHOTS: Final = "snapshots"


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What was given together, without links in it.

    folders  a link in one of them is followed to a file in the same
    beside   in these no link is followed but for those of `folders`
    """

    folders: frozenset[Path]
    beside: frozenset[Path]

    def hold(self, folder: Path) -> bool:
        """Whether links in a folder are theirs to decide."""
        return any(map(folder.is_relative_to, self.folders | self.beside))


_given: Final[list[_Inputs]] = []
"""The last is the newest. Those are left out for all of whose links a newer one decides."""


def follow_within(folders: Iterable[Path], files: Iterable[Path] = ()) -> None:
    """From here on, follow links as these inputs allow, whatever was given before.

    Args:
        folders: a link below one of them is followed to a file below the same.
        files: inputs that are files. Links beside them, and deeper, are not followed.
    """
    new = _Inputs(
        frozenset(Path(os.path.realpath(folder)) for folder in folders),
        frozenset(Path(os.path.realpath(file.parent)) for file in files),
    )
    older = [each for each in _given if not all(map(new.hold, each.folders | each.beside))]
    _given[:] = [*older, new]


def input_path(source: str | os.PathLike[str]) -> Path:
    """The absolute path of an input that the user names.

    Links in it are resolved, but not a link into the cache of a hub: there the target has no name.
    """
    path = Path(source).absolute()
    if path.is_symlink() and _in_repository(path) is not None:
        return Path(os.path.realpath(path.parent)) / path.name
    return Path(os.path.realpath(source))


def is_plain_file(path: Path) -> bool:
    """Whether this is a regular file, or a link to one that is followed."""
    try:
        return stat.S_ISREG(target_of(path).lstat().st_mode)
    except (RefusedInput, OSError):
        return False


def target_of(path: Path) -> Path:
    """The path to open for a file: itself, or where a link leads that is followed.

    Raises:
        RefusedInput: UNSAFE_PATH, a link that is not followed.
    """
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if not target.exists():
        raise RefusedInput(
            Reason.UNSAFE_PATH, f"a symbolic link that leads nowhere: {target} is not there"
        )
    here = Path(os.path.realpath(path.parent))
    inputs = next((each for each in reversed(_given) if each.hold(here)), None)
    roots = inputs.folders if inputs is not None else ()
    below = any(here.is_relative_to(root) and target.is_relative_to(root) for root in roots)
    if below or _in_repository(path) is not None:
        return target
    raise RefusedInput(
        Reason.UNSAFE_PATH,
        f"a symbolic link that leads out of the folder, to {target}: not followed. Put a copy here "
        "instead of the link",
    )


def holds_blobs(folder: Path) -> bool:
    """Whether a folder is `blobs/` of a hub's cache, whose files have their names in `snapshots/`."""
    return folder.name == BLOBS and (folder.parent / SNAPSHOTS).is_dir()


def needless_links(
    files: Collection[Path], taken: Collection[Path], roots: Sequence[Path]
) -> Iterator[Path]:
    """Of each link and its target of which one is in a recording: the other.

    Of a link whose target is in another unit, which has it as an input: the link.
    """
    for link in files:
        if link.is_symlink():
            target = target_of(link)
            if link in taken:
                if target not in taken:
                    yield target
            elif target in taken or (target not in files and _is_listed(target, roots)):
                yield link


def _is_listed(path: Path, roots: Sequence[Path]) -> bool:
    """Whether a file is found below one of the folders that were given."""
    for root in roots:
        if path.is_relative_to(root):
            below = path.relative_to(root).parts
            above = (root / Path(*below[:depth]) for depth in range(1, len(below)))
            if not any(part.startswith(".") for part in below) and not any(map(holds_blobs, above)):
                return True
    return False


def _in_repository(link: Path) -> Path | None:
    """The file in `blobs/` to which a link in `snapshots/` of the same repository leads, else None."""
    target = Path(os.path.realpath(link))
    for above in Path(os.path.realpath(link.parent)).parents:
        if (above / SNAPSHOTS).is_dir() and target.is_relative_to(above / BLOBS):
            return target
    return None
