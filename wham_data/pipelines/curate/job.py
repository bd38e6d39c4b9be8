"""Audit recordings: the whole job.

find       the recordings
for each one, in the process where the runner puts it:
  open     its clocks and its log, in a decoder process
  look     small pictures of some stretches, once                          motion.py
  measure  lag, drift, signs                                               lag.py, verdict.py
judge      each against zero and against the others of its game            verdict.py
write      corrections, if asked                                           corrections.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.curate.controls import signals_of
from wham_data.pipelines.curate.lag import Spans
from wham_data.pipelines.curate.motion import SIZE, Motion, motion_of
from wham_data.pipelines.curate.report import Audited, AuditProgress, AuditReport, lags_of_game
from wham_data.pipelines.curate.verdict import ClockFit, judge, measure
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.ingest.stages import open_as_set
from wham_data.pipelines.readers import discover
from wham_data.pipelines.run.choose import choose_runner
from wham_data.pipelines.run.progress import ProgressListener, Silent
from wham_data.pipelines.run.runner import Advance, Stage
from wham_data.schemas.clock import SECOND_NS, Index, Nanos
from wham_data.schemas.errors import NoInputsError, Reason, RefusedInput
from wham_data.schemas.recording import OpenRecording, Recording

BATCH: Final = 64
STRETCHES: Final = 6


@dataclass(frozen=True, slots=True)
class Looked:
    """What one worker found: the measurement, the recording's length, and its game."""

    measured: ClockFit
    length_s: float
    game: str | None


def audit(
    sources: Sequence[str | Path],
    settings: IngestSettings,
    *,
    reader: str = "auto",
    seconds: float = 120.0,
    workers: int | None = 0,
    ray_address: str | None = None,
    watch: ProgressListener | None = None,
    each: Callable[[Recording, Looked], None] | None = None,
) -> AuditReport:
    """Measure whether the logs of recordings belong to their pictures.

    Args:
        sources: files and folders of recordings.
        settings: how recordings are read: options, limits and masks.
        reader: "auto", or the name of the format.
        seconds: how much of each recording is looked at, in stretches; 0: all of it.
        workers, ray_address, watch: as for `ingest`.
        each: is called with every recording that was measured.

    Raises:
        NoInputsError: there is no recording.
    """
    watch = watch or Silent()
    found = discover(sources, reader, dict(settings.options))
    if not found.recordings:
        why = "".join(f"; {path.name}: {refusal}" for path, refusal in found.refused[:1])
        raise NoInputsError(f"{', '.join(map(str, sources))}: no recording{why}")
    runner = choose_runner(workers, ray_address, watch=watch)
    progress = AuditProgress(total=len(found.recordings))
    refused = [f"{path}: {why}" for path, why in found.refused]
    looked: dict[str, Looked] = {}

    def advance(_: int) -> None:
        watch.progressed(progress)

    for outcome in runner.run(audit_stage(settings, seconds), found.recordings, advance):
        progress.done += 1
        if isinstance(outcome.result, RefusedInput):
            refused.append(f"{outcome.item.source}: {outcome.result}")
        else:
            looked[outcome.item.source] = outcome.result
            if each is not None:
                each(outcome.item, outcome.result)
        watch.progressed(progress)
    return AuditReport(judged(looked), tuple(refused))


def judged(looked: dict[str, Looked]) -> tuple[Audited, ...]:
    """The verdict of each recording, by its name, against zero and the others of its game."""
    lags = [(each.game, each.measured.lag_ms) for each in looked.values()]
    audited = []
    for place, (name, each) in enumerate(looked.items()):
        verdict, why = judge(each.measured, each.length_s, lags_of_game(lags, place))
        audited.append(Audited(name, each.game, each.length_s, each.measured, verdict, why))
    return tuple(sorted(audited, key=lambda one: one.recording))


def audit_stage(settings: IngestSettings, seconds: float) -> Stage[Recording, Looked]:
    """The work on one recording."""

    def setup(_: object) -> Callable[[Recording, Advance], Looked]:
        return lambda recording, advance: look(recording, settings, seconds, advance)

    return Stage("audit", setup)


def look(
    recording: Recording, settings: IngestSettings, seconds: float, advance: Advance
) -> Looked:
    """Open one recording and measure it.

    Raises:
        RefusedInput: it cannot be read, or has no pictures or no actions.
    """
    source = open_as_set(recording, settings)
    if source.pictureless or source.actions is None or not len(source.actions.times_ns):
        what = "pictures" if source.pictureless else "actions"
        raise RefusedInput(Reason.NO_FRAMES, f"has no {what}, so there is nothing to compare")
    times_ns = source.frame_times_ns
    length_s = (source.frame_end_ns - int(times_ns[0])) / SECOND_NS
    picks = stretches(times_ns, seconds)
    motion, pairs = seen(source, picks, advance)
    if not len(motion):
        raise RefusedInput(Reason.NO_FRAMES, "has fewer than two frames to compare")
    signals = signals_of(source.actions)
    starts = (times_ns[pairs] - signals.start_ns) / SECOND_NS
    ends = (times_ns[pairs + 1] - signals.start_ns) / SECOND_NS
    spans = Spans(starts, ends, np.diff(pairs, prepend=-2) == 1)
    zero_s = -signals.start_ns / SECOND_NS
    measured = measure(motion, spans, signals, source.actions.space, zero_s)
    return Looked(measured, length_s, recording.provenance.game)


def stretches(times_ns: Nanos, seconds: float) -> Index:
    """The frames to look at, int64 [K]: all, or STRETCHES runs of frames spread over the recording.

    Args:
        times_ns: of all frames, int64 [N].
        seconds: about how much is looked at; 0: all of it.
    """
    total_s = (int(times_ns[-1]) - int(times_ns[0])) / SECOND_NS
    if not seconds or total_s <= 1.25 * seconds:
        return np.arange(len(times_ns), dtype=np.int64)
    length = seconds / STRETCHES
    begins = np.linspace(0, total_s - length, STRETCHES)
    since_s = (times_ns - times_ns[0]) / SECOND_NS
    inside = [(since_s >= begin) & (since_s < begin + length) for begin in begins]
    return np.flatnonzero(np.any(inside, axis=0)).astype(np.int64)


def seen(source: OpenRecording, picks: Index, advance: Advance) -> tuple[Motion, NDArray[np.int64]]:
    """The motion between picked frames that follow one another.

    Returns:
        The motion of M pairs, and the first frame of each pair, int64 [M].
    """

    def counted() -> Iterator[NDArray[np.uint8]]:
        for batch in source.frames(picks, SIZE, fit="stretch", batch=BATCH, threads=1):
            advance(len(batch))
            yield batch

    motion = motion_of(counted())
    lost = np.isin(picks, source.lost_frames())
    good = (np.diff(picks) == 1) & ~lost[1:] & ~lost[:-1]
    return motion.only(good), picks[:-1][good]
