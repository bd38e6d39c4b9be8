"""Opens and decodes recordings in a separate process, so that a bad recording cannot crash the job.

    this process            decoder process (`decoder_child.py`)
    open a recording  --->  reads its clocks and its log with its reader
                      <---  what an `OpenedRecording` holds
    frames            --->  decodes
                      <---  pictures, PIECE_FRAMES at a time, one piece ahead at most
    (a thread)        <---  asks for bytes of files on an object store: decoder_bytes.py

The decoder process may allocate so much memory and no more, writes no file, sees no network where
the kernel lets it go without one, and is killed when it is silent for too long or takes too long
for what the recording holds. Whatever happens to it, that recording is refused and the next one
gets a fresh process. One that is well works on the next recording, and ends when it is left alone.

This protects against crashes, hangs and decompression bombs. It is not a sandbox: if a file tricks a
decoder into running code, that code has the rights of the user.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np

import wham_data
from wham_data.corpus.storage.sources.at_hand import LaidOut, at_hand, told_refusal, told_text
from wham_data.files import elsewhere
from wham_data.pipelines.ingest.decoder_bytes import BytesServer
from wham_data.pipelines.readers.kit.open_recordings import OpenedRecording
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.clock import SECOND_NS, Index
from wham_data.schemas.errors import Reason, RefusedInput, UsageError, WhamDataError
from wham_data.schemas.mask import Mask
from wham_data.schemas.recording import Fit, Frames, Recording

START_SECONDS: Final = 90.0
IDLE_SECONDS: Final = 10.0
SOON_SECONDS: Final = 1.0
GRACE_SECONDS: Final = 30.0
INDEX_BYTES_PER_SECOND: Final = 20e6
PIECE_FRAMES: Final = 8
RECORDINGS_EACH: Final = 200
"""After this many recordings a decoder process is replaced, because it may leak memory."""
SMALLEST_MEMORY_MB: Final = 256
MOST_IDLE: Final = 1

CHILD = "wham_data.pipelines.ingest.decoder_child"
# One thread each for what would start one per core and reserve memory for all of them; memory that
# is only reserved would count as taken.
QUIET: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """The limits of memory and time for one recording, above which it is refused.

    memory_mb  memory that the decoder process may allocate, in MB
    slowness   seconds that decoding may take for each second of the recording, after the first
               GRACE_SECONDS; time in which pictures wait to be taken does not count
    silence_s  seconds without a picture after which it counts as hung
    Time in which other processes use the CPUs does not count in either limit.
    """

    memory_mb: int = 1500
    slowness: float = 10.0
    silence_s: float = 25.0

    def __post_init__(self) -> None:
        if self.memory_mb < SMALLEST_MEMORY_MB:
            raise UsageError(
                f"{self.memory_mb} MB for decoding: expected at least {SMALLEST_MEMORY_MB}"
            )
        if not self.slowness > 0:
            raise UsageError(f"decoding may take {self.slowness:g} x the length: expected more")


@dataclass(frozen=True, slots=True)
class FileState:
    """The values by which a changed file is recognised."""

    n_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, recording: Recording) -> tuple[FileState, ...]:
        """Of each file of a recording.

        Raises:
            RefusedInput: UNREADABLE, one of them is gone.
        """
        try:
            found = [path.stat() for path in recording.files]
        except OSError as error:
            raise RefusedInput(Reason.UNREADABLE, f"cannot be read: {error.strerror}") from error
        return tuple(cls(file.st_size, file.st_mtime_ns) for file in found)


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A recording to open, and the arguments of `readers.open_recording`."""

    recording: Recording
    limits: VideoLimits
    max_gap_ns: int
    options: tuple[tuple[str, str], ...]
    masks: tuple[Mask, ...]
    decoding: DecodeLimits
    files: tuple[FileState, ...]
    target: ActionSpace | None = None
    placeholders: tuple[tuple[Path, int], ...] = ()
    """Files whose bytes come from a store (see `decoder_bytes`), and their sizes."""

    @property
    def seconds(self) -> float:
        """How long opening it may take: an index is made by reading the file."""
        n_bytes = sum(file.n_bytes for file in self.files)
        return self.decoding.silence_s + n_bytes / INDEX_BYTES_PER_SECOND


@dataclass(frozen=True, slots=True)
class FramesRequest:
    """The arguments of `OpenRecording.frames`, for the recording that was opened last."""

    picks: Index
    size: tuple[int, int]
    fit: Fit
    batch: int
    threads: int


@dataclass(frozen=True, slots=True)
class Pictures:
    """Announces a message of `count` pictures."""

    count: int


class DecoderDied(RefusedInput):
    """The decoder process ended while it worked on a recording: worth another try."""

    def __init__(self, how: str) -> None:
        super().__init__(Reason.DECODER_CRASHED, f"crashes the decoder process ({how})")


def open_isolated(
    recording: Recording,
    limits: VideoLimits,
    max_gap_ns: int,
    options: tuple[tuple[str, str], ...],
    masks: tuple[Mask, ...],
    decoding: DecodeLimits,
    target: ActionSpace | None = None,
    *,
    whole: bool = False,
) -> IsolatedRecording:
    """Open a recording in a decoder process. See `readers.open_recording`.

    Args:
        recording, limits, max_gap_ns, options, masks, target: see there.
        decoding: the limits of the process.
        whole: fetch the files of an object store whole before they are read.

    Raises:
        RefusedInput: with the reason it goes to quarantine for; `DecoderDied` where it took the
            process with it.
        WhamDataError: no decoder process starts, the reader misses an optional part, or a store does
            not answer.
    """
    recording, laid_out = at_hand(recording, whole=whole)
    files = FileState.of(recording)
    found = ((path, elsewhere.remote_of(path)) for path in recording.files)
    placeholders = tuple((path, remote.n_bytes) for path, remote in found if remote is not None)
    request = OpenRequest(
        recording, limits, max_gap_ns, options, masks, decoding, files, target, placeholders
    )
    with _speaking_of_objects(laid_out), _borrowed() as decoder:
        facts = decoder.open(request)
    if laid_out is not None:
        facts = {**facts, "notes": tuple(map(told_text, facts["notes"]))}
    return IsolatedRecording(**facts, request=request, laid_out=laid_out)


@contextmanager
def _speaking_of_objects(laid_out: LaidOut | None) -> Iterator[None]:
    """Let refusals in this block name objects, not the places where they are laid out."""
    try:
        yield
    except DecoderDied:
        raise
    except RefusedInput as why:
        raise why if laid_out is None else told_refusal(why) from None


@dataclass(slots=True, kw_only=True)
class IsolatedRecording(OpenedRecording):
    """A recording whose data was read. `frames` gets its pictures from a decoder process."""

    request: OpenRequest
    laid_out: LaidOut | None = None
    pictureless: bool = False

    def frames(
        self, picks: Index, size: tuple[int, int], *, fit: Fit, batch: int, threads: int
    ) -> Iterator[Frames]:
        """The picked frames in order; see `OpenRecording.frames`."""
        length_s = (self.frame_end_ns - int(self.frame_times_ns[0])) / SECOND_NS
        seconds = GRACE_SECONDS + self.request.decoding.slowness * length_s
        request = FramesRequest(picks, size, fit, math.gcd(batch, PIECE_FRAMES), threads)
        with _speaking_of_objects(self.laid_out), _borrowed() as decoder:
            decoder.open(self.request)
            waiting: list[Frames] = []
            for piece in decoder.frames(request, self.request.decoding.silence_s, seconds):
                if sum(map(len, waiting)) + len(piece) > batch:
                    yield np.concatenate(waiting)
                    waiting = []
                waiting.append(piece)
            if waiting:
                yield np.concatenate(waiting)
            self._lost = decoder.lost


FACTS: Final = tuple(each.name for each in fields(OpenedRecording) if not each.name.startswith("_"))
"""What the decoder process sends about an opened recording."""


class DecoderProcess:
    """One decoder process, which works on one request at a time."""

    def __init__(self) -> None:
        # Wherever this process has found its packages, the other must find them.
        paths = [*filter(None, sys.path), str(Path(wham_data.__file__).absolute().parents[1])]
        (ours, theirs), (ours_of_bytes, theirs_of_bytes) = socket.socketpair(), socket.socketpair()
        with theirs, theirs_of_bytes:
            fds = [theirs.fileno(), theirs_of_bytes.fileno()]
            try:
                self._process = subprocess.Popen(
                    # -P: never import from the folder one happens to be in.
                    [sys.executable, "-P", "-m", CHILD, *map(str, fds)],
                    env={**os.environ, **QUIET, "PYTHONPATH": os.pathsep.join(paths)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=fds,
                    start_new_session=True,  # Ctrl-C is for the command, which decides
                )
            except OSError as error:
                ours.close()
                ours_of_bytes.close()
                raise WhamDataError(
                    f"{sys.executable}: no decoder process can be started: {error.strerror}"
                ) from error
        self._connection = Connection(ours.detach())
        self._bytes = BytesServer(Connection(ours_of_bytes.detach()), self._process.kill)
        self._started = False
        self._busy = False
        self._opened: OpenRequest | None = None
        self._facts: dict[str, Any] = {}
        self._count = 0
        self._worked_s = 0.0
        self._last_use = time.monotonic()
        self._cpu_at_start_s = 0.0
        self.lost: Index = np.zeros(0, np.int64)
        _living[self._process.pid] = self

    @property
    def is_ready(self) -> bool:
        """Whether it can be given another recording."""
        idle = time.monotonic() - self._last_use
        at_rest = not self._busy and self._count < RECORDINGS_EACH
        return at_rest and idle < IDLE_SECONDS / 2 and self._process.poll() is None

    def open(self, request: OpenRequest) -> dict[str, Any]:
        """What the reader makes of a recording, by name: the FACTS."""
        if self._opened != request:
            self._opened = None
            self._count += 1
            if request.placeholders:
                self._bytes.start()
            self._ask(request)
            self._facts = self._answer(request.seconds)
            self._opened = request
        return self._facts

    def frames(self, request: FramesRequest, silence_s: float, seconds: float) -> Iterator[Frames]:
        """Pictures of the opened recording, uint8 [B, H, W, 3]; at the end `lost` is known."""
        width, height = request.size
        self._ask(request)
        worked = self._worked_s
        while True:
            answer = self._answer(silence_s)
            if self._worked_s - worked > seconds:
                raise _hung(f"takes longer than {seconds:.0f} s")
            if not isinstance(answer, Pictures):
                self.lost = answer
                return
            pictures = np.empty((answer.count, height, width, 3), np.uint8)
            self._receive_into(pictures)
            yield pictures

    @property
    def cpu_s(self) -> float:
        """CPU seconds that it has worked, without its start; 0 before the start and after the end."""
        if not self._started or self._process.poll() is not None:
            return 0.0
        return _cpu_s(self._process.pid) - self._cpu_at_start_s

    def kill(self) -> None:
        """End the process at once."""
        _living.pop(self._process.pid, None)
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def _ask(self, request: OpenRequest | FramesRequest) -> None:
        if not self._started:
            self._start()
        self._busy = True
        with self._alive():
            self._connection.send(request)

    def _start(self) -> None:
        self._busy = True
        try:
            if not self._connection.poll(START_SECONDS):
                raise WhamDataError(f"the decoder process is not ready after {START_SECONDS:g} s")
            self._connection.recv()
        except (EOFError, OSError) as error:
            raise WhamDataError(
                f"the decoder process ended while it started ({self._end()}); "
                f"{sys.executable} -m {CHILD} must be able to run"
            ) from error
        self._started, self._busy = True, False
        self._cpu_at_start_s = _cpu_s(self._process.pid)

    def _answer(self, seconds: float) -> Any:
        """The next message of the decoder process. If it is an exception, it is raised here."""
        with self._alive():
            self._wait(seconds)
            answer = self._connection.recv()
        if isinstance(answer, Pictures):
            return answer
        # After running out of memory its state is uncertain, so it stays busy and is replaced.
        if not (isinstance(answer, RefusedInput) and answer.reason is Reason.OUT_OF_MEMORY):
            self._busy, self._last_use = False, time.monotonic()
        if isinstance(answer, WhamDataError):
            raise answer
        return answer

    def _wait(self, seconds: float) -> None:
        """Wait for a message. Time in which it waits for a CPU or for a store does not count."""
        begun, fetched_s = time.monotonic(), self._bytes.seconds
        if self._connection.poll(SOON_SECONDS):
            self._worked_s += time.monotonic() - begun
            return
        before = self._starved_s()

        def worked_s() -> float:
            more = (now - before.get(task, now) for task, now in self._starved_s().items())
            fetching_s = self._bytes.seconds - fetched_s
            return time.monotonic() - begun - max(more, default=0.0) - fetching_s

        left = seconds - SOON_SECONDS
        while not self._connection.poll(left):
            left = seconds - worked_s()
            if left <= 0:
                raise _hung(f"nothing came of it for {seconds:.0f} s")
        self._worked_s += worked_s()

    def _starved_s(self) -> dict[str, float]:
        """Seconds for which each thread of it was ready to run and had no CPU; {} where nobody counts."""
        found = {}
        with suppress(OSError, ValueError):  # a thread, or all of it, has just ended
            for thread in Path(f"/proc/{self._process.pid}/task").iterdir():
                waits_ns = int((thread / "schedstat").read_text().split()[1])
                found[thread.name] = waits_ns / SECOND_NS
        return found

    def _receive_into(self, pictures: Frames) -> None:
        with self._alive():
            self._connection.recv_bytes_into(pictures.reshape(-1).data)

    @contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            self._bytes.check()
            raise DecoderDied(self._end()) from error

    def _end(self) -> str:
        """How it ended, in words."""
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=GRACE_SECONDS)
            return signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return "no answer"


def _hung(how: str) -> RefusedInput:
    return RefusedInput(Reason.DECODER_HUNG, f"the decoder hangs: {how}")


def _cpu_s(pid: int) -> float:
    """CPU seconds of another process, by the clock that `man clock_getcpuclockid` tells of."""
    with suppress(OSError):  # it has just ended
        return time.clock_gettime(~pid << 3 | 2)
    return 0.0


_idle: Final[list[DecoderProcess]] = []
_living: Final[dict[int, DecoderProcess]] = {}
_idle_lock: Final = threading.Lock()
# A forked copy of this process must not talk to the decoders of the original.
os.register_at_fork(after_in_child=_idle.clear)
os.register_at_fork(after_in_child=_living.clear)


def decoders_cpu_s() -> dict[int, float]:
    """CPU seconds that each running decoder process of this one has worked, by its number."""
    return {pid: decoder.cpu_s for pid, decoder in [*_living.items()]}


def close_idle() -> None:
    """End the decoder process that waits for the next recording, instead of letting it time out."""
    with _idle_lock:
        while _idle:
            _idle.pop().kill()


@contextmanager
def _borrowed() -> Iterator[DecoderProcess]:
    """A decoder process for several requests. It is kept for reuse if it is still usable."""
    with _idle_lock:
        decoder = _idle.pop() if _idle else None
    if decoder is not None and not decoder.is_ready:
        decoder.kill()
        decoder = None
    decoder = decoder or DecoderProcess()
    try:
        yield decoder
    finally:
        with _idle_lock:
            keep = decoder.is_ready and len(_idle) < MOST_IDLE
            if keep:
                _idle.append(decoder)
        if not keep:
            decoder.kill()
