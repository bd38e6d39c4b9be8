"""Where no recording is found, each kind of file is counted, named, and told what would help."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from wham_data.pipelines.readers.kit.looked_at import ending_of, looked_at
from wham_data.schemas.errors import plain_number

FOLDERS = {
    "pictures and a page": (
        ["0.png", "1.PNG", "a.md"],
        ["2 .png (pictures: make a video", "1 .md"],
    ),
    "logs alone": (["a.csv", "b.csv", "c.jsonl"], ["2 .csv (tables", "1 .jsonl (tables"]),
    "arrays": (["x.npy", "y.pkl"], ["1 .npy (arrays in no layout", "1 .pkl (arrays"]),
    "bags of other kinds": (["x.bag", "y.db3"], ["1 .bag (ROS bags: convert", "1 .db3 (ROS bags"]),
    "what nobody knows": (["a.zzz", "README"], ["1 without an ending (not known)", "1 .zzz (not"]),
    "nothing": ([], ["there is no file in it"]),
}


@pytest.mark.parametrize(("names", "told"), FOLDERS.values(), ids=list(FOLDERS))
def test_each_kind_is_counted_and_explained(names: list[str], told: list[str]) -> None:
    text = looked_at(Counter(ending_of(Path(name)) for name in names))

    assert [part for part in told if part not in text] == []


def test_many_kinds_are_cut_short() -> None:
    text = looked_at({f"x{number}": 1 for number in range(50)})

    assert text.count("not known") == 6
    assert text.endswith("44 of other kinds")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5380.0, "5380"),
        (5383.2, "5380"),
        (0.01234, "0.0123"),
        (2, "2"),
        (1.7e9, "1700000000"),
        (0, "0"),
    ],
)
def test_numbers_in_messages_have_no_exponent(value: float, text: str) -> None:
    assert plain_number(value) == text
