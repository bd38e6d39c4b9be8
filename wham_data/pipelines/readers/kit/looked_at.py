"""What to say of files among which no recording was found: how many of each kind, and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

MOST_KINDS: Final = 6
BESIDE: Final = "NAME.mp4 beside NAME.csv is read"
KINDS: Final = (
    (("csv", "tsv", "jsonl", "parquet"), "tables: a log is read beside a video of its name"),
    (("json", "toml", "yaml", "yml"), "metadata: they are read beside a video of their name"),
    (("png", "jpg", "jpeg", "webp", "bmp", "gif"), f"pictures: make a video of them, {BESIDE}"),
    (
        ("npy", "npz", "pkl", "pickle", "pt", "pth", "h5", "hdf5", "mat", "tfrecord", "arrow", "lmdb"),
        "arrays in no layout that is known: docs/readers.md lists what is read",
    ),
    (("wav", "mp3", "flac", "ogg", "m4a", "aac"), "sound: it is not read"),
    (("bag", "db3"), "ROS bags: convert them to .mcap, as docs/formats/mcap.md says"),
    (("txt", "log"), f"text: write a log as .csv with a header, {BESIDE}"),
    (("md", "pdf", "html", "doc", "docx"), "pages for people"),
)  # fmt: skip


def ending_of(path: Path) -> str:
    """The ending by which a file is counted here."""
    return path.suffix.lower().lstrip(".")


def looked_at(counts: Mapping[str, int]) -> str:
    """The count of each kind of file, what it is, and what would make it readable.

    Args:
        counts: of files that belong to no recording, by `ending_of`.

    Returns:
        One line, the most frequent kind first; it names at most six.
    """
    if not counts:
        return "there is no file in it"
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{count} {_kind(ending)}" for ending, count in ranked[:MOST_KINDS]]
    more = sum(count for _, count in ranked[MOST_KINDS:])
    return "; ".join([*named, *([f"{more} of other kinds"] if more else [])])


def _kind(ending: str) -> str:
    shown = f".{ending[:20]}" if ending else "without an ending"
    about = next((about for endings, about in KINDS if ending in endings), "not known")
    return f"{shown} ({about})"
