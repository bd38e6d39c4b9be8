"""The part of an episode that a dream is made from: which steps, and what is read of them."""

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
"""Pictures that are encoded, and so held, at a time."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a dream takes of an episode.

    context  C, steps that it starts from
    steps    K, steps that it makes
    start    the step to start from; None: the first place that will do
    actions  the K actions after the context are needed too
    frames   the K pictures after the context are needed too
    truth    those pictures are wanted, as far as there are any
    """

    context: int
    steps: int
    start: int | None = None
    actions: bool = False
    frames: bool = False
    truth: bool = False

    def with_pictures(self, start: int, length: int) -> range:
        """The steps, of an episode of this length, whose pictures a window holds."""
        after = self.steps if self.frames or self.truth else 0
        return range(start, min(start + self.context + after, length))

    def with_actions(self, start: int, length: int) -> range:
        """The steps whose actions a window holds."""
        return range(start, min(start + self.context + self.steps, length))


@dataclass(frozen=True, slots=True)
class Window:
    """C steps of an episode, and what is wanted of the K steps after them.

    start     the step of the episode that it begins with
    tokens    uint16 [C + F, N] in the model's tokens; F <= K
    actions   float32 [C + A, 16] measured in `wham16`, NaN where not known; A <= K
    pictures  uint8 [C, H, W, 3] as recorded; None: the source holds tokens alone
    encoded   the tokens were made here, from the source's pictures
    size      (width, height) of the source's pictures, before they were brought to the model's
    """

    start: int
    tokens: NDArray[np.uint16]
    actions: NDArray[np.float32]
    pictures: Frames | None
    encoded: bool
    size: tuple[int, int] | None = None


def place(good: NDArray[np.bool_], need: Need) -> int:
    """The step that a window begins with.

    Args:
        good: bool [T], whether a step's action is known and the step is to be used.
        need: what the window has to hold.

    Raises:
        RefusedInput: TOO_SHORT or LOG_COVERAGE: there is no such place, or not at `need.start`.
    """
    after = need.steps if need.actions or need.frames else 0
    span, run = need.context + after, need.context + (need.steps if need.actions else 0)
    start = need.start or 0
    if start + span > len(good):
        what = "recorded actions" if need.actions else "pictures" if need.frames else "steps"
        asked = f"{need.context} steps of context"
        asked += f" and {need.steps} dreamt ones with their {what}" if after else ""
        raise RefusedInput(
            Reason.TOO_SHORT,
            f"{what} run out: the episode has {len(good)} steps, but {asked} from step {start} on "
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
    """The window of these pictures, which are brought to the model's size and encoded.

    Args:
        start: the step that they begin with.
        pictures: uint8 [h, w, 3] each, C + F in all; only the first C are kept.
        actions: float32 [C + A, 16].
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
