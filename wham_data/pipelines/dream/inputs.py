"""What all inputs of dreams share: safe names, and inputs that were refused before they were opened."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from wham_data.inference.tokenizer import Tokenizer
from wham_data.pipelines.dream.window import Need, Window
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.conversion import Conversion, find_conversion
from wham_data.schemas.errors import RefusedInput

LONGEST_PART: Final = 120
TAKEN_NAMES: Final = frozenset({"frames", "overlay"})
TAKEN_ENDINGS: Final = (".npz", ".mp4", ".gif", ".csv", ".npy", ".json")
"""Endings of a dream's files. A dream with such a name could overwrite the files of another dream."""


def safe_name(parts: Sequence[str]) -> str:
    """A relative path that is safe as a file name, made from untrusted names.

    Letters, digits and `-_.+=@, ()` are kept. If other characters were removed, or the name could be
    that of another dream's files, the start of the name's hash is added.
    """

    def safe(part: str) -> str:
        kept = "".join(c if c.isalnum() or c in "-_.+=@, ()" else "_" for c in part)
        kept = kept.lstrip(".- ").rstrip(". ")
        while len(kept.encode()) > LONGEST_PART:
            kept = kept[:-1]
        taken = kept.casefold() in TAKEN_NAMES or kept.casefold().endswith(TAKEN_ENDINGS)
        if kept == part and not taken:
            return kept
        digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{kept}-{digest[:8]}".lstrip("-")

    return "/".join(map(safe, parts))


def relative_parts(path: Path, roots: Sequence[Path]) -> tuple[str, ...]:
    """Where a file lies below the source that brought it, without its ending."""
    for root in roots:
        if path != root and path.is_relative_to(root):
            return (*path.relative_to(root).parts[:-1], path.stem)
    return (path.stem,)


def identity_of(contents: Iterable[bytes]) -> str:
    """A hash over files in their order, hex, from what they hold."""
    digests = [hashlib.sha256(content).digest() for content in contents]
    return hashlib.sha256(b"".join(digests)).hexdigest()


@cache
def conversion_between(source: ActionSpace, target: ActionSpace) -> Conversion:
    """As `find_conversion`, but cached, because that reads a file."""
    return find_conversion(source, target)


@dataclass(frozen=True, slots=True)
class RefusedEpisode:
    """An input that was refused before it was opened."""

    name: str
    source: str
    title: str
    why: RefusedInput

    def identity(self) -> str:
        """Raises the refusal."""
        raise self.why

    def read(self, need: Need, tokenizer: Tokenizer, space: ActionSpace) -> Window:
        """Raises the refusal."""
        del need, tokenizer, space
        raise self.why
