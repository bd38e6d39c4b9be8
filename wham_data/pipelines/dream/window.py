"""The part of an episode that a dream needs: its steps, and the data that is read of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.inference.tokenizer import Tokenizer
from wham_data.pipelines.readers.kit.resize import resize
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import Frames

BATCH: Final = 32
"""Pictures that are encoded together, and so are in memory together."""


@dataclass(frozen=True, slots=True)
class Need:
    """The data of an episode that a dream needs.

    context  C, number of steps of the context
    steps    K, number of steps that the dream makes
    start    first step of the context; None: the first suitable step
    actions  whether the K actions after the context are needed
    frames   whether the K pictures after the context are needed
    truth    whether these pictures are read if they are there
    """

    context: int
    steps: int
    start: int | None = None
    actions: bool = False
    frames: bool = False
    truth: bool = False

    def picture_steps(self, start: int, length: int) -> range:
        """The steps whose pictures are in a window.

        Args:
            start: first step of the window.
            length: number of steps in the episode.
        """
        after = self.steps if self.frames or self.truth else 0
        return range(start, min(start + self.context + after, length))

    def action_steps(self, start: int, length: int) -> range:
        """The steps whose actions are in a window; arguments as for `picture_steps`."""
        return range(start, min(start + self.context + self.steps, length))


@dataclass(frozen=True, slots=True)
class Window:
    """C steps of an episode, and the needed data of the K steps after them.

    start     number of its first step in the episode
    tokens    uint16 [C + F, N], tokens of the model's tokenizer; F <= K
    actions   float32 [C + A, D] in the model's space of D numbers; NaN if not known; A <= K
    pictures  uint8 [C, H, W, 3], the recorded ones; None: the source has only tokens
    encoded   whether the tokens were made here, from the source's pictures
    size      (width, height) of the source's first picture, before scaling to the model's size
    notes     what was done to the pictures, one line each
    """

    start: int
    tokens: NDArray[np.uint16]
    actions: NDArray[np.float32]
    pictures: Frames | None
    encoded: bool
    size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()


def place(good: NDArray[np.bool_], need: Need) -> int:
    """Find the first step of a window.

    Args:
        good: bool [T], whether a step's action is known and the step is in a `keep` range.
        need: the data that the window must contain.

    Raises:
        RefusedInput: TOO_SHORT or LOG_COVERAGE, there is no suitable step, or `need.start` is not
            suitable.
    """
    after = need.steps if need.actions or need.frames else 0
    span, run = need.context + after, need.context + (need.steps if need.actions else 0)
    start = need.start or 0
    if start + span > len(good):
        what = "recorded actions" if need.actions else "pictures" if need.frames else "steps"
        needed = f"{need.context} steps of context"
        needed += f" and {need.steps} dreamt ones with their {what}" if after else ""
        raise RefusedInput(
            Reason.TOO_SHORT,
            f"{what} run out: the episode has {len(good)} steps, but {needed} from step {start} on "
            f"end at {start + span}",
        )
    if need.start is not None:
        bad = np.flatnonzero(~good[start : start + run])
        if len(bad):
            raise RefusedInput(
                Reason.LOG_COVERAGE,
                f"step {start + int(bad[0])}: its action is not known, or it is not to be used",
            )
        return start
    count = np.concatenate([[0], np.cumsum(good)])
    fits = np.flatnonzero(
        count[run : len(good) - span + run + 1] - count[: len(good) - span + 1] == run
    )
    if not len(fits):
        edges = np.flatnonzero(np.concatenate([[True], ~good, [True]]))
        raise RefusedInput(
            Reason.LOG_COVERAGE,
            f"{run} steps in a row with known actions are needed, the longest run that is to be used "
            f"has {int(np.diff(edges).max()) - 1}",
        )
    return int(fits[0])


def read_window(
    start: int,
    pictures: Iterable[Frames],
    actions: NDArray[np.float32],
    context: int,
    tokenizer: Tokenizer,
) -> Window:
    """Make a window from pictures: scale them to the model's size and encode them.

    Args:
        start: step of the first picture.
        pictures: C + F pictures, uint8 [h, w, 3] each; only the first C are kept.
        actions: float32 [C + A, D].
        context: C.
        tokenizer: the model's.
    """
    waiting = iter(pictures)
    tokens: list[NDArray[np.uint16]] = []
    kept: list[Frames] = []
    size: tuple[int, int] | None = None
    while batch := list(islice(waiting, BATCH)):
        size = size or (batch[0].shape[1], batch[0].shape[0])
        sized = [resize(picture[None], tokenizer.frame_size, "stretch") for picture in batch]
        kept += sized[: context - len(kept)]
        tokens.append(tokenizer.encode(np.concatenate(sized)))
    return Window(
        start, np.concatenate(tokens), actions, np.concatenate(kept), encoded=True, size=size
    )
