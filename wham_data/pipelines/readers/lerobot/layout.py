"""Where the files of a LeRobot dataset lie: as the templates of `info.json` say, or in a folder beside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOST_TEMPLATE: Final = 1000
DEFAULTS: Final[Mapping[tuple[str, bool], str]] = {
    ("data_path", True): "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    ("data_path", False): "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    ("video_path", True): "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    ("video_path", False): (
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    ),
}
"""LeRobot's own templates, by name and whether many episodes share a file (v3.0)."""
_SLOT: Final = re.compile(r"\{(\w+)(?::0?(\d)d)?\}", re.ASCII)


def filled(template: str, slots: Mapping[str, int | str]) -> str:
    """A template with its `{slots}` filled, never by `str.format`: it is not ours."""

    def value(slot: re.Match[str]) -> str:
        return str(slots.get(slot[1], slot[0])).zfill(int(slot[2] or 0))

    return _SLOT.sub(value, template[:MOST_TEMPLATE])


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of a dataset that are there, except those of `meta`, by their names."""

    root: Path
    by_name: Mapping[str, tuple[Path, ...]]

    @classmethod
    def of(cls, root: Path, files: Iterable[Path]) -> Layout:
        """The files below the dataset's folder."""
        named: dict[str, list[Path]] = {}
        for path in files:
            if path.is_relative_to(root) and not path.is_relative_to(root / "meta"):
                named.setdefault(path.name, []).append(path)
        return cls(root, {name: tuple(paths) for name, paths in named.items()})

    def find(self, path: Path) -> Path | None:
        """The file that a template means: at its place, or the only one that differs in the folder.

        A template may say `videos/...` where the folder is called `video`: what is below it agrees.

        Args:
            path: the template, filled, below the dataset's folder.
        """
        alike = self.by_name.get(path.name, ())
        if path in alike:
            return path
        below = path.relative_to(self.root).parts[1:] if path.is_relative_to(self.root) else ()
        moved = [each for each in alike if below and each.relative_to(self.root).parts[1:] == below]
        return moved[0] if len(moved) == 1 else None

    def below(self, path: Path) -> str:
        """A path as seen from the dataset's folder, for messages."""
        inside = path.is_relative_to(self.root)
        return str(path.relative_to(self.root) if inside else path)[:200]

    def note(self, path: Path, expected: Path) -> tuple[str, ...]:
        """What to tell of a file that is not where the template says; () if it is there."""
        if path == expected:
            return ()
        return (f"read from {self.below(path)}: info.json says {self.below(expected)}",)
