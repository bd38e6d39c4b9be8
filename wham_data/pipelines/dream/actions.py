"""What is done in a dream: the actions that it is given, and where they come from.

    recorded           what was done in the recording
    model              the model makes them
    random             each button down in a tenth of the steps, all else anywhere in its range
    fixed:NAME=V,...   the same at every step; what is not named rests
    FILE.csv           a row per dreamt step

Actions are measured values in the action space of the model that dreams.

Step 0 is the first dreamt one: its action is taken on seeing the first dreamt picture. Steps below 0
are those that the dream starts from. A recording knows their actions; a picture has none, so it gets
the fixed one or the file's (step -1 for the last picture), and else rests.
"""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import read_whole
from wham_data.pipelines.dream.model_steps import is_wham
from wham_data.schemas.actions import (
    UNKNOWN_RANGE,
    ActionSpace,
    Dimension,
    clamp,
    load_space,
    space_names,
)
from wham_data.schemas.conversion import converts_to, find_conversion
from wham_data.schemas.errors import RefusedInput, UsageError
from wham_data.schemas.wham_tokens import BUTTONS, STICK_BINS, measured_from_bins

Actions = NDArray[np.float32]

STEP: Final = "step"
MOST_FILE_BYTES: Final = 8 << 20
BUTTON_SHARE: Final = 0.1


class GivenActions(Protocol):
    """Where the actions of dreams come from.

    Attributes:
        kind: "recorded", "model", "random", "fixed" or "file".
        told: the same in full, for the account; equal texts mean equal actions.
    """

    @property
    def kind(self) -> str: ...  # noqa: D102

    @property
    def told(self) -> str: ...  # noqa: D102

    def future(self, steps: int, index: int) -> Actions | None:
        """The actions of steps 0 to `steps` - 1, float32 [K, A] measured in the model's space.

        Args:
            steps: K.
            index: of the dream, which chance depends on.

        Returns:
            None where they are recorded, or made by the model.

        Raises:
            UsageError: there are not so many.
        """
        ...

    def on_pictures(self, count: int) -> Actions | None:
        """The actions of steps -`count` to -1, float32; None where nothing is said of them."""
        ...


@dataclass(frozen=True, slots=True)
class Undecided:
    """Actions that are recorded, or that the model makes."""

    kind: str

    @property
    def told(self) -> str:
        """As on the command line."""
        return self.kind

    def future(self, steps: int, index: int) -> None:
        """Not ours to say."""

    def on_pictures(self, count: int) -> None:
        """Nothing is said of them."""


RECORDED: Final = Undecided("recorded")
BY_MODEL: Final = Undecided("model")


@dataclass(frozen=True, slots=True)
class Random:
    """Every step another action. A longer dream begins with the actions of a shorter one.

    In `wham16` each of WHAM's stick bins is as likely as another.

    Raises:
        UsageError: the space does not say how large its numbers are.
    """

    seed: int
    space: ActionSpace
    kind: str = "random"

    def __post_init__(self) -> None:
        if np.abs(self.space.ranges()).max() >= UNKNOWN_RANGE:
            raise UsageError(
                f"--actions random: {self.space.name} does not say how large its numbers are. "
                "Give fixed:NAME=VALUE,... or FILE.csv"
            )

    @property
    def told(self) -> str:
        """As on the command line; the seed is a setting of its own."""
        return self.kind

    def future(self, steps: int, index: int) -> Actions:
        """Drawn from the seed and the dream's index."""
        chance = np.random.default_rng((self.seed, index)).random((steps, self.space.size))
        if is_wham(self.space):
            binned = np.floor(chance * STICK_BINS)
            binned[:, :BUTTONS] = chance[:, :BUTTONS] < BUTTON_SHARE
            return measured_from_bins(binned)
        low, high = self.space.ranges().T
        buttons = self.space.of_kind("button")
        values = low + chance * (high - low)
        values[:, buttons] = chance[:, buttons] < BUTTON_SHARE
        return np.asarray(values, np.float32)

    def on_pictures(self, count: int) -> None:
        """Nothing is said of them."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same action throughout."""

    action: Actions
    told: str
    kind: str = "fixed"

    def future(self, steps: int, index: int) -> Actions:
        """The action, K times."""
        del index
        return np.tile(self.action, (steps, 1))

    def on_pictures(self, count: int) -> Actions:
        """The action, as often."""
        return np.tile(self.action, (count, 1))


@dataclass(frozen=True, slots=True)
class Listed:
    """The rows of a file.

    first    the step of the first row, 0 or below
    actions  float32 [n, A] measured in the model's space
    """

    path: Path
    first: int
    actions: Actions
    digest: str
    kind: str = "file"

    @property
    def told(self) -> str:
        """Names the content, not the path, which may move."""
        return f"file:{self.digest[:16]}"

    def future(self, steps: int, index: int) -> Actions:
        """The first K rows from step 0 on."""
        del index
        rows = self.actions[-self.first :][:steps]
        if len(rows) < steps:
            raise UsageError(
                f"{self.path}: has actions for {len(rows)} steps from step 0 on, "
                f"but {steps} are to be dreamt. Add rows, or give --steps {len(rows)}"
            )
        return rows

    def on_pictures(self, count: int) -> Actions | None:
        """The rows below step 0, if there are enough."""
        return self.actions[-self.first - count :][:count] if -self.first >= count else None


def parse_actions(text: str, seed: int, space: ActionSpace) -> GivenActions:
    """What `--actions` says.

    Args:
        text: as on the command line.
        seed: of random actions.
        space: of the model.

    Raises:
        UsageError: it makes no sense, or the file can't be read as a list of actions.
    """
    if text in (RECORDED.kind, BY_MODEL.kind):
        return RECORDED if text == RECORDED.kind else BY_MODEL
    if text == "random":
        return Random(seed, space)
    if text.startswith("fixed:"):
        return _fixed(text, space)
    if text.lower().endswith(".csv"):
        return read_actions(Path(text), space)
    raise UsageError(
        f"--actions {text[:80]!r}: expected recorded, model, random, fixed:NAME=VALUE,... or a file "
        "that ends in .csv"
    )


def _fixed(text: str, space: ActionSpace) -> Fixed:
    said: dict[int, float] = {}
    for part in text.removeprefix("fixed:").split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        place, number = space.index(name), _number(value)
        dimension = space.dimensions[place]
        if not _possible(dimension, number):
            expected = _expected(dimension)
            raise UsageError(f"--actions: {name} is {value[:20]!r}, expected {expected}")
        if place in said:
            raise UsageError(f"--actions: {name} is there twice")
        said[place] = number
    action = space.null()
    action[list(said)] = list(said.values())
    told = ",".join(f"{space.names[place]}={number:g}" for place, number in sorted(said.items()))
    return Fixed(action, f"fixed:{told}")


def _possible(dimension: Dimension, number: float) -> bool:
    """Whether a step can have this value. A delta is summed over the step, so it can have any."""
    if dimension.kind == "button":
        return number in (0, 1)
    return bool(np.isfinite(number)) and (
        dimension.kind == "delta" or dimension.low <= number <= dimension.high
    )


def _expected(dimension: Dimension) -> str:
    usual = {"button": "0 or 1", "delta": "a number"}
    return usual.get(dimension.kind, f"{dimension.low:g} to {dimension.high:g}")


def read_actions(path: Path, target: ActionSpace) -> Listed:
    """The actions in a file: a header, then a row per step.

    One column for each dimension of the model's space (or of a space that converts to it), in any
    order, and optionally `step`, which counts up by one and gives the step of the first row. Without
    it the first row is step 0. Other columns are ignored.

    Args:
        path: the file.
        target: the model's space.

    Raises:
        UsageError: it is no such file, or an action is missing or out of its range.
    """
    try:
        data = read_whole(path.resolve(), MOST_FILE_BYTES)
        header, *rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"))) if row]
    except RefusedInput as error:
        raise UsageError(f"{path}: {error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: no CSV in UTF-8: {error}") from None
    except ValueError:
        raise UsageError(f"{path}: empty, expected a header and a row per step") from None
    names = [name.strip() for name in header]
    if len(set(names)) < len(names):
        raise UsageError(f"{path}: two columns have the same name")
    space = _space_of(path, names, target)
    wanted = (STEP, *space.names) if STEP in names else space.names
    try:
        numbers = [[_number(row[names.index(name)]) for name in wanted] for row in rows]
        table = np.array(numbers, np.float64).reshape(len(rows), len(wanted))
    except IndexError:
        raise UsageError(f"{path}: a row has fewer columns than the header") from None
    first = 0
    if STEP in names:
        steps, table = table[:, 0], table[:, 1:]
        first = int(steps[0]) if len(steps) and np.isfinite(steps[0]) else 0
        if first > 0 or not np.array_equal(steps, first + np.arange(len(steps))):
            raise UsageError(
                f"{path}: column step must count up by one, from 0 (the first dreamt step) or below"
            )
    if not np.isfinite(table).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(table))[0])
        raise UsageError(f"{path}: row {row + 1}: {space.names[column]} is missing or no number")
    try:
        values = _clamped(space, table)
    except RefusedInput as error:
        raise UsageError(f"{path}: {error}") from None
    actions = find_conversion(space, target).apply(values).astype(np.float32)
    return Listed(path, first, actions, hashlib.sha256(data).hexdigest())


def _clamped(space: ActionSpace, table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same actions within their ranges. A delta is summed over a step and has no range here."""
    deltas = space.of_kind("delta")
    bounded = table.copy()
    bounded[:, deltas] = 0
    values, _ = clamp(space, bounded)
    values[:, deltas] = table[:, deltas]
    return values


def _space_of(path: Path, names: list[str], target: ActionSpace) -> ActionSpace:
    """The space whose dimensions are all among the columns: the model's, or one that converts."""
    others = [load_space(name) for name in space_names() if target.name in converts_to(name)]
    for space in (target, *others):
        if set(space.names) <= set(names):
            return space
    lacking = [name for name in target.names if name not in names]
    raise UsageError(
        f"{path}: no column {', '.join(lacking[:3])}{' and more' * (len(lacking) > 3)}; expected the "
        f"{target.size} of {target.name} (`wham-data schema show {target.name}`)"
    )


def _number(text: str) -> float:
    """NaN for what is no number; true and false are 1 and 0."""
    known = {"true": 1.0, "false": 0.0}
    try:
        return known[text.strip().lower()] if text.strip().lower() in known else float(text)
    except ValueError:
        return float("nan")
