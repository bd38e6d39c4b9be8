"""The actions of a dream, and their sources.

    recorded           those of the recording
    model              the model chooses them
    random             each button is down in a tenth of the steps, other values are random
    fixed:NAME=V,...   these values at every step, all others at rest
    FILE.csv           one row per step of the dream

Actions are values in the action space of the model that dreams.

Step 0 is the first step of the dream: its action is taken after seeing the first picture of the dream.
Steps below 0 are the context. The actions of a recording's context are known. Pictures have no
actions, so they get the fixed action or those of the file (step -1 for the last picture), otherwise
they are at rest.
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

from wham_data.files.found import SNIFFED_BYTES, read_whole, stand_in_of
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
    """The source of the actions of dreams.

    Attributes:
        kind: "recorded", "model", "random", "fixed" or "file".
        description: the complete source, for the report; equal texts mean equal actions.
    """

    @property
    def kind(self) -> str: ...  # noqa: D102

    @property
    def description(self) -> str: ...  # noqa: D102

    def future(self, steps: int, index: int) -> Actions | None:
        """The actions of steps 0 to `steps` - 1, float32 [K, A] in the model's space.

        Args:
            steps: K.
            index: of the dream; random actions depend on it.

        Returns:
            None if they are recorded, or made by the model.

        Raises:
            UsageError: there are fewer actions than steps.
        """
        ...

    def on_pictures(self, count: int) -> Actions | None:
        """The actions of steps -`count` to -1, float32 [count, A]; None: not known."""
        ...


@dataclass(frozen=True, slots=True)
class Undecided:
    """Actions that are recorded, or that the model makes."""

    kind: str

    @property
    def description(self) -> str:
        """The text on the command line."""
        return self.kind

    def future(self, steps: int, index: int) -> None:
        """None: the recording or the model has them."""

    def on_pictures(self, count: int) -> None:
        """None: not known."""


RECORDED: Final = Undecided("recorded")
BY_MODEL: Final = Undecided("model")


@dataclass(frozen=True, slots=True)
class Random:
    """A random action at every step. A longer dream begins with the actions of a shorter one.

    In `wham16` all of WHAM's stick bins are equally likely.

    Raises:
        UsageError: the space does not declare the ranges of its numbers.
    """

    seed: int
    space: ActionSpace
    kind: str = "random"

    def __post_init__(self) -> None:
        if np.abs(self.space.ranges()).max() >= UNKNOWN_RANGE:
            raise UsageError(
                f"--actions random: {self.space.name} does not declare the ranges of its numbers. "
                "Use fixed:NAME=VALUE,... or FILE.csv"
            )

    @property
    def description(self) -> str:
        """The text on the command line; the seed is a separate setting."""
        return self.kind

    def future(self, steps: int, index: int) -> Actions:
        """Random actions, which depend on the seed and the dream's index."""
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
        """None: not known."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same action at every step."""

    action: Actions
    description: str
    kind: str = "fixed"

    def future(self, steps: int, index: int) -> Actions:
        """The action, repeated K times."""
        del index
        return np.tile(self.action, (steps, 1))

    def on_pictures(self, count: int) -> Actions:
        """The action, repeated `count` times."""
        return np.tile(self.action, (count, 1))


@dataclass(frozen=True, slots=True)
class Listed:
    """The rows of a file.

    path     of the file
    first    step of the first row, at most 0
    actions  float32 [n, A] in the model's space
    digest   SHA-256 of the file, hex digits
    """

    path: Path
    first: int
    actions: Actions
    digest: str
    kind: str = "file"

    @property
    def description(self) -> str:
        """A hash of the content, because the path may change."""
        return f"file:{self.digest[:16]}"

    def future(self, steps: int, index: int) -> Actions:
        """The first K rows from step 0 on."""
        del index
        rows = self.actions[-self.first :][:steps]
        if len(rows) < steps:
            raise UsageError(
                f"{self.path}: has actions for {len(rows)} steps from step 0 on, "
                f"but the dream has {steps} steps. Add rows, or use --steps {len(rows)}"
            )
        return rows

    def on_pictures(self, count: int) -> Actions | None:
        """The rows below step 0, if there are enough."""
        return self.actions[-self.first - count :][:count] if -self.first >= count else None


def parse_actions(text: str, seed: int, space: ActionSpace) -> GivenActions:
    """Parse the option `--actions`.

    Args:
        text: value of the option.
        seed: seed of random actions.
        space: action space of the model.

    Raises:
        UsageError: the text is not valid, or the file cannot be read as a list of actions.
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
    values: dict[int, float] = {}
    for part in text.removeprefix("fixed:").split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        place, number = space.index(name), _number(value)
        dimension = space.dimensions[place]
        if not _possible(dimension, number):
            expected = _expected(dimension)
            raise UsageError(f"--actions: {name} is {value[:20]!r}, expected {expected}")
        if place in values:
            raise UsageError(f"--actions: {name} is given twice")
        values[place] = number
    action = space.null()
    action[list(values)] = list(values.values())
    text = ",".join(f"{space.names[place]}={number:g}" for place, number in sorted(values.items()))
    return Fixed(action, f"fixed:{text}")


def _possible(dimension: Dimension, number: float) -> bool:
    """Whether a step can have this value. A delta is a sum over the step, so any value is possible."""
    if dimension.kind == "button":
        return number in (0, 1)
    return bool(np.isfinite(number)) and (
        dimension.kind == "delta" or dimension.low <= number <= dimension.high
    )


def _expected(dimension: Dimension) -> str:
    usual = {"button": "0 or 1", "delta": "a number"}
    return usual.get(dimension.kind, f"{dimension.low:g} to {dimension.high:g}")


def read_actions(path: Path, target: ActionSpace) -> Listed:
    """Read the actions in a file: a header, then one row per step.

    There is a column for each dimension of the model's space (or of a space that converts to it), in
    any order. An optional column `step` increases by one; without it the first row is step 0. Other
    columns are ignored.

    Args:
        path: of the file.
        target: the model's space.

    Raises:
        UsageError: it is not such a file, or an action is missing or out of its range.
    """
    try:
        data = read_whole(path.resolve(), MOST_FILE_BYTES)
        if data and (why := stand_in_of(data[:SNIFFED_BYTES])) is not None:
            raise UsageError(f"{path}: {why}")
        header, *rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"))) if row]
    except RefusedInput as error:
        raise UsageError(f"{path}: {error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: not a CSV file in UTF-8: {error}") from None
    except ValueError:
        raise UsageError(f"{path}: empty, expected a header and one row per step") from None
    names = [name.strip() for name in header]
    if len(set(names)) < len(names):
        raise UsageError(f"{path}: two columns have the same name")
    space = _space_of(path, names, target)
    columns = (STEP, *space.names) if STEP in names else space.names
    try:
        numbers = [[_number(row[names.index(name)]) for name in columns] for row in rows]
        table = np.array(numbers, np.float64).reshape(len(rows), len(columns))
    except IndexError:
        raise UsageError(f"{path}: a row has fewer columns than the header") from None
    first = 0
    if STEP in names:
        steps, table = table[:, 0], table[:, 1:]
        first = int(steps[0]) if len(steps) and np.isfinite(steps[0]) else 0
        if first > 0 or not np.array_equal(steps, first + np.arange(len(steps))):
            raise UsageError(
                f"{path}: column step must increase by one, from 0 (the first step of the dream) or less"
            )
    if not np.isfinite(table).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(table))[0])
        raise UsageError(f"{path}: row {row + 1}: {space.names[column]} is missing or not a number")
    try:
        values = _clamped(space, table)
    except RefusedInput as error:
        raise UsageError(f"{path}: {error}") from None
    actions = find_conversion(space, target).apply(values).astype(np.float32)
    return Listed(path, first, actions, hashlib.sha256(data).hexdigest())


def _clamped(space: ActionSpace, table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The actions, moved into their ranges. A delta is a sum over a step and has no range here."""
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
    """The number in a text; NaN if it is not a number. true and false are 1 and 0."""
    known = {"true": 1.0, "false": 0.0}
    try:
        return known[text.strip().lower()] if text.strip().lower() in known else float(text)
    except ValueError:
        return float("nan")
