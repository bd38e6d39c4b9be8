"""An estimate that a dry run made, compared with what the run then took."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wham_data.pipelines.ingest.estimate.sampling import Estimated
from wham_data.schemas.corpus_info import parse_json
from wham_data.schemas.errors import UsageError

MOST_BYTES: Final = 1 << 28
SLACK: Final = 0.002
"""Share by which a figure may be off that counts as exact: sizes of shards are computed, not written."""
FIGURES: Final = {
    "recordings": ("recordings",),
    "hours": ("hours",),
    "steps": ("steps",),
    "bytes": ("bytes",),
    "refused": ("refused",),
    "cpu_hours": ("needs", "cpu_hours"),
    "wall_hours": ("needs", "wall_hours"),
}
"""What is compared, and where it is in `forecast`."""


@dataclass(frozen=True, slots=True)
class PastEstimate:
    """What `ingest --dry-run --json` printed.

    settings_hash  of the corpus for which it was made
    figures        by name; None: it was not known
    """

    path: Path
    settings_hash: str
    figures: Mapping[str, Estimated | None]

    def check(self, settings_hash: str) -> None:
        """Refuse to compare it with a run under other settings.

        Raises:
            UsageError: they are others.
        """
        if settings_hash != self.settings_hash:
            raise UsageError(
                f"{self.path}: the estimate was made for other settings than those of this run; give "
                "both commands the same options, or leave out --estimate"
            )


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of an estimate, and of the run.

    took    what it was; None: it could not be measured
    ratio   took / estimate; None: one of them is not known, or the estimate is 0
    within  whether it is in the range; None: there is none
    """

    estimate: float | None
    low: float | None
    high: float | None
    took: float | None
    ratio: float | None
    within: bool | None


def read_estimate(path: Path) -> PastEstimate:
    """Read what `ingest --dry-run --json` printed.

    Raises:
        UsageError: the file cannot be read, or is something else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES)
        said = parse_json(content)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except UsageError as error:
        raise UsageError(f"{path}: no estimate: {error}") from None
    settings = said.get("settings_hash") if isinstance(said, dict) else None
    if not isinstance(said, dict) or not isinstance(settings, str):
        raise UsageError(f"{path}: expected what `wham-data ingest --dry-run --json` prints")
    figures = {name: _figure(path, said, ("forecast", *keys)) for name, keys in FIGURES.items()}
    refused, unopened = figures["refused"], said.get("refused_unopened")
    if refused is not None and isinstance(unopened, int):
        figures["refused"] = refused.plus(Estimated.exactly(float(unopened)))
    return PastEstimate(path, settings, figures)


def _figure(path: Path, said: Any, keys: tuple[str, ...]) -> Estimated | None:
    for key in keys:
        said = said.get(key) if isinstance(said, dict) else None
    if said is None:
        return None
    values: dict[str, Any] = said if isinstance(said, dict) else {}
    ends = values.get("low"), values.get("high")
    if not _is_number(values.get("estimate")) or any(
        e is not None and not _is_number(e) for e in ends
    ):
        raise UsageError(f"{path}: {'.'.join(keys)}: expected numbers estimate, low and high")
    return Estimated(values["estimate"], *ends)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def compared(past: PastEstimate, took: Mapping[str, float | None]) -> dict[str, Compared]:
    """Each figure that was estimated beside what it was.

    Args:
        past: the estimate.
        took: by the names in `FIGURES`.
    """
    return {name: _compared(figure, took[name]) for name, figure in past.figures.items()}


def _compared(figure: Estimated | None, took: float | None) -> Compared:
    if figure is None:
        return Compared(None, None, None, took, None, None)
    ratio = within = None
    if took is not None and figure.estimate > 0:
        ratio = took / figure.estimate
    if took is not None and figure.low is not None and figure.high is not None:
        within = figure.low * (1 - SLACK) <= took <= figure.high * (1 + SLACK)
    return Compared(figure.estimate, figure.low, figure.high, took, ratio, within)
