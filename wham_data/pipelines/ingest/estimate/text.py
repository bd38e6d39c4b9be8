"""A dry run as a person reads it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from wham_data.pipelines.ingest.estimate.forecast import Forecast
from wham_data.pipelines.ingest.estimate.machine import Needs
from wham_data.pipelines.ingest.estimate.sampling import Estimated
from wham_data.pipelines.ingest.report import DryRun, IngestReport
from wham_data.schemas.errors import counted, printable

MOST_LISTED: Final = 40
UNKNOWN: Final = "not known"
ALWAYS: Final = (
    "A recording that opens and then does not decode would be refused too; that shows only in the run.",
)


def dry_run_text(plan: DryRun) -> str:
    """The lines that `wham-data ingest --dry-run` prints."""
    told = plan.forecast
    seen = (
        "all were opened"
        if told.sampled == told.of
        else f"estimated from {told.sampled:,} of {told.of:,} recordings"
    )
    lines = [
        f"{count_text(told.recordings)} recordings to ingest" + (f" ({seen})" if told.of else ""),
        *(f"  {name}: {count:,}" for name, count in plan.readers.items()),
        *(_figures(told) if told.of else ()),
        f"{plan.already_there:,} already there, {counted(plan.duplicates, 'duplicate')}, "
        f"{_refused(plan)} to be refused, {plan.forgotten:,} forgotten, "
        f"{counted(plan.ignored_files, 'other file')} ignored",
        *(
            f"  {reason}: {count_text(count)}"
            for reason, count in told.reasons.items()
            if told.sampled < told.of
        ),
        *_listed(plan.refused),
        *_listed({path: "; ".join(notes) for path, notes in plan.notes.items()}),
        *_remarks(told),
    ]
    return "\n".join(lines)


def _recordings(told: Forecast) -> str:
    if told.sampled == told.of:
        return counted(round(told.recordings.estimate), "recording")
    return f"{count_text(told.recordings)} recordings"


def _figures(told: Forecast) -> list[str]:
    """The totals, a line each."""
    rows = [
        ("play", ranged(told.hours, time_unit)),
        ("steps", count_text(told.steps)),
        ("shards", ranged(told.bytes, byte_unit)),
    ]
    if told.needs is not None:
        rows += _needed(told.needs)
    return [f"  {name + ':':11} {text}" for name, text in rows]


def _needed(needs: Needs) -> list[tuple[str, str]]:
    rows = [("CPU time", ranged(needs.cpu_hours, time_unit))]
    if needs.gpu_hours is not None or "no GPU" not in needs.machine:
        rows.append(("GPU time", ranged(needs.gpu_hours, time_unit)))
    wall = ranged(needs.wall_hours, time_unit)
    bound = f"; {needs.bound_by} set the limit" if needs.bound_by else ""
    rows.append(("wall time", f"{wall} on {needs.machine}{bound}"))
    if needs.cost is not None:
        rows.append(("cost", ranged(needs.cost, lambda _: (1.0, ""))))
    return rows


def _refused(plan: DryRun) -> str:
    """How many are refused, those found out without opening them among them."""
    told = plan.forecast
    if told.sampled == told.of:
        return f"{len(plan.refused):,}"
    return count_text(told.refused.plus(Estimated.exactly(plan.refused_unopened)))


def _listed(lines: dict[str, str]) -> list[str]:
    shown = [
        f"  {printable(path)}: {printable(text)}" for path, text in [*lines.items()][:MOST_LISTED]
    ]
    more = len(lines) - len(shown)
    return [*shown, f"  and {more:,} more (--json lists all)"] if more else shown


def _remarks(told: Forecast) -> list[str]:
    """What the figures rest on."""
    if not told.of:
        return []
    lines = [*ALWAYS] if told.needs is None else [*told.needs.assumed, *ALWAYS]
    if told.measured:
        lines.append(
            f"CPU time was measured on stretches of {told.measured:,} recordings. The start of Python "
            "and Ray and waiting for storage are not in it."
        )
    elif told.needs is not None and told.needs.cpu_hours is None:
        lines.append("CPU time is not known, because nothing was decoded to measure it.")
    if told.by_pieces:
        lines.append(
            "There is too much to read all of it. So copies are recognised by size and three pieces, "
            "and what the corpus has only by the path, size and times that earlier runs into it have "
            "noted. --sample all reads everything."
        )
    if told.sampled < told.of:
        lines.append("A range is meant to hold the true figure in 19 of 20 cases.")
    return ["What this rests on:", *(f"  {line}" for line in lines)]


def comparison_lines(report: IngestReport) -> list[str]:
    """What was estimated beside what it was, a line each; none without an estimate."""
    lines = []
    for name, each in (report.against_estimate or {}).items():
        scale = SCALES.get(name, lambda _: (1.0, ""))
        whole = name in ("recordings", "steps", "refused")
        took = None if each.took is None else Estimated.exactly(each.took)
        guess = None
        if each.estimate is not None:
            guess = Estimated(each.estimate, each.low, each.high)
        verdict = {True: "in the range", False: "not in the range", None: ""}[each.within]
        ratio = "" if each.ratio is None else f"{each.ratio:.2f} times the estimate"
        judged = ", ".join(filter(None, (ratio, verdict)))
        lines.append(
            f"  {NAMES[name] + ':':15} {ranged(took, scale, whole=whole)}; estimated "
            f"{ranged(guess, scale, whole=whole)}" + (f"; {judged}" if judged else "")
        )
    return ["  compared with the estimate:", *lines] if lines else []


Scale = Callable[[float], tuple[float, str]]
"""For an estimate, the size of the unit that a person would choose, and its name."""


def count_text(count: Estimated) -> str:
    """A count, exact or about."""
    return ranged(count, lambda _: (1.0, ""), whole=True)


def ranged(value: Estimated | None, scale: Scale, *, whole: bool = False) -> str:
    """A figure with its range, all in one unit; `whole`: without decimals."""
    if value is None:
        return UNKNOWN
    size, unit = scale(value.estimate)
    unit = unit and f" {unit}"

    def shown(number: float) -> str:
        scaled = number / size
        digits = 0 if whole else max(0, 2 - math.floor(math.log10(max(value.estimate / size, 1))))
        return f"{scaled:,.{digits}f}"

    if value.low == value.high == value.estimate:
        return f"{shown(value.estimate)}{unit}"
    about = f"about {shown(rounded(value.estimate))}{unit}"
    if value.low is None or value.high is None:
        return f"{about} (no range: too few were measured)"
    low, high = shown(rounded(value.low)), shown(rounded(value.high))
    return f"{about} ({low} to {high})" if low != high else about


def rounded(value: float) -> float:
    """To three significant digits."""
    return float(f"{value:.3g}")


def time_unit(hours: float) -> tuple[float, str]:
    """See `Scale`."""
    if hours >= 1:
        return 1.0, "hours"
    return (1 / 60, "minutes") if hours >= 1 / 60 else (1 / 3600, "seconds")


def byte_unit(count: float) -> tuple[float, str]:
    """See `Scale`."""
    units = ("bytes", "KB", "MB", "GB", "TB")
    power = min(int(math.log10(max(count, 1)) // 3), len(units) - 1)
    return 1000.0**power, units[power]


SCALES: Final[dict[str, Scale]] = {
    "hours": time_unit,
    "cpu_hours": time_unit,
    "wall_hours": time_unit,
    "bytes": byte_unit,
}
NAMES: Final = {
    "recordings": "recordings",
    "hours": "play",
    "steps": "steps",
    "bytes": "shards",
    "refused": "refused",
    "cpu_hours": "CPU time",
    "wall_hours": "wall time",
}
