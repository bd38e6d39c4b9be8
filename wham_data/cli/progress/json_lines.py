"""Progress and messages of a run on stderr, one JSON object per line (`--log-format json`)."""

from __future__ import annotations

import math
from typing import Any

from wham_data.cli.console import Level, log
from wham_data.cli.progress.drawn import Due, one_line
from wham_data.pipelines.run.progress import Event, Progress

DIGITS = 6
"""Decimals of numbers that are not whole."""


class JsonLines:
    """A listener that writes an event for all that it hears.

    Args:
        every: shortest time between two events of progress, in seconds. One more comes at the end of
            the block.
    """

    def __init__(self, every: float) -> None:
        self._due = Due(every)
        self._last: Progress | None = None

    def __enter__(self) -> JsonLines:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write the last progress."""
        if self._last is not None:
            self._write(self._last)

    def progressed(self, progress: Progress) -> None:
        """See `ProgressListener.progressed`."""
        self._last = progress
        if self._due():
            self._write(progress)

    def message(self, text: str, *, warning: bool, event: Event | None = None) -> None:
        """See `ProgressListener.message`."""
        level: Level = "warning" if warning else "info"
        if event is None:
            log("warning" if warning else "note", text, level)
            return
        fields: dict[str, Any] = {}
        if event.item is not None:
            fields["item"] = event.item
        if event.reason is not None:
            fields["reason"] = event.reason
        if event.notes:
            fields["notes"] = event.notes
        log(event.name, text, level, **fields, **event.facts)

    def _write(self, progress: Progress) -> None:
        log("progress", one_line(progress), **fields_of(progress))


def fields_of(progress: Progress) -> dict[str, Any]:
    """The numbers of a job, by the names of their fields."""
    done, planned = progress.counts
    left = progress.seconds_left
    return {
        "unit": progress.unit,
        "done": done,
        "planned": planned,
        "share": _short(progress.share),
        "seconds": _short(progress.seconds),
        "seconds_left": None if left is None else _short(left),
        progress.refusal: progress.refused,
        "reasons": dict(sorted(progress.reasons.items())),
        **{each.name: _short(each.value) for each in progress.numbers},
    }


def _short(value: float) -> float | None:
    """A number as JSON can hold it: whole, or with a few decimals; None if it is not finite."""
    if isinstance(value, int):
        return value
    return round(value, DIGITS) if math.isfinite(value) else None
