"""One recording explained, taken or refused: what was found, how it was understood, what to write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wham_data.corpus import Corpus
from wham_data.corpus.storage.sources.at_hand import at_hand
from wham_data.files.whole import written_whole
from wham_data.pipelines.align import place_steps, typical_interval
from wham_data.pipelines.ingest.corpus_settings import columns_there, corpus_info, tokenizer_of
from wham_data.pipelines.ingest.decoder_process import DecoderDied
from wham_data.pipelines.ingest.intake.inputs import Found, Refusal
from wham_data.pipelines.ingest.plan import planned
from wham_data.pipelines.ingest.settings import IngestChoices, IngestSettings
from wham_data.pipelines.ingest.shown.explain_log import (
    LogExplained,
    explained_log,
    metadata_text,
    rows_on_video_clock,
)
from wham_data.pipelines.ingest.stages import open_found, place_recording
from wham_data.pipelines.readers.kit.open_recordings import read_video
from wham_data.pipelines.readers.video_log.log_metadata import (
    LogMetadata,
    load_named_space,
)
from wham_data.pipelines.readers.video_log.neighbours import JSON_LOG_ENDINGS, LOG_ENDINGS
from wham_data.pipelines.readers.video_log.reader import LogFiles, VideoLog
from wham_data.pipelines.video import VideoIndex
from wham_data.schemas.actions import NO_ACTIONS, ActionSpace, load_space
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.errors import (
    NoInputsError,
    Reason,
    RefusedInput,
    UsageError,
    printable,
)
from wham_data.schemas.recording import OpenRecording, Recording

MOST_EXPLAINED: Final = 16
NOT_OPENED_HERE: Final = (Reason.DECODER_CRASHED, Reason.DECODER_HUNG, Reason.OUT_OF_MEMORY)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A recording as it was understood.

    source         what it is called
    sections       (title, lines) in order
    refused        why it is not taken; None: it is
    reason         the code of that
    metadata       text of a metadata file that says the same; None: it is no log beside a video
    metadata_path  where that would lie; None: there is metadata already, or it may not be written here
    """

    source: str
    sections: tuple[tuple[str, tuple[str, ...]], ...]
    refused: str | None
    reason: str | None
    metadata: str | None = None
    metadata_path: Path | None = None


def explain(
    sources: Sequence[str | Path],
    settings: IngestSettings,
    choices: IngestChoices,
    out: str | Path | None = None,
) -> list[Explanation]:
    """Explain recordings without writing anything. See `ingest` for the settings.

    A log without a video is explained as far as it goes alone.

    Args:
        sources, settings, choices: what the ingest would be given.
        out: the corpus that the recordings would go to; None: none in particular.

    Raises:
        NoInputsError: no recording was found.
        UsageError: there are more than 16, or an ingest would refuse the settings.
        MismatchError: the corpus was made with other settings.
    """
    tokenizer_of(settings)
    try:
        plan = planned(sources, settings, choices)
    except NoInputsError:
        logs = [Path(source) for source in sources if is_log(Path(source))]
        if len(logs) < len(sources):
            raise
        return [_log_alone(path, settings) for path in logs[:MOST_EXPLAINED]]
    if plan.counts.found > MOST_EXPLAINED:
        raise UsageError(
            f"{plan.counts.found} recordings; --explain shows at most {MOST_EXPLAINED}: name a file of one"
        )
    space = settings.space
    columns = None if out is None else columns_there(out, choices.player_key)
    if out is not None and columns is not None:
        info = corpus_info(columns, settings, choices.reader, choices.player_key)
        if info is not None:
            space = Corpus.open_or_create(out, info).info.action_space
    return [
        *(explained(found, settings, space) for found in plan.to_do),
        *(_refused_unopened(refusal) for refusal in plan.refused),
    ]


def write_metadata(explanation: Explanation) -> Path:
    """Write the metadata of an explained recording beside it.

    Raises:
        UsageError: there is some already, or nothing can be said.
    """
    path = explanation.metadata_path
    if path is None or explanation.metadata is None:
        raise UsageError(
            f"{explanation.source}: no metadata to write; there is some already, its format has none, or it is "
            "on an object store"
        )
    with written_whole(path) as beside:
        beside.write_text(explanation.metadata, "utf-8")
    return path


def explained(found: Found, settings: IngestSettings, space: ActionSpace | None) -> Explanation:
    """One recording that was found.

    Args:
        found: the recording.
        settings: of the ingest.
        space: action space of the corpus; None: that of the recording.
    """
    recording, laid_out = at_hand(found.recording)
    files = [f"{path.name}: {path.stat().st_size} bytes" for path in recording.files]
    files += [f"{path.name}: not used" for path in recording.companions]
    sections = [("recording", (f"read as {recording.format}", *files))]
    source, why = _opened(found, settings, space)
    index = (
        None if why is not None and why.reason in NOT_OPENED_HERE else _index(recording, settings)
    )
    if index is not None:
        sections.append(("video", _video_lines(index)))
    log: LogExplained | None = None
    if recording.format == VideoLog.name:
        video_ns = None if index is None else index.end_ns - int(index.times_ns[0])
        log = _log_of(recording, settings, video_ns)
        sections.append(("log", tuple(log.lines)))
    if source is not None:
        sections += _opened_sections(source, settings)
    notes = source.notes if source is not None else why.notes if why is not None else ()
    if notes:
        sections.append(("notes", notes))
    offset_ns = source.clock.offset_ns if source is not None else 0
    path = recording.path.with_suffix(".toml")
    # A session of several files is not named as its video, and metadata turn a column of tics off.
    has_metadata = len(recording.files) > 2 or path.exists()
    has_metadata |= log is not None and log.ticking and why is None
    return Explanation(
        source=found.recording.source,
        sections=tuple(sections),
        refused=None if why is None else why.message,
        reason=None if why is None else str(why.reason),
        metadata=None
        if log is None or (has_metadata and why is None)
        else metadata_text(log, offset_ns, notes),
        metadata_path=None if log is None or has_metadata or laid_out is not None else path,
    )


def is_log(path: Path) -> bool:
    """Whether a file has the ending of a log beside a video."""
    return path.name.lower().endswith(LOG_ENDINGS + JSON_LOG_ENDINGS) and path.is_file()


def _log_alone(path: Path, settings: IngestSettings) -> Explanation:
    """A log that lies beside no video."""
    log = explained_log(path, LogMetadata(), settings.space, None)
    stem = path.name.partition(".")[0]
    return Explanation(
        str(path),
        (("log", tuple(log.lines)),),
        f"no video beside it; looked for {stem}.mp4 or the like",
        str(Reason.NOT_A_VIDEO),
    )


def _refused_unopened(refusal: Refusal) -> Explanation:
    return Explanation(refusal.path, (), refusal.why.message, str(refusal.why.reason))


def _opened(
    found: Found, settings: IngestSettings, space: ActionSpace | None
) -> tuple[OpenRecording | None, RefusedInput | None]:
    """The recording, and why it is refused, be it before it is open or after."""
    source: OpenRecording | None = None
    try:
        source = open_found(found, settings)
        own = load_space(NO_ACTIONS) if source.actions is None else source.actions.space
        place_recording(source, space or own, settings)
    except DecoderDied as why:
        return None, why
    except RefusedInput as why:
        return source, why
    return source, None


def _index(recording: Recording, settings: IngestSettings) -> VideoIndex | None:
    """Of the recording's video; None for a recording without one, and for one that cannot be read."""
    try:
        return read_video(recording.path, settings.limits)
    except RefusedInput:
        return None


def _video_lines(index: VideoIndex) -> tuple[str, ...]:
    """What the container holds."""
    picture, first_ns = index.picture, int(index.times_ns[0])
    promised = f", {index.promised_frames} promised" if index.promised_frames is not None else ""
    turned = (f"turned by {picture.rotation} degrees",) if picture.rotation else ()
    return (
        f"container {index.container}, stream {index.stream}: {index.codec}, "
        f"{picture.width}x{picture.height}, {picture.pixel_format}, {picture.bit_depth} bits, "
        f"{picture.matrix}",
        f"frames: {len(index.times_ns)} shown of {index.found_frames} found{promised}",
        f"clock: {first_ns / 1e9:.6f} to {index.end_ns / 1e9:.6f} s, "
        f"{float(index.average_rate):.3f} frames a second on average",
        *turned,
    )


def _log_of(recording: Recording, settings: IngestSettings, video_ns: int | None) -> LogExplained:
    """The log of a recording, in the space of its metadata or by its columns."""
    files = LogFiles.of(recording)
    log = files.log
    try:
        metadata = files.read_metadata()
        named = metadata.actions or dict(settings.options).get("space")
        space = load_named_space(files.metadata, named) if named else None
    except RefusedInput as why:
        return LogExplained([f"stops here: {why}"])
    by_columns = explained_log(log, metadata, space, video_ns, settings.log_space)
    if space is None and settings.space is not None and not by_columns.sure:
        return explained_log(log, metadata, settings.log_space, video_ns)
    return by_columns


def _opened_sections(
    source: OpenRecording, settings: IngestSettings
) -> list[tuple[str, tuple[str, ...]]]:
    """The clocks of an open recording, and the first and last rows of its actions on the video's."""
    times_ns, end_ns = source.frame_times_ns, source.frame_end_ns
    clock, track = source.clock, source.actions
    interval_ns = typical_interval(times_ns)
    rate = f"{SECOND_NS / interval_ns:.3f} frames a second" if interval_ns else "one frame"
    span = None if track is None else (int(track.times_ns[0]), track.end_ns)
    plans = place_steps(times_ns, end_ns, span, settings.rate, settings.max_gap_ns, source.cuts)
    steps = sum(len(plan.picks) for plan in plans)
    lines = [
        f"frames from {int(times_ns[0]) / 1e9:.6f} to {end_ns / 1e9:.6f} s, typically {rate}, "
        f"{'variable' if clock.variable_rate else 'constant'}; {clock.gaps} gaps, "
        f"{clock.duplicates} duplicates",
        f"the log's clock is {clock.offset_ns / 1e6:g} ms ahead, drift {clock.drift_ppm:g} ppm",
        f"{steps} steps in {len(plans)} episodes at {settings.rate or 'the rate of the frames'}"
        + (" Hz" if settings.rate else ""),
    ]
    if track is None:
        return [("clock", (*lines, "no actions are known"))]
    title = f"actions in {track.space.name}, on the video's clock"
    return [("clock", tuple(lines)), (title, tuple(rows_on_video_clock(track)))]


def explanation_text(explanation: Explanation) -> str:
    """An explanation as a person reads it."""
    lines = [printable(explanation.source)]
    for title, told in explanation.sections:
        lines += ["", title, *(f"  {printable(line)}" for line in told)]
    verdict = f"refused [{explanation.reason}]: {explanation.refused}"
    lines += ["", "taken" if explanation.refused is None else printable(verdict)]
    if explanation.metadata is not None:
        where = explanation.metadata_path
        title = f"for {where.name} (--write-metadata writes it)" if where else "as metadata"
        lines += ["", title, *(f"  {line}" for line in explanation.metadata.splitlines())]
    return "\n".join(lines)
