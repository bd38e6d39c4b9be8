"""The data that a writer receives: the parts of an export, and what all its steps have in common.

Content    what every exported step holds
Demands    what a format needs of the steps
Part       episodes of one split that are written together, completely or not at all
Place      number of episodes and steps before a part, where its numbering begins
Written    the result of a part, for the files that describe the whole export
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import groupby
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.writers.stretches import Stretch
from wham_data.schemas.actions import ActionSpace, generic_space
from wham_data.schemas.corpus_info import content_hash
from wham_data.schemas.errors import Reason, UsageError
from wham_data.schemas.manifest import SPLITS

Pictures = Literal["stored", "decoded"]
NUMBERED: Final = frozenset({"atari18", "meltingpot9", "procgen15"})
"""Bundled spaces in which exactly one button is down in each frame, as in `discreteN`."""
_CHOICE: Final = re.compile(r"(.+)_is_(?:minus)?\d+", re.ASCII)
MOST_PART_STEPS: Final = 10_000
"""Most steps of a part. An episode with more steps is a part of its own."""


@dataclass(frozen=True, slots=True)
class Content:
    """What every exported step holds.

    space       the action space
    rate        steps per second; None: the corpus keeps the rates of its sources, and they differ
    size        (width, height) of the pictures, in pixels
    pictures    "stored" in the corpus, or "decoded" from its tokens; None: no pictures
    coding      format of the coded pictures, "png" or "jpeg"; decoded pictures are "png"
    vocabulary  number of different tokens; 0: no tokens
    grid        (rows, columns) of tokens
    state_size  how many numbers a state has; 0: no states
    """

    space: ActionSpace
    rate: Fraction | None
    size: tuple[int, int]
    pictures: Pictures | None
    coding: Literal["png", "jpeg"]
    vocabulary: int
    grid: tuple[int, int]
    state_size: int
    reward: bool
    text: bool

    @property
    def steady_rate(self) -> Fraction:
        """The rate, for formats that need one (`Demands.steady`)."""
        assert self.rate is not None
        return self.rate


@dataclass(frozen=True, slots=True)
class Demands:
    """What a format needs of the steps written in it.

    pictures  every step has a picture
    known     the action of every step is known: episodes are cut where an action is not known
    ended     the action of an episode's last step is known too; False: the format has only those that
              led from one frame to the next, so a frame whose action is not known ends an episode
    steady    steps are evenly spaced, at one rate in the whole export
    numbered  episodes have consecutive numbers, or share a file that can't grow: no episode can be
              added later
    """

    pictures: bool = True
    known: bool = True
    ended: bool = True
    steady: bool = True
    numbered: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """Episodes of one split that are written together.

    name    name of the part's record, a plain file name; no other part has the same name
    shared  values that the writer computed when it made the parts, for use in `Writer.write`
    """

    name: str
    split: str
    stretches: tuple[Stretch, ...]
    shared: Any = None

    def __post_init__(self) -> None:
        if not self.stretches or any(each.split != self.split for each in self.stretches):
            raise UsageError(f"part {self.name}: expected episodes of the split {self.split}")

    @property
    def n_steps(self) -> int:
        """Steps of all its episodes."""
        return sum(each.n_steps for each in self.stretches)

    @property
    def identity(self) -> str:
        """24 hex digits that change when the content changes."""
        return content_hash([each.identity for each in self.stretches])


@dataclass(frozen=True, slots=True)
class Place:
    """Number of episodes and steps before a part, in the whole export and in the part's split."""

    episodes: int = 0
    steps: int = 0
    split_episodes: int = 0
    split_steps: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """The result of writing a part.

    episodes  names of the episodes in it
    steps     number of steps of each episode
    files     paths of its files, relative to the folder of the export
    facts     the values that `Writer.write` returned
    """

    name: str
    split: str
    place: Place
    episodes: tuple[str, ...]
    steps: tuple[int, ...]
    files: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


def cut(stretches: Sequence[Stretch], most_steps: int) -> Iterator[Stretch]:
    """The same steps in stretches of at most `most_steps`."""
    for each in stretches:
        for start in range(each.start, each.stop, most_steps):
            yield replace(each, start=start, stop=min(each.stop, start + most_steps))


def one_each(stretches: Iterable[Stretch]) -> Iterator[Part]:
    """A part for every episode."""
    for stretch in stretches:
        yield Part(stretch.name, stretch.split, (stretch,))


def grouped(stretches: Sequence[Stretch], most_steps: int = MOST_PART_STEPS) -> Iterator[Part]:
    """Parts of whole episodes, split after split, each of `most_steps` at most if possible."""
    for split, members in by_split(stretches):
        number, waiting, steps = 0, list[Stretch](), 0
        for stretch in members:
            if waiting and steps + stretch.n_steps > most_steps:
                yield Part(f"{split}-{number:05d}", split, tuple(waiting))
                number, waiting, steps = number + 1, [], 0
            waiting.append(stretch)
            steps += stretch.n_steps
        yield Part(f"{split}-{number:05d}", split, tuple(waiting))


def a_split_each(stretches: Sequence[Stretch]) -> Iterator[Part]:
    """A part for every split that has episodes."""
    for split, members in by_split(stretches):
        yield Part(split, split, tuple(members))


def by_split(stretches: Sequence[Stretch]) -> Iterator[tuple[str, list[Stretch]]]:
    """The episodes of each split in their order; the split train comes first."""
    for split, members in groupby(
        sorted(stretches, key=lambda each: SPLITS.index(each.split)), lambda each: each.split
    ):
        yield split, list(members)


def is_numbered(space: ActionSpace) -> bool:
    """Whether an action of this space is one of N numbered actions: N buttons, exactly one down.

    So are the spaces of one choice that a data set declares by name: `move_is_0`, `move_is_1`, ...
    """
    if space.name in NUMBERED or space == generic_space(f"discrete{space.size}"):
        return True
    choices = [_CHOICE.fullmatch(name) for name in space.names]
    stems = {choice and choice[1] for choice in choices}
    return len(space.of_kind("button")) == space.size and len(stems) == 1 and None not in stems


def action_numbers(stretch: Stretch, actions: NDArray[np.float32]) -> NDArray[np.int64]:
    """The number of each action, int64 [T].

    Args:
        stretch: the steps of the actions.
        actions: float32 [T, A] in a space for which `is_numbered` is true.

    Raises:
        Unfit: a step has no action, or several.
    """
    down = actions > 0
    if (wrong := np.flatnonzero(down.sum(axis=1) != 1)).size:
        raise stretch.refuse(
            Reason.LOG_RANGE,
            f"step {wrong[0]} has {int(down[wrong[0]].sum())} numbered actions, expected one: a step "
            "of several frames has each that occurred. Ingest with --rate native",
        )
    return np.asarray(down.argmax(axis=1), np.int64)
