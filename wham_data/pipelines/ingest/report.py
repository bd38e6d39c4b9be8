"""The progress of a run, and its report at the end, which counts every input and every frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from wham_data.pipelines.ingest.estimate.afterwards import Compared, PastEstimate, compared
from wham_data.pipelines.ingest.estimate.forecast import Forecast
from wham_data.pipelines.ingest.intake.counts import Counts
from wham_data.pipelines.run.progress import Figure, Number, Progress
from wham_data.schemas.errors import NoInputsError, RefusedInput, counted, printable

PER_SECOND = "{} made per second of wall time, on average since the start."


@dataclass(slots=True)
class IngestProgress(Progress):
    """The progress of a run. Frames are steps of the grid.

    intake       counts of the inputs found so far
    rate         steps per second; 0 if rates differ: then hours are not shown
    total_known  whether every input is found
    """

    unit: ClassVar[str] = "recordings"
    refusal: ClassVar[str] = "quarantined"
    intake: Counts
    rate: float
    tokens_per_frame: int
    done: int = 0
    bytes_done: int = 0
    bytes_written: int = 0
    frames: int = 0
    total_known: bool = True

    @property
    def counts(self) -> tuple[int, int]:
        """Number of recordings done, and number of recordings found so far that are to be done."""
        return self.done, self.intake.to_do

    @property
    def share(self) -> float:
        """Share of the bytes of the inputs found so far that is done, 0 to 1."""
        in_all = self.intake.bytes_to_do
        return self.bytes_done / in_all if in_all else float(self.total_known)

    @property
    def hours(self) -> float:
        """Hours of play on the grid of steps so far."""
        return self.frames / self.rate / 3600 if self.rate else 0.0

    @property
    def frames_per_second(self) -> float:
        """Steps made per second of wall time."""
        return self.frames / self.seconds

    @property
    def tokens_per_second(self) -> float:
        """Image tokens made per second of wall time."""
        return self.frames_per_second * self.tokens_per_frame

    @property
    def figures(self) -> tuple[Figure, ...]:
        """See `Progress.figures`."""
        so_far = () if self.total_known else (("", f"{self.intake.found:,} inputs found so far"),)
        return (
            *so_far,
            ("quarantined", str(self.refused)),
            ("", f"{self.hours:.2f} h of play"),
            ("", f"{self.frames_per_second:.0f} frames/s"),
            ("", f"{self.tokens_per_second:,.0f} tokens/s"),
        )

    @property
    def numbers(self) -> tuple[Number, ...]:
        """See `Progress.numbers`."""
        return (
            *self._made,
            Number("read_bytes", self.bytes_done, "Bytes of the recordings that are done."),
            Number("written_bytes", self.bytes_written, "Bytes of the shards that are written."),
        )

    @property
    def _made(self) -> tuple[Number, ...]:
        """Numbers of the steps that are made."""
        tokens, play = self.frames * self.tokens_per_frame, self.hours * 3600
        per_second, tokens_per_second = self.frames_per_second, self.tokens_per_second
        return (
            Number("frames", self.frames, "Frames made; each is a step of the grid."),
            Number("tokens", tokens, "Image tokens made."),
            Number("frames_per_second", per_second, PER_SECOND.format("Frames"), grows=False),
            Number(
                "tokens_per_second", tokens_per_second, PER_SECOND.format("Tokens"), grows=False
            ),
            *(
                [Number("play_seconds", play, "Seconds of play that the frames cover.")]
                if self.rate
                else []
            ),
        )


@dataclass(slots=True)
class TokenizeProgress(IngestProgress):
    """The progress of `tokenize`, whose `bytes_to_do` and `bytes_done` count steps, not bytes."""

    @property
    def numbers(self) -> tuple[Number, ...]:
        """See `Progress.numbers`."""
        return self._made


@dataclass(frozen=True, slots=True)
class IngestReport:
    """The result for every input of a run.

    found = ingested + duplicates + quarantined + already_there + not_reached + forgotten
    frames_in = frames_used + the sum of frames_dropped, over the recordings ingested

    corpus, version  location of the corpus, and the version of its manifest after the run;
                     None: no corpus was begun, because no recording could be read
    not_reached      inputs that were not tried, because the run ended early
    hashed           recordings of which a file was read to identify them
    known            recordings that an earlier run knew, by the path, size and times of their files
    forgotten        inputs left out, because `forget` removed them, their player or their match
    ignored_files    files that are not part of a recording
    missing_actions  steps whose action is not known
    hours            hours of play on the grid of steps
    reasons          counts of quarantined inputs by reason code
    seconds          wall time
    bytes            size of the shards that were written, before small ones are merged
    cpu_hours        CPU time of the command and of the processes that it started; None: the work was
                     done on a cluster, whose processes are not seen from here
    against_estimate  what a dry run had estimated, beside what it was; None: no estimate was given
    """

    corpus: str
    version: int | None
    found: int
    ingested: int
    duplicates: int
    quarantined: int
    already_there: int
    not_reached: int
    forgotten: int
    hashed: int
    known: int
    ignored_files: int
    episodes: int
    steps: int
    missing_actions: int
    hours: float
    frames_in: int
    frames_used: int
    frames_dropped: dict[str, int]
    reasons: dict[str, int]
    seconds: float
    bytes: int = 0
    cpu_hours: float | None = None
    against_estimate: dict[str, Compared] | None = None

    @property
    def exit_code(self) -> int:
        """0: all done; 3: some inputs are in quarantine; 6: no input was ingested, in this run or before."""
        if not (self.ingested or self.already_there or self.forgotten):
            return NoInputsError.exit_code
        return RefusedInput.exit_code if self.quarantined else 0

    def against(self, estimate: PastEstimate | None) -> IngestReport:
        """The report with its figures beside those of an estimate, if there is one."""
        if estimate is None:
            return self
        took = {
            "recordings": self.ingested,
            "hours": self.hours,
            "steps": self.steps,
            "bytes": self.bytes,
            "refused": self.quarantined,
            "cpu_hours": self.cpu_hours,
            "wall_hours": self.seconds / 3600,
        }
        return replace(self, against_estimate=compared(estimate, took))


@dataclass(frozen=True, slots=True)
class DryRun:
    """The prediction of an ingest.

    Figures are estimates if only a sample of the recordings was opened; `forecast` has their ranges.

    recordings       count of recordings that would be ingested
    readers          their counts by reader
    hours            hours of play on the grid of steps
    steps            count of steps they would give
    estimated_bytes  size of the shards, before small ones are merged
    refused          path -> reason, for inputs that would go to quarantine, as far as they were seen
    refused_unopened  count of those that were refused before anything was opened
    notes            path -> notes for the user; "splits": which splits would stay empty
    settings_hash    of the corpus; None: no recording could be read
    forecast         what was estimated, and how
    seconds          wall time of the dry run
    """

    found: int
    recordings: int
    readers: dict[str, int]
    hours: float
    steps: int
    estimated_bytes: int
    already_there: int
    duplicates: int
    in_quarantine: int
    forgotten: int
    refused: dict[str, str]
    refused_unopened: int
    notes: dict[str, tuple[str, ...]]
    ignored_files: int
    settings_hash: str | None
    forecast: Forecast
    seconds: float

    @property
    def exit_code(self) -> int:
        """That of the real run, as far as it can be predicted: see `IngestReport.exit_code`."""
        if not (self.recordings or self.already_there or self.forgotten):
            return NoInputsError.exit_code
        return RefusedInput.exit_code if self.refused or self.in_quarantine else 0


def summary(report: IngestReport) -> str:
    """The account of a run, as a person reads it."""
    lines = [
        f"{printable(report.corpus)}: no corpus begun, for no recording could be read"
        if report.version is None
        else f"{printable(report.corpus)}: version {report.version}",
        f"  found {report.found} = ingested {report.ingested} + already there {report.already_there} "
        f"+ duplicates {report.duplicates} + quarantined {report.quarantined}"
        + (f" + forgotten {report.forgotten}" if report.forgotten else "")
        + (f" + not reached {report.not_reached}" if report.not_reached else ""),
        f"  identified: {report.hashed} hashed, {report.known} known by size and time",
        f"  {counted(report.episodes, 'episode')}, {counted(report.steps, 'step')}, "
        f"{report.hours:.3f} hours "
        f"in {report.seconds:.1f} s",
    ]
    if report.missing_actions:
        lines.append(f"  {counted(report.missing_actions, 'step')} without a known action")
    if report.frames_in:
        dropped = ", ".join(
            f"{n} {reason.replace('_', ' ')}" for reason, n in report.frames_dropped.items()
        )
        lines.append(
            f"  frames in {report.frames_in} = used {report.frames_used} + dropped "
            f"{sum(report.frames_dropped.values())}" + (f" ({dropped})" if dropped else "")
        )
    if report.quarantined:
        reasons = ", ".join(f"{n} {reason}" for reason, n in report.reasons.items())
        lines.append(
            f"  quarantined: {reasons}; see wham-data quarantine list {printable(report.corpus)}"
        )
        lines.append("  wham-data ingest --explain FILE shows how a recording is understood")
    return "\n".join(lines)
