"""What to train on and what to judge by, also where a corpus has no steps in one of the splits.

Without a val split (or without train) stretches of the other are held out: the last tenth of each of up
to eight equal parts. What would overlap with them, or lies close, is used for neither. Such stretches
are of the same recordings as the rest, so they say less about other play than a split does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.feed.dataset import WindowDataset
from wham_data.feed.windows import Numbers
from wham_data.schemas.errors import NoInputsError, UsageError

MOST_STRETCHES: Final = 8
SHARE: Final = 0.1


class FlatWindows(Protocol):
    """Windows by number: `WindowDataset(..., interleave=True).windows`."""

    def __len__(self) -> int:
        """Number of windows."""
        ...

    def flat(self, windows: NDArray[np.int64], /) -> NDArray[np.integer]:
        """Integer [B, L P]: the ids of windows, int64 [B]."""
        ...


@dataclass(frozen=True, slots=True)
class SomeWindows:
    """Some of the windows of a view, numbered anew; numbers is int64 [K]."""

    windows: FlatWindows
    numbers: Numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def flat(self, windows: NDArray[np.int64], /) -> NDArray[np.integer]:
        """See `FlatWindows`."""
        return self.windows.flat(self.numbers[windows])


def training_windows(corpus: Corpus, length: int) -> tuple[FlatWindows, FlatWindows, str | None]:
    """The windows to train on, those to judge by, and what to say if these are no split.

    Args:
        corpus: with tokens and actions.
        length: steps in a window.

    Raises:
        NoInputsError: there is no window in train nor in val.
        UsageError: there is one of the two splits, and it is too short to hold anything out.
    """
    views: dict[str, FlatWindows] = {}
    why = None
    for split in ("val", "train"):
        try:
            views[split] = WindowDataset(corpus, length, split=split, interleave=True).windows
        except NoInputsError as error:
            why = error
    if why is None:
        return views["train"], views["val"], None
    if not views:
        raise why
    (split, view), *_ = views.items()
    train, held_out = held_out_stretches(len(view), length - 1, f"{corpus.location}: windows")
    note = no_split_note(corpus.location, "train" if split == "val" else "val", split)
    return SomeWindows(view, train), SomeWindows(view, held_out), note


def held_out_stretches(count: int, margin: int, what: str = "items") -> tuple[Numbers, Numbers]:
    """Numbers to train on and numbers to judge by.

    Args:
        count: how many there are; neighbours in number are neighbours in time.
        margin: smallest distance between a number of the one and one of the other, less one.
        what: what they are, for the message.

    Returns:
        int64 [K] and [H], increasing.

    Raises:
        UsageError: nothing would be left to train on.
    """
    stretches = max(1, min(MOST_STRETCHES, round(count * SHARE / max(2 * margin, 1))))
    ends = np.linspace(0, count, stretches + 1).round().astype(np.int64)
    is_held, is_near = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    for first, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        start = end - max(1, int((end - first) * SHARE))
        is_held[start:end] = True
        is_near[max(start - margin, 0) : end + margin] = True
    train = np.flatnonzero(~is_near)
    if not len(train):
        raise UsageError(f"{what}: {count} are too few to hold some out; record more")
    return train, np.flatnonzero(is_held)


def no_split_note(where: str, missing: str, used: str) -> str:
    """What to say when stretches are held out because there is no such split."""
    return (
        f"{where}: nothing to use in {missing}, so stretches of {used} are held out to judge by. They are "
        "of the same recordings: a new corpus with ingest --split-by recording or time tells more"
    )
