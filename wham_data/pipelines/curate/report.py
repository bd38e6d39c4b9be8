"""What `wham-data audit` tells: a line for each recording, and the numbers behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from wham_data.pipelines.curate.verdict import METHOD_VERSION, ClockFit, Verdict
from wham_data.pipelines.run.progress import Counting
from wham_data.schemas.errors import printable


@dataclass(frozen=True, slots=True)
class Audited:
    """One recording and what was measured of it.

    recording  its path, and `#part` if it is one of several in its files
    game       by its metadata
    length_s   of the whole recording; `measured.seconds` of it were looked at
    refused    why it cannot be read; "": it can
    """

    recording: str
    game: str | None
    length_s: float
    measured: ClockFit
    verdict: Verdict
    why: str
    refused: str = ""

    def as_json(self) -> dict[str, Any]:
        """The numbers, for programs."""
        found = self.measured
        return {
            "recording": self.recording,
            "verdict": self.verdict,
            "why": self.why,
            "lag_ms": found.lag_ms,
            "lag_low_ms": found.lag_low_ms,
            "lag_high_ms": found.lag_high_ms,
            "drift_ppm": found.drift_ppm,
            "drift_low_ppm": found.drift_low_ppm,
            "drift_high_ppm": found.drift_high_ppm,
            "correlation": found.correlation,
            "p_value": found.p_value,
            "controls": {
                name: {"sign": each.sign, "dead": each.dead}
                for name, each in found.controls.items()
            },
            "method": f"{found.method}-{METHOD_VERSION}",
            "seconds": found.seconds,
        }

    def line(self) -> str:
        """One line for a person."""
        found = self.measured
        lag = "" if found.lag_ms is None else f"{found.lag_ms:+7.0f} ms"
        span = (
            ""
            if found.lag_low_ms is None or found.lag_high_ms is None
            else f"{found.lag_low_ms:+.0f} to {found.lag_high_ms:+.0f}"
        )
        return f"  {self.verdict:<13}{lag:>11} {span:>16}  {printable(self.recording)}" + (
            f"  ({printable(self.why)})" if self.why else ""
        )


@dataclass(frozen=True, slots=True)
class AuditReport:
    """All recordings that were audited, and what else was done."""

    recordings: tuple[Audited, ...]
    refused: tuple[str, ...] = ()
    written: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "recordings": [each.as_json() for each in self.recordings],
            "refused": list(self.refused),
            "written": list(self.written),
        }

    def text(self) -> str:
        """For a person: the worst first."""
        counts = Counter(each.verdict for each in self.recordings)
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        ranked = sorted(self.recordings, key=lambda each: (each.verdict == "ok", each.recording))
        lines = [f"{len(self.recordings)} recordings: {told}"]
        lines += [each.line() for each in ranked]
        lines += [f"  not read: {printable(each)}" for each in self.refused]
        return "\n".join([*lines, *(f"  wrote {printable(each)}" for each in self.written)])

    @property
    def exit_code(self) -> int:
        """3 if some could not be read."""
        return 3 if self.refused else 0


@dataclass(slots=True, kw_only=True)
class AuditProgress(Counting):
    """Recordings audited."""

    unit: ClassVar[str] = "recordings"


def lags_of_game(all_of_them: Sequence[tuple[str | None, float | None]], place: int) -> list[float]:
    """The lags in ms of the other recordings of the same game; of none if the game is not known."""
    game = all_of_them[place][0]
    return [
        lag
        for at, (name, lag) in enumerate(all_of_them)
        if at != place and name == game and game is not None and lag is not None
    ]
