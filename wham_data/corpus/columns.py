"""Names of the columns of tables that have one row per step and a column for each dimension of an action.

`wham-data query` and `wham-data export --to parquet` have the same columns with the same meaning.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.corpus_info import Rate

ABOUT: Final = ("game", "map", "match", "player", "subject", "license")
"""Columns of the manifest that are the same in all steps of an episode; null: not stated."""
STEP_COLUMNS: Final = (
    *("episode", "split", "step", "time_ns", "rate", "hours"),
    *ABOUT,
    *("actions", "action_known", "tokens", "frame", "state", "reward", "text"),
)
"""All columns but those of the dimensions, which follow `license`.

rate   steps per second of the episode, Hz; null: not known
hours  duration of one step, so that its sum over any steps is their duration; null: not known
"""


def dimension_columns(space: ActionSpace) -> tuple[str, ...]:
    """The name of the column of each dimension: the name of the dimension.

    A name that another column has already gets `action_` in front. Upper and lower case count as
    equal, as they do in SQL.
    """
    taken = {name.casefold() for name in STEP_COLUMNS}
    names = []
    for name in space.names:
        while name.casefold() in taken:
            name = f"action_{name}"
        taken.add(name.casefold())
        names.append(name)
    return tuple(names)


def steps_per_second(rate: Rate, source_fps: float) -> float | None:
    """The rate of an episode in Hz; None if it is not known.

    Args:
        rate: of the corpus.
        source_fps: of the episode, which is the rate of a corpus that keeps those of its sources.
    """
    per_second = float(rate) if isinstance(rate, Fraction) else source_fps
    return per_second if per_second > 0 else None


def hours_per_step(per_second: float | None) -> float | None:
    """Duration of one step in hours; None if the rate is not known."""
    return None if per_second is None else 1 / per_second / 3600
