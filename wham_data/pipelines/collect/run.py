"""`collect`: make recordings of an engine, several at a time, each in a process of its own.

Engines keep global state, write files to the folder in which they run, and sometimes crash. So every
recording has its own process and scratch folder, and a crash costs that recording alone. A recording
is complete when its NAME.toml is there; a run makes those that are missing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from wham_data.pipelines.collect.engine import EngineKind, Start
from wham_data.pipelines.collect.policies import Policy
from wham_data.pipelines.collect.recorder import PARTIAL, Recorded, Session, record
from wham_data.pipelines.collect.report import (
    ActionShare,
    CollectProgress,
    CollectReport,
    FailedRecording,
)
from wham_data.pipelines.run.progress import Event, ProgressListener
from wham_data.schemas.errors import MismatchError, UsageError, WhamDataError

STALL_S: Final = 300.0
"""A game that plays no tic for this time is stopped."""
MOST_RECORDINGS: Final = 100_000
FAILED: Final = "engine_failed"
"""The reason code of a recording that failed; the message says more."""
OUTPUT: Final = "output.txt"
LAST_BYTES: Final = 2000


@dataclass(frozen=True, slots=True)
class CollectSettings:
    """What to record. Times are in seconds.

    scenario   map, level or game, as the engine names it
    seconds    duration of play in all recordings together
    policy     how the player chooses actions
    episode_s  duration of play in one recording; the last may be shorter
    seed       seed of the first recording; each next recording has the next number
    size       width and height in pixels; None: the engine's default
    fps        frames per second of the videos; None: one frame per tic
    hold_s     duration of the shortest and the longest hold
    beat_s     see `Pace.of`
    shares     action -> its share of the time, if it differs from the default
    """

    scenario: str
    seconds: Fraction
    policy: Policy = "held"
    episode_s: Fraction = Fraction(60)
    seed: int = 0
    size: tuple[int, int] | None = None
    fps: Fraction | None = None
    hold_s: tuple[Fraction, Fraction] = (Fraction(1, 5), Fraction(3, 2))
    beat_s: Fraction | None = None
    shares: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        low, high = self.hold_s
        if not 0 < low <= high:
            raise UsageError(
                f"--hold {float(low):g}-{float(high):g}: expected one time above 0, or a range"
            )
        if self.seconds <= 0 or self.episode_s <= 0:
            raise UsageError("the minutes to record and the seconds of an episode must be above 0")
        if self.seconds / self.episode_s > MOST_RECORDINGS:
            raise UsageError(f"more than {MOST_RECORDINGS} recordings in one run")

    def sessions(self, kind: EngineKind) -> list[Session]:
        """The recordings to make."""
        sessions = []
        for number in range(-(-self.seconds // self.episode_s)):
            start = Start(self.scenario, self.seed + number, self.size, self.policy == "scripted")
            seconds = min(self.episode_s, self.seconds - number * self.episode_s)
            sessions.append(
                Session(
                    kind,
                    start,
                    self.policy,
                    seconds,
                    self.fps,
                    self.hold_s,
                    self.beat_s,
                    self.shares,
                )
            )
        return sessions


def run_collect(
    kind: EngineKind,
    settings: CollectSettings,
    out: Path,
    *,
    parallel: int,
    watch: ProgressListener,
) -> CollectReport:
    """Make those recordings of the settings that are missing.

    Args:
        kind: the engine.
        settings: what to record.
        out: folder for the recordings; made if it is missing.
        parallel: count of recordings to make at once.
        watch: receives progress and messages.

    Raises:
        MissingPartError: the engine is not installed.
        MismatchError: there is a recording of the same name with other settings.
        UsageError: the settings do not fit the engine, see `record`.
    """
    kind.check_installed()
    sessions = settings.sessions(kind)
    missing = [session for session in sessions if not is_there(session, out)]
    (out / PARTIAL).mkdir(parents=True, exist_ok=True)
    progress = CollectProgress(len(missing), float(sum(s.seconds for s in missing)))
    made: list[Recorded] = []
    failed: list[FailedRecording] = []
    for session, outcome in _side_by_side(missing, out, parallel, progress, watch):
        if isinstance(outcome, Recorded):
            made.append(outcome)
            progress.done += 1
            facts = {"frames": outcome.frames, "play_seconds": float(outcome.seconds)}
            event = Event(name="done", item=str(outcome.video), facts=facts)
            watch.message(f"{outcome.video}: {outcome.frames} frames", warning=False, event=event)
        else:
            failed.append(FailedRecording(session.name, outcome))
            progress.reasons[FAILED] += 1
            event = Event(name="failed", item=session.name, reason=FAILED)
            watch.message(f"{session.name}: {outcome}", warning=True, event=event)
        watch.progressed(progress)
    if not any((out / PARTIAL).iterdir()):
        (out / PARTIAL).rmdir()
    return CollectReport(
        out=str(out),
        engine=kind.name,
        scenario=settings.scenario,
        policy=settings.policy,
        found=len(sessions),
        made=len(made),
        already_there=len(sessions) - len(missing),
        failed=tuple(failed),
        minutes=float(sum(each.seconds for each in made)) / 60,
        frames=sum(each.frames for each in made),
        games=sum(each.games for each in made),
        actions=action_shares(made),
        seconds=progress.seconds,
    )


def is_there(session: Session, out: Path) -> bool:
    """Whether an earlier run made this recording.

    Raises:
        MismatchError: it did, with other settings.
    """
    path = out / f"{session.name}.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    try:
        found = tomllib.loads(text).get("collect", {})
    except tomllib.TOMLDecodeError:
        found = {}
    differences = [
        f"{name} {found.get(name, 'not stated')}, now {value}"
        for name, value in session.settings.items()
        if found.get(name) != value
    ]
    if differences:
        raise MismatchError(
            f"{path} was recorded with other settings ({'; '.join(differences)}). Use the same "
            "settings, another --seed, or another folder"
        )
    return True


def action_shares(recordings: Sequence[Recorded]) -> tuple[ActionShare, ...]:
    """The requested and the played share of each action, over all recordings together."""
    requested: dict[str, float] = {}
    tics: dict[str, int] = {}
    total: dict[str, int] = {}
    for played in (each for recording in recordings for each in recording.played):
        requested[played.name] = played.share
        tics[played.name] = tics.get(played.name, 0) + played.tics
        total[played.name] = total.get(played.name, 0) + played.of
    return tuple(
        ActionShare(name, share, tics[name] / max(total[name], 1))
        for name, share in requested.items()
    )


@dataclass(slots=True)
class _Child:
    """A process that makes one recording.

    last_message_s  monotonic time of its last message
    seconds         duration of play so far
    """

    session: Session
    process: BaseProcess
    pipe: Connection
    scratch: tempfile.TemporaryDirectory[str]
    last_message_s: float
    seconds: float = 0.0


Outcome = Recorded | str
"""A recording, or the reason why it failed."""


def _side_by_side(
    sessions: Sequence[Session],
    out: Path,
    parallel: int,
    progress: CollectProgress,
    watch: ProgressListener,
) -> Iterator[tuple[Session, Outcome]]:
    """Record the sessions, `parallel` at a time; yields each with its outcome when it ends."""
    waiting = list(reversed(sessions))
    children: list[_Child] = []
    try:
        while waiting or children:
            while waiting and len(children) < parallel:
                children.append(_started(waiting.pop(), out.resolve()))
            wait([child.pipe for child in children], timeout=1.0)
            for child in list(children):
                outcome = _received(child, progress)
                if outcome is None and time.monotonic() - child.last_message_s > STALL_S:
                    outcome = f"no tic played for {STALL_S:.0f} s: given up"
                if outcome is not None:
                    children.remove(child)
                    _end(child)
                    yield child.session, outcome
            watch.progressed(progress)
    finally:
        for child in children:
            _end(child)


def _started(session: Session, out: Path) -> _Child:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    scratch = tempfile.TemporaryDirectory(prefix="wham-data-collect-", ignore_cleanup_errors=True)
    process = context.Process(
        target=_record_here, args=(session, out, theirs, scratch.name), daemon=True
    )
    process.start()
    theirs.close()
    return _Child(session, process, ours, scratch, time.monotonic())


def _received(child: _Child, progress: CollectProgress) -> Outcome | None:
    """Read the messages of a child. Returns its outcome if it has ended, else None.

    Raises:
        UsageError: the child reports an error that makes every recording of the run impossible.
    """
    try:
        while child.pipe.poll():
            message = child.pipe.recv()
            child.last_message_s = time.monotonic()
            if isinstance(message, float):
                child.seconds += message
                progress.seconds_done += message
                continue
            if isinstance(message, WhamDataError):
                raise message
            outcome: Outcome = message
            if isinstance(outcome, str):
                progress.seconds_done -= child.seconds
            return outcome
    except EOFError:
        child.process.join()
        progress.seconds_done -= child.seconds
        return f"the engine crashed (exit code {child.process.exitcode}){_last_line(child)}"
    return None


def _last_line(child: _Child) -> str:
    """The last line that an engine printed before it died."""
    try:
        content = Path(child.scratch.name, OUTPUT).read_bytes()[-LAST_BYTES:]
    except OSError:
        return ""
    lines = content.decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1][:200]}" if lines else ""


def _end(child: _Child) -> None:
    if child.process.is_alive():
        child.process.terminate()
        child.process.join(5)
        child.process.kill()
    child.process.join()
    child.pipe.close()
    child.scratch.cleanup()


def _record_here(session: Session, out: Path, pipe: Connection, scratch: str) -> None:
    """The main function of a child: record, and send the progress and the outcome."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir(scratch)
    printed = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(printed, stream)
    try:
        pipe.send(record(session, out, pipe.send))
    except WhamDataError as error:
        pipe.send(error)
    except Exception as error:  # an engine may raise anything; only this recording fails
        pipe.send(f"{type(error).__name__}: {str(error)[:300]}")
