"""Steps as samples of their own, for formats whose samples are shuffled and batched one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.writers.parts import Content
from wham_data.pipelines.writers.stretches import Stretch


@dataclass(frozen=True, slots=True)
class Sample:
    """One step.

    step     its number in the episode, from 0
    actions  float32 [A]  NaN throughout where the action is not known
    tokens   uint16 [N], frame a PNG or JPEG, state float32 [S]: None where the corpus has none
    reward   NaN where the step has none; text None likewise
    """

    episode: str
    step: int
    time_ns: int
    actions: NDArray[np.float32]
    tokens: NDArray[np.uint16] | None
    frame: bytes | None
    state: NDArray[np.float32] | None
    reward: float
    text: str | None

    @property
    def action_known(self) -> bool:
        """Whether it is known what was done."""
        return not np.isnan(self.actions).any()


def samples_of(stretch: Stretch, content: Content) -> Iterator[Sample]:
    """The steps of an episode, in order; pictures and tokens are read as streams."""
    count = stretch.n_steps
    tokens = _rows(stretch.tokens()) if content.vocabulary else repeat(None, count)
    frames = stretch.coded_frames() if content.pictures else repeat(None, count)
    actions, times_ns = stretch.actions(), stretch.times_ns()
    states, rewards, texts = stretch.states(), stretch.rewards(), stretch.texts()
    for step, ids, frame in zip(range(count), tokens, frames, strict=True):
        yield Sample(
            episode=stretch.name,
            step=step,
            time_ns=int(times_ns[step]),
            actions=actions[step],
            tokens=ids,
            frame=frame,
            state=None if states is None else states[step],
            reward=float("nan") if rewards is None else float(rewards[step]),
            text=None if texts is None else texts[step],
        )


def _rows(blocks: Iterable[NDArray[np.uint16]]) -> Iterator[NDArray[np.uint16]]:
    for block in blocks:
        yield from block
