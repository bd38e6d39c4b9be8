"""Weights of episodes that even a corpus out, and what they cost.

If a game has the share p of the steps and should have q, its episodes weigh q / p. To even out
controls, each control is held or not held: two classes of equal wanted share. A class that has the
share p weighs 1 / (2 p), an episode the mean over its steps and over the controls that are held at
some times and not at others. A weight is limited to 1/8 to 8, then all are scaled so that the mean
over the steps is 1: an epoch stays as long as it is.

The cost: n steps of different weights w tell as much as (sum w)^2 / sum w^2 steps of one weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wham_data.corpus.balance.count import GROUPS, Counted
from wham_data.schemas.declarations import is_number, known_keys, nearest, read_toml
from wham_data.schemas.errors import UsageError, printable

Flatten = Literal["action", "game", "map", "player"]
FLATTEN: Final = get_args(Flatten)
MOST: Final = 8.0
"""Largest weight before the final scaling; the smallest above 0 is 1 / MOST."""
CONTROL: Final = "control"
"""The table of a target that names controls."""
NOT_STATED: Final = ""
"""Name of the game, map or player that is not stated."""
WEIGHTS_SCHEMA: Final = pa.schema(
    [
        pa.field("episode", pa.string(), nullable=False),
        pa.field("recording", pa.string(), nullable=False),
        pa.field("n_steps", pa.int64(), nullable=False),
        pa.field("entropy_bits", pa.float64()),
        pa.field("weight", pa.float64(), nullable=False),
    ]
)
Target = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the episodes, and what they cost.

    of_episode       float64 [E], in the order of `Counted.episodes`
    effective_steps  effective sample size, in steps
    kept             share of the steps that is left by it, 0 to 1
    limited          count of episodes whose weight was limited
    shares           control -> its share of the time with the weights, 0 to 1
    """

    flatten: Flatten
    of_episode: NDArray[np.float64]
    effective_steps: float
    kept: float
    limited: int
    shares: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the weights themselves."""
        names = ("flatten", "effective_steps", "kept", "limited", "shares")
        return {name: getattr(self, name) for name in names}


def read_target(path: Path, counted: Counted) -> Target:
    """Wanted shares from a TOML file with the tables `game`, `map`, `player` and `control`.

    Raises:
        UsageError: the file has something else, a name that the corpus lacks, a share that is not
            0 to 1, or shares of games, maps or players that add up to more than 1.
    """
    tables = known_keys(read_toml(path), (*GROUPS, CONTROL), str(path))
    made: dict[str, dict[str, float]] = {}
    for kind, table in tables.items():
        there = (
            counted.names
            if kind == CONTROL
            else tuple(counted.episodes[kind].fill_null(NOT_STATED).unique().sort().to_list())
        )
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {kind}: expected a table of names and shares")
        for name, share in table.items():
            if name not in there:
                what = printable(name[:80])
                raise UsageError(
                    f"{path}: the corpus has no {kind} {what!r}{nearest(name, there, f'{kind}s')}"
                )
            if not (is_number(share) and 0 <= share <= 1):
                raise UsageError(
                    f"{path}: {kind} {printable(name[:80])!r}: expected a share, 0 to 1"
                )
        if kind != CONTROL and sum(table.values()) > 1 + 1e-9:
            raise UsageError(f"{path}: the shares in [{kind}] add up to more than 1")
        made[kind] = {name: float(share) for name, share in table.items()}
    return made


def weights_of(counted: Counted, flatten: Flatten, target: Target | None = None) -> Weights:
    """Weights that even out one thing, or bring it to the shares of a target.

    Args:
        counted: the counted corpus.
        flatten: "action": the controls; "game", "map" or "player": these.
        target: wanted shares. For "action" it has no effect. The default of the others is the same
            share for each; what the target does not name keeps its proportions in the rest.

    Raises:
        UsageError: no step counts, or all of them would weigh 0.
    """
    steps = counted.episodes["n_steps"].to_numpy().astype(np.float64)
    if not steps.sum():
        raise UsageError("no step of the corpus is kept and has a known action: nothing to weigh")
    raw = (
        _of_actions(counted, steps)
        if flatten == "action"
        else _of_groups(counted, steps, flatten, (target or {}).get(flatten))
    )
    limited = np.where(raw > 0, raw.clip(1 / MOST, MOST), 0.0)
    total = float(steps @ limited)
    if not total:
        raise UsageError(f"the target of [{flatten}] leaves no step of the corpus")
    weights = limited * (steps.sum() / total)
    effective = float((steps @ weights) ** 2 / (steps @ weights**2))
    shares = (weights @ counted.active) / (weights @ steps)
    return Weights(
        flatten=flatten,
        of_episode=weights,
        effective_steps=effective,
        kept=float(effective / steps.sum()),
        limited=int(np.count_nonzero(limited != raw)),
        shares=dict(zip(counted.names, shares.tolist(), strict=True)),
    )


def _of_actions(counted: Counted, steps: NDArray[np.float64]) -> NDArray[np.float64]:
    share = counted.active.sum(axis=0) / steps.sum()
    varied = (share > 0) & (share < 1)
    if not varied.any():
        return np.ones(len(steps))
    share = share[varied]
    in_episode = counted.active[:, varied] / np.maximum(steps, 1)[:, None]
    mean = (in_episode / (2 * share) + (1 - in_episode) / (2 * (1 - share))).mean(axis=1)
    return np.where(steps > 0, mean, 1.0)


def _of_groups(
    counted: Counted,
    steps: NDArray[np.float64],
    kind: str,
    target: Mapping[str, float] | None,
) -> NDArray[np.float64]:
    names, group = np.unique(
        counted.episodes[kind].fill_null(NOT_STATED).to_numpy().astype(str), return_inverse=True
    )
    share = np.bincount(group, weights=steps, minlength=len(names)) / steps.sum()
    there = share > 0
    if target is None:
        wanted = there / there.sum()
    else:
        named = np.array([name in target for name in names.tolist()])
        wanted = np.array([target.get(name, 0.0) for name in names.tolist()])
        rest = float(share[~named].sum())
        wanted[~named] = share[~named] * max(0.0, 1 - wanted[named].sum()) / (rest or 1.0)
    return np.asarray((wanted / np.where(there, share, 1.0))[group], np.float64)


def weights_table(counted: Counted, weights: Weights) -> pa.Table:
    """The table that `stats --balance --out` writes, one row per episode; see WEIGHTS_SCHEMA."""
    bits = [counted.entropy.get(name) for name in counted.episodes["recording"]]
    rows = counted.episodes.select("episode", "recording", "n_steps").with_columns(
        pl.Series("entropy_bits", bits, pl.Float64), pl.Series("weight", weights.of_episode)
    )
    return rows.sort("episode").to_arrow().cast(WEIGHTS_SCHEMA)


def read_weights(path: Path) -> dict[str, float]:
    """Episode -> weight, from a Parquet file with these two columns, as `stats --balance` writes it.

    Raises:
        UsageError: the file cannot be read, has other columns, a weight that is not finite or is
            below 0, or an episode twice.
    """
    names = ("episode", "weight")
    try:
        table = pq.read_table(path, columns=list(names)).cast(
            pa.schema([WEIGHTS_SCHEMA.field(name) for name in names])
        )
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise UsageError(
            f"{path}: no table of weights, expected Parquet with the columns episode and weight: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    episodes, weights = (table.column(name).to_pylist() for name in names)
    made = dict(zip(episodes, weights, strict=True))
    if len(made) != len(episodes):
        raise UsageError(f"{path}: an episode is in it twice")
    for episode, weight in made.items():
        if episode is None or weight is None or not (math.isfinite(weight) and weight >= 0):
            raise UsageError(
                f"{path}: episode {printable(str(episode)[:80])}: weight {weight}, expected 0 or more"
            )
    return made
