"""From one recording to one shard: open, place, decode, encode, write.

Every function here works on one recording and does not know where it runs. Only one batch of frames
is in memory at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.corpus.shards import ShardFile, shard_id
from wham_data.pipelines.align import (
    EpisodePlan,
    StepActions,
    account_frames,
    place_steps,
    refuse_slow_source,
    sum_over_steps,
    typical_fps,
)
from wham_data.pipelines.ingest.decoder_process import open_isolated
from wham_data.pipelines.ingest.encoder import Encoder, ImageTokens
from wham_data.pipelines.ingest.intake.identity import check_size, check_unchanged
from wham_data.pipelines.ingest.intake.inputs import Found
from wham_data.pipelines.ingest.log_in_space import ProjectedLog, project
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.run.runner import Advance
from wham_data.pipelines.time_blocks import Block, split_at, time_blocks, undivided, within
from wham_data.pipelines.video import encode_image
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.clock import SECOND_NS, Index, runs_of
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.errors import Reason, RefusedInput, noted
from wham_data.schemas.manifest import EpisodeRow
from wham_data.schemas.recording import ActionTrack, Frames, OpenRecording, Recording
from wham_data.schemas.steps import EpisodeSteps

BATCH_FRAMES = 32
HOUR_NS = 3600 * SECOND_NS
LOG_NOT_USED = "its log is not used (--actions none): no action is known"


@dataclass(frozen=True, slots=True)
class Ingested:
    """The result of ingesting one recording.

    episodes        its rows for the manifest; the split is assigned when they are committed
    notes           notes for the user
    hours           hours of play on the grid
    frames_in       distinct shown frames of the source = frames_used + the sum of frames_dropped
    frames_dropped  number of frames by reason
    bytes_written   size of its shard
    """

    episodes: tuple[EpisodeRow, ...]
    notes: tuple[str, ...]
    hours: float
    frames_in: int
    frames_used: int
    frames_dropped: dict[str, int]
    bytes_written: int

    @property
    def steps(self) -> int:
        """Number of its steps."""
        return sum(row.n_steps for row in self.episodes)


def ingest_recording(
    found: Found,
    encoder: Encoder | None,
    settings: IngestSettings,
    corpus: Corpus,
    advance: Advance,
    *,
    threads: int = 1,
) -> Ingested:
    """Bring one recording to the grid and write its shard.

    The result does not depend on the number of decoding threads.

    Raises:
        RefusedInput: with the reason it goes to quarantine for.
    """
    source = open_found(found, settings)
    check_unchanged(found)
    with noted(source.notes):
        return _ingest_open(found, source, encoder, settings, corpus, advance, threads)


def _ingest_open(
    found: Found,
    source: OpenRecording,
    encoder: Encoder | None,
    settings: IngestSettings,
    corpus: Corpus,
    advance: Advance,
    threads: int,
) -> Ingested:
    placed = place_recording(source, corpus.info.action_space, settings)
    log, blocks, whole, plans = placed.log, placed.blocks, placed.whole, placed.plans
    track = None if log is None else log.track
    times_ns, end_ns, span = source.frame_times_ns, source.frame_end_ns, placed.log_span
    lost: Index = np.zeros(0, np.int64)
    while True:
        try:
            shard, actions = _write(
                found, source, log, plans, encoder, settings, corpus, advance, threads
            )
            break
        except _FramesLost as loss:
            # Rare, so everything is done again, without the steps that show a lost frame.
            lost = np.union1d(lost, loss.frames)
            whole, plans = without_frames(whole, lost), without_frames(plans, lost)
    account = account_frames(times_ns, end_ns, span, whole, settings.max_gap_ns, lost, source.cuts)
    used = len(np.unique(np.concatenate([plan.picks for plan in plans])))
    between = {"between_splits": account.used - used} if account.used > used else {}
    shown = not source.pictureless
    cut = [] if log is None else log.cut_notes([plan.edges_ns for plan in plans])
    unused = () if source.actions is None or log is not None else (LOG_NOT_USED,)
    notes = (
        *source.notes,
        *_clamped(source.actions),
        *unused,
        *not_kept(source, corpus.info),
        *cut,
        *undivided(blocks, settings.split),
    )
    rows = episode_rows(found, source, track, plans, actions, shard, corpus.info, len(lost))
    return Ingested(
        episodes=tuple(
            replace(row, notes=notes, split=split_at(blocks, row.start_ns) if blocks else row.split)
            for row in rows
        ),
        notes=notes,
        hours=sum(int(plan.edges_ns[-1] - plan.edges_ns[0]) for plan in plans) / HOUR_NS,
        frames_in=account.frames_in if shown else 0,
        frames_used=used if shown else 0,
        frames_dropped={**account.dropped, **between} if shown else {},
        bytes_written=shard.n_bytes,
    )


@dataclass(frozen=True, slots=True)
class Placed:
    """The steps of an open recording.

    log       its log in the action space of the corpus; None: no action is known
    log_span  the log covers [first, end), in nanoseconds; None: there is no log
    whole     its steps, one plan or more
    blocks    what each split gets, if recordings are divided in time; else none
    plans     the steps that the corpus gets: those in a block
    """

    log: ProjectedLog | None
    log_span: tuple[int, int] | None
    whole: tuple[EpisodePlan, ...]
    blocks: tuple[Block, ...]
    plans: tuple[EpisodePlan, ...]


def place_recording(source: OpenRecording, space: ActionSpace, settings: IngestSettings) -> Placed:
    """Convert the log of an open recording and place its steps.

    Args:
        source: with its clocks and its log read.
        space: action space of the corpus.
        settings: rate, longest gap, and how splits are made.

    Raises:
        RefusedInput: SPACE_MISMATCH, its actions do not convert; RATE_TOO_LOW, it has fewer frames
            per second than steps are wanted; TOO_SHORT, there is no whole step.
    """
    log = project(source.actions, space, settings)
    span = None if log is None else (int(log.track.times_ns[0]), log.track.end_ns)
    times_ns, end_ns = source.frame_times_ns, source.frame_end_ns
    refuse_slow_source(times_ns, settings.rate)
    whole = place_steps(times_ns, end_ns, span, settings.rate, settings.max_gap_ns, source.cuts)
    if not whole:
        raise RefusedInput(
            Reason.TOO_SHORT,
            f"{len(times_ns)} frames over {(end_ns - int(times_ns[0])) / SECOND_NS:.2f} s: "
            "too short for one whole step",
        )
    blocks = time_blocks(whole, settings.split) if settings.split_by == "time" else ()
    return Placed(log, span, whole, blocks, within(whole, blocks) if blocks else whole)


class _FramesLost(Exception):
    """Some of the frames that a shard needs did not decode, so it must not be published."""

    def __init__(self, frames: Index) -> None:
        super().__init__(f"{len(frames)} frames did not decode")
        self.frames = frames


def open_found(found: Found, settings: IngestSettings) -> OpenRecording:
    """As `open_input`, for a recording whose size is known.

    Raises:
        RefusedInput: with the reason it goes to quarantine for.
    """
    source = open_input(found.recording, settings)
    # From here on the decoder notices changes; before, the recording was only listed and hashed.
    check_size(found)
    return source


def open_as_set(recording: Recording, settings: IngestSettings) -> OpenRecording:
    """Open a recording with the limits and options of an ingest. See `open_isolated`."""
    return open_isolated(
        recording,
        settings.limits,
        settings.max_gap_ns,
        settings.options,
        settings.masks,
        settings.decoding,
        settings.log_space,
        whole=settings.stage,
    )


def open_input(recording: Recording, settings: IngestSettings) -> OpenRecording:
    """A recording with its clocks and its log read.

    Raises:
        RefusedInput: with the reason it goes to quarantine for.
    """
    source = open_as_set(recording, settings)
    if source.pictureless and (settings.tokenizer is not None or settings.frames != "none"):
        raise RefusedInput(
            Reason.NO_FRAMES,
            "actions without pictures: take them with --tokenizer none and --frames none",
        )
    return source


def _write(
    found: Found,
    source: OpenRecording,
    log: ProjectedLog | None,
    plans: Sequence[EpisodePlan],
    encoder: Encoder | None,
    settings: IngestSettings,
    corpus: Corpus,
    advance: Advance,
    threads: int,
) -> tuple[ShardFile, list[StepActions]]:
    """Decode, encode and write the steps of `plans` as one shard.

    Raises:
        _FramesLost: some did not decode; nothing is written.
        RefusedInput: too many did not.
    """
    actions = [
        no_actions(corpus.info.action_space, len(plan.picks))
        if log is None
        else log.over_steps(plan.edges_ns, settings.axis_rule)
        for plan in plans
    ]
    batches = (
        _bare_batches(plans)
        if source.pictureless
        else _encoded_batches(source, plans, encoder, settings, threads)
    )
    facts = [step_facts(source, plan, corpus.info) for plan in plans]
    pieces = _pieces(found, plans, actions, facts, batches, advance)
    return corpus.write_shard(pieces, shard_id([found.key], corpus.info.settings_hash)), actions


@dataclass(frozen=True, slots=True)
class _Batch:
    """Steps [start, start + B) of a recording, counted over all its episodes."""

    start: int
    count: int
    tokens: ImageTokens | None
    images: list[bytes] | None


def _encoded_batches(
    source: OpenRecording,
    plans: Sequence[EpisodePlan],
    encoder: Encoder | None,
    settings: IngestSettings,
    threads: int,
) -> Iterator[_Batch]:
    """The steps' pictures, decoded once, as tokens and as coded images, in order.

    Raises:
        _FramesLost: at the end, when what was decoded is known.
    """
    picks = np.concatenate([plan.picks for plan in plans])
    waiting: deque[_Batch] = deque()

    def decoded() -> Iterator[Frames]:
        batches = source.frames(
            picks, settings.size, fit=settings.fit, batch=BATCH_FRAMES, threads=threads
        )
        start = 0
        for frames in batches:
            images = None
            if settings.frames != "none":
                images = [encode_image(frame, settings.frames) for frame in frames]
            waiting.append(_Batch(start, len(frames), None, images))
            start += len(frames)
            yield frames

    if encoder is None:
        for _ in decoded():
            yield waiting.popleft()
    else:
        for tokens in encoder.stream(decoded()):
            yield replace(waiting.popleft(), tokens=tokens)
    if len(lost := source.lost_frames()):
        raise _FramesLost(lost)


def _bare_batches(plans: Sequence[EpisodePlan]) -> Iterator[_Batch]:
    """The steps of a source without pictures."""
    total = sum(len(plan.picks) for plan in plans)
    for start in range(0, total, BATCH_FRAMES):
        yield _Batch(start, min(BATCH_FRAMES, total - start), None, None)


@dataclass(frozen=True, slots=True)
class StepFacts:
    """The data of the steps of an episode besides pictures and actions.

    state   float32 [T, S]  of the frame on screen at t_k
    reward  float32 [T]     sum of the rewards in [t_k, t_{k+1})
    text    T texts         of the frame on screen at t_k
    None if the source does not have the data, or the corpus does not keep it.
    """

    state: NDArray[np.float32] | None
    reward: NDArray[np.float32] | None
    text: Sequence[str | None] | None


def step_facts(source: OpenRecording, plan: EpisodePlan, info: CorpusInfo) -> StepFacts:
    """The data of the source that the corpus keeps, step by step."""
    states, rewards, texts = source.states, source.rewards, source.texts
    if states is not None and states.shape[1] != info.state_size:
        states = None
    return StepFacts(
        state=None if states is None else states[plan.picks],
        reward=None
        if rewards is None or not info.reward
        else sum_over_steps(source.frame_times_ns, rewards, plan.edges_ns),
        text=None
        if texts is None or not info.text
        else [texts[pick] for pick in plan.picks.tolist()],
    )


def _clamped(track: ActionTrack | None) -> tuple[str, ...]:
    """A note on values that were moved into their range."""
    if track is None or not track.clamped:
        return ()
    return (f"{track.clamped} values of actions were out of their range and moved to its edge",)


def not_kept(source: OpenRecording, info: CorpusInfo) -> tuple[str, ...]:
    """Notes on data of the source for which the corpus has no column."""
    notes = []
    if source.states is not None and (size := source.states.shape[1]) != info.state_size:
        notes.append(
            f"state of {size} numbers not kept, the corpus holds {info.state_size or 'none'}"
        )
    if source.rewards is not None and not info.reward:
        notes.append("reward not kept, the corpus holds none")
    if source.texts is not None and not info.text:
        notes.append("text not kept, the corpus holds none")
    return tuple(notes)


def _pieces(
    found: Found,
    plans: Sequence[EpisodePlan],
    actions: Sequence[StepActions],
    facts: Sequence[StepFacts],
    batches: Iterator[_Batch],
    advance: Advance,
) -> Iterator[EpisodeSteps]:
    """Cut the batches where episodes begin, and add times and actions."""
    ends = np.cumsum([len(plan.picks) for plan in plans])
    for batch in batches:
        start, stop = batch.start, batch.start + batch.count
        while start < stop:
            number = int(np.searchsorted(ends, start, side="right"))
            end = min(stop, int(ends[number]))
            base = int(ends[number]) - len(plans[number].picks)
            steps = slice(start - base, end - base)
            rows = slice(start - batch.start, end - batch.start)
            fact = facts[number]
            yield EpisodeSteps(
                episode=episode_name(found.key, number),
                first_step=start - base,
                time_ns=plans[number].edges_ns[:-1][steps],
                actions=actions[number].values[steps],
                action_known=actions[number].known[steps],
                tokens=None if batch.tokens is None else batch.tokens[rows],
                frames=None if batch.images is None else batch.images[rows],
                state=None if fact.state is None else fact.state[steps],
                reward=None if fact.reward is None else fact.reward[steps],
                text=None if fact.text is None else fact.text[steps],
            )
            start = end
        advance(batch.count)


def episode_name(key: str, number: int) -> str:
    """Name of the number-th episode of a recording."""
    return f"{key[:24]}-{number}"


def episode_rows(
    found: Found,
    source: OpenRecording,
    track: ActionTrack | None,
    plans: Sequence[EpisodePlan],
    actions: Sequence[StepActions],
    shard: ShardFile,
    info: CorpusInfo,
    lost: int,
) -> tuple[EpisodeRow, ...]:
    """A recording's rows for the manifest; their split is assigned later."""
    who = found.recording.provenance
    return tuple(
        EpisodeRow(
            episode=where.episode,
            recording=found.key,
            source=found.recording.source,
            format=found.recording.format,
            shard=shard.name,
            shard_sha256=shard.sha256,
            row_start=where.start,
            n_steps=where.n_steps,
            split="train",
            settings=info.settings_hash,
            game=who.game,
            map=who.map,
            match=who.match,
            player=who.player,
            subject=who.subject,
            license=who.license,
            start_ns=int(plan.edges_ns[0]),
            source_fps=typical_fps(source.frame_times_ns),
            clock=replace(source.clock, frames_found=source.clock.frames_found - lost),
            clamped=0 if track is None else track.clamped,
            missing_actions=action.missing,
            tokenizer=info.tokenizer.fingerprint if info.tokenizer else None,
        )
        for where, plan, action in zip(shard.episodes, plans, actions, strict=True)
    )


def no_actions(space: ActionSpace, n_steps: int) -> StepActions:
    """The actions of a source without a log: all are unknown."""
    values = np.full((n_steps, space.size), np.nan, np.float32)
    return StepActions(values, np.zeros(n_steps, np.bool_), n_steps)


def without_frames(plans: Sequence[EpisodePlan], lost: Index) -> tuple[EpisodePlan, ...]:
    """The plans, cut where a step shows a lost frame. The other steps stay the same.

    Raises:
        RefusedInput: no step is left.
    """
    kept = []
    for plan in plans:
        good = ~np.isin(plan.picks, lost)
        kept += [
            EpisodePlan(plan.edges_ns[start : stop + 1], plan.picks[start:stop])
            for start, stop in runs_of(good)
        ]
    if not kept:
        raise RefusedInput(Reason.CORRUPT, f"none of the {len(lost)} frames it needs decodes")
    return tuple(kept)
