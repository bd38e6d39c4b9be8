"""What a writer is given: the steps to write, what they all agree on, and the share of one go.

Content    what every exported step holds
Demands    what a format asks of them
Part       episodes of one split that are written in one go, whole or not at all
Place      how much lies before a part: where its numbers begin
Written    what an earlier part came to, for the files that describe all of an export
"""

from __future__ import annotations

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
"""Bundled spaces in which a frame has exactly one of the buttons; so has `discreteN`."""
MOST_PART_STEPS: Final = 10_000
"""Steps of a part of several episodes, unless one alone has more."""


@dataclass(frozen=True, slots=True)
class Content:
    """What every exported step holds.

    space       of its action
    rate        steps per second; None: the corpus keeps those of its sources, and they differ
    size        (width, height) of the pictures, in pixels
    pictures    as the corpus stores them, or decoded from its tokens; None: there are none
    coding      how a stored picture is coded, "png" or "jpeg"; decoded ones count as "png"
    vocabulary  of the tokens; 0: there are none
    grid        (rows, columns) of tokens
    state_size  numbers of the state; 0: there is none
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
        """The rate, for formats whose demands ask for one."""
        assert self.rate is not None
        return self.rate


@dataclass(frozen=True, slots=True)
class Demands:
    """What a format asks of what is written in it.

    pictures  every step has its picture
    known     the action of every step is known: episodes are cut where one is not
    steady    steps are evenly spaced, at one rate throughout
    numbered  episodes are numbered through, or share a file that can't grow: nothing joins later
    """

    pictures: bool = True
    known: bool = True
    steady: bool = True
    numbered: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """Episodes of one split that are written in one go.

    name    of its account, a plain file name; no other part has it
    shared  what the writer knows of all of them since it made the parts
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
        """24 hex digits that change with what is in it."""
        return content_hash([each.identity for each in self.stretches])


@dataclass(frozen=True, slots=True)
class Place:
    """How much lies before a part, in the export and in the part's split."""

    episodes: int = 0
    steps: int = 0
    split_episodes: int = 0
    split_steps: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a part.

    episodes  names of those that are in it
    steps     of each of them
    files     that it was written to, relative to the folder of the export
    facts     what the writer noted
    """

    name: str
    split: str
    place: Place
    episodes: tuple[str, ...]
    steps: tuple[int, ...]
    files: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


def cut(stretches: Sequence[Stretch], most_steps: int) -> Iterator[Stretch]:
    """The same steps, none of the stretches longer than this."""
    for each in stretches:
        for start in range(each.start, each.stop, most_steps):
            yield replace(each, start=start, stop=min(each.stop, start + most_steps))


def one_each(stretches: Iterable[Stretch]) -> Iterator[Part]:
    """A part for every episode."""
    for stretch in stretches:
        yield Part(stretch.name, stretch.split, (stretch,))


def grouped(stretches: Sequence[Stretch], most_steps: int = MOST_PART_STEPS) -> Iterator[Part]:
    """Parts of whole episodes, split after split, each of `most_steps` at most where that can be."""
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
    """The episodes of each split, train first; in their order."""
    for split, members in groupby(
        sorted(stretches, key=lambda each: SPLITS.index(each.split)), lambda each: each.split
    ):
        yield split, list(members)


def is_numbered(space: ActionSpace) -> bool:
    """Whether an action of this space is one of some numbered ones: a button each, one of them down."""
    return space.name in NUMBERED or space == generic_space(f"discrete{space.size}")


def action_numbers(stretch: Stretch, actions: NDArray[np.float32]) -> NDArray[np.int64]:
    """The number of each action, int64 [T].

    Args:
        stretch: whose they are.
        actions: float32 [T, A] in a space of which `is_numbered` is true.

    Raises:
        Unfit: a step has none, or several.
    """
    down = actions > 0
    if (wrong := np.flatnonzero(down.sum(axis=1) != 1)).size:
        raise stretch.refuse(
            Reason.LOG_RANGE,
            f"step {wrong[0]} has {int(down[wrong[0]].sum())} numbered actions, expected one: a step "
            "of several frames has each that occurred. Ingest with --rate native",
        )
    return np.asarray(down.argmax(axis=1), np.int64)
