"""Measure how fast windows are read: by this package, a raw memory map, and other libraries.

Every reader runs in its own process, which imports everything before the first measurement. The
readers take turns, round by round, so that other work on the machine affects all of them equally.
This package and the memory map read the same windows of the whole corpus. Other libraries get an
easier task: windows that are stored one by one, without overlap, because overlapping windows would
need `length` times the disk space. The files that a reader reads are kept in memory meanwhile.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from wham_data.corpus.shard_view import matrix_of
from wham_data.feed.dataset import WindowDataset
from wham_data.feed.mapped_file import MappedFile
from wham_data.feed.windows import Numbers
from wham_data.schemas.errors import WhamDataError
from wham_data.schemas.steps import FLOAT, TOKEN

WARM_UP: Final = 8
"""Turns that are not counted, because the first reads also open shards and map pages."""
PATIENCE: Final = 20
"""A turn ends after this many times `Task.turn_s` at the latest."""
BYTE: Final = np.dtype(np.uint8)


@dataclass(frozen=True, slots=True)
class Task:
    """What all readers read.

    location    path or URL of the corpus
    length      steps in a window
    batch_size  windows in a batch
    stored      most windows that are stored for other libraries
    turn_s      seconds of CPU time that a turn lasts
    seed        seed of the shuffle
    """

    location: str
    length: int
    batch_size: int
    stored: int = 10_000
    turn_s: float = 0.5
    seed: int = 0

    def dataset(self, **changes: Any) -> WindowDataset:
        """The `WindowDataset` for this task; `changes` replace its settings.

        Raises:
            WhamDataError: see `WindowDataset`.
        """
        settings: dict[str, Any] = {
            "length": self.length,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "split": None,
            "unknown_actions": "keep",
            "epochs": None,
        }
        return WindowDataset(self.location, **{**settings, **changes})


class Reader(ABC):
    """One way to read windows; it runs in its own process.

    name   name for people
    needs  package that must be installed to measure it; None: no other package
    """

    name: ClassVar[str]
    needs: ClassVar[str | None] = None

    def __init__(self, task: Task, folder: Path) -> None:
        self.task, self.folder = task, folder

    @abstractmethod
    def prepare(self) -> None:
        """Write the files that the reader needs into its folder; not timed."""

    def files(self) -> list[Path]:
        """The files that the reader reads."""
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def by_number(self) -> tuple[int, Callable[[Numbers], object]] | None:
        """The number of windows, and a function that reads the batch of the given numbers, int64 [B].

        None if the library has no random access.
        """
        return None

    @abstractmethod
    def batches(self) -> Iterator[object]:
        """Endless shuffled batches, read through the DataLoader that the library recommends."""


class WhamData(Reader):
    """This package; it reads the shards of the corpus directly."""

    name = "wham-data"

    def prepare(self) -> None:
        """Nothing to prepare."""

    def files(self) -> list[Path]:
        """The shards."""
        shards = self.task.dataset().windows.shards
        return [shards.open(number).path for number in range(len(shards))]

    def by_number(self) -> tuple[int, Callable[[Numbers], object]] | None:
        """See `Reader`."""
        windows = self.task.dataset().windows
        return len(windows), windows.__getitem__

    def batches(self) -> Iterator[object]:
        """See `Reader`."""
        from torch.utils.data import DataLoader

        yield from DataLoader(self.task.dataset(), batch_size=None)


class MemoryMap(Reader):
    """The rows of all shards in two flat files, read in one numpy call or window by window."""

    name = "memory map"

    def prepare(self) -> None:
        """Copy the tokens and actions of all shards, and write the first row of each window.

        Raises:
            WhamDataError: the disk does not have enough free space.
        """
        windows = self.task.dataset().windows
        needed = sum(path.stat().st_size for path in WhamData(self.task, self.folder).files())
        if (free := shutil.disk_usage(self.folder).free) < needed:
            raise WhamDataError(
                f"{self.folder}: {free / 1e9:.1f} GB free, but the memory map needs "
                f"{needed / 1e9:.1f} GB; set TMPDIR to a folder on a larger disk"
            )
        first_rows, row = [], 0
        with ExitStack() as files:
            out = {
                name: files.enter_context((self.folder / name).open("wb"))
                for name in ("tokens", "actions")
            }
            for number in range(len(windows.shards)):
                view = windows.shards.open(number)
                first_rows.append(row)
                row += view.rows
                for _, table in view.read_rows(0, view.rows, list(out)):
                    for name, file in out.items():
                        file.write(matrix_of(table.column(name).combine_chunks(), BYTE).data)
        shard, first = windows.locate(np.arange(len(windows)))
        np.save(self.folder / "starts.npy", np.array(first_rows)[shard] + first)
        np.save(self.folder / "rows.npy", row)

    def by_number(self) -> tuple[int, Callable[[Numbers], object]] | None:
        """See `Reader`."""
        starts, tokens, actions = self._open()
        overlapping = [_overlapping(matrix, self.task.length) for matrix in (tokens, actions)]
        return len(starts), lambda numbers: [matrix[starts[numbers]] for matrix in overlapping]

    def batches(self) -> Iterator[object]:
        """Windows read one by one, converted to int64 and collated, as in nanoGPT."""
        from torch.utils.data import DataLoader

        windows: Any = _WindowsInMemoryMap(*self._open(), self.task.length)
        loader = DataLoader(windows, self.task.batch_size, shuffle=True)
        while True:
            yield from loader

    def _open(self) -> tuple[Numbers, NDArray[np.uint16], NDArray[np.float32]]:
        rows = int(np.load(self.folder / "rows.npy"))
        tokens = np.memmap(self.folder / "tokens", TOKEN, "r").reshape(rows, -1)
        actions = np.memmap(self.folder / "actions", FLOAT, "r").reshape(rows, -1)
        return np.load(self.folder / "starts.npy"), tokens, actions


@dataclass(frozen=True, slots=True)
class _WindowsInMemoryMap:
    starts: Numbers
    tokens: NDArray[np.uint16]
    actions: NDArray[np.float32]
    length: int

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, number: int) -> dict[str, Any]:
        rows = slice(self.starts[number], self.starts[number] + self.length)
        return {
            "tokens": self.tokens[rows].astype(np.int64),
            "actions": np.array(self.actions[rows]),
        }


def _overlapping(matrix: NDArray[Any], length: int) -> NDArray[Any]:
    """A view of every `length` neighbouring rows of a matrix, [rows - length + 1, length, numbers]."""
    plain = np.asarray(matrix).view(np.ndarray)
    shape = (len(plain) - length + 1, length, plain.shape[1])
    return as_strided(plain, shape, (plain.strides[0], *plain.strides), writeable=False)


OURS: Final[tuple[type[Reader], ...]] = (WhamData, MemoryMap)


@dataclass(frozen=True, slots=True)
class FeedFigures:
    """The figures of one reader: medians over the rounds; None for what it cannot do.

    name           name of the reader
    random         windows per second, in batches of random window numbers
    random_cpu     the same per second of CPU time; depends less on other work of the machine
    loader         windows per second, shuffled, through its DataLoader
    loader_cpu     the same per second of CPU time
    first_batch_s  seconds from opening the data to the first batch; imports are not counted
    memory_mb      largest private memory of its process, MiB
    failed         why it could not be measured; None: it was
    """

    name: str
    random: float | None = None
    random_cpu: float | None = None
    loader: float | None = None
    loader_cpu: float | None = None
    first_batch_s: float | None = None
    memory_mb: float | None = None
    failed: str | None = None


def measure(
    task: Task,
    readers: Sequence[type[Reader]],
    rounds: int = 5,
    warm_up: int = WARM_UP,
    progress: Callable[[str], None] = lambda _: None,
) -> list[FeedFigures]:
    """Measure readers, which take turns.

    Args:
        task: what to read.
        readers: OURS, and those of `peers` that are `installed`.
        rounds: turns of each reader that are counted.
        warm_up: turns before them that are not counted.
        progress: called with a line of text for each step.

    Returns:
        figures in the order of `readers`.

    Raises:
        WhamDataError: this package or the memory map cannot be measured. (For another library the
            error is in its `FeedFigures.failed`.)
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wham-data-feed-")))
        processes: list[_Process] = []
        for reader in readers:
            progress(f"preparing {reader.name}")
            processes.append(_Process(reader, task, folder / reader.name.replace(" ", "-")))
            stack.callback(processes[-1].end)
        for number in range(-warm_up, rounds):
            progress(f"round {number + warm_up + 1} of {rounds + warm_up}")
            for process in processes:
                process.take_turn(counts=number >= 0)
        return [process.figures() for process in processes]


def installed(readers: Sequence[type[Reader]]) -> list[type[Reader]]:
    """The readers that can be measured here: their package is installed, or they need none."""
    return [each for each in readers if each.needs is None or find_spec(each.needs) is not None]


class _Turn(NamedTuple):
    """The batches of one turn, and the seconds they took."""

    batches: int
    wall_s: float
    cpu_s: float


class _Process:
    """A reader in its process, and its measurements so far."""

    def __init__(self, reader: type[Reader], task: Task, folder: Path) -> None:
        self._reader, self._batch_size = reader, task.batch_size
        self._turns: dict[str, list[_Turn]] = {"random": [], "loader": []}
        self._memory_mb: float | None = None
        self._failed: str | None = None
        context = multiprocessing.get_context("spawn")
        self._pipe, child_pipe = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(child_pipe, reader, task, folder), daemon=True
        )
        self._process.start()
        child_pipe.close()
        self._first_batch_s: float | None = self._ask("first_batch")

    def take_turn(self, *, counts: bool) -> None:
        """Let the reader take one turn of each kind; record it if it `counts`."""
        for kind, turns in self._turns.items():
            turn = self._ask(kind)
            if counts and turn is not None:
                turns.append(turn)
        self._memory_mb = max(self._memory_mb or 0, self._ask("memory") or 0) or None

    def figures(self) -> FeedFigures:
        """The medians of all turns that count."""
        rates: dict[str, float] = {}
        for kind, turns in self._turns.items():
            if turns:
                wall = statistics.median(turn.batches / turn.wall_s for turn in turns)
                cpu = statistics.median(turn.batches / turn.cpu_s for turn in turns)
                rates |= {kind: wall * self._batch_size, f"{kind}_cpu": cpu * self._batch_size}
        return FeedFigures(
            self._reader.name,
            first_batch_s=self._first_batch_s,
            memory_mb=self._memory_mb,
            failed=self._failed,
            **rates,
        )

    def end(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(10)
        self._process.kill()

    def _ask(self, method: str) -> Any:
        if self._failed is not None:
            return None
        try:
            self._pipe.send(method)
            answer = self._pipe.recv()
        except (EOFError, OSError):
            answer = WhamDataError(f"{self._reader.name}: its process died")
        if isinstance(answer, WhamDataError):
            if self._reader.needs is None:
                raise answer
            self._failed = str(answer)
            return None
        return answer


def _serve(pipe: Connection, reader: type[Reader], task: Task, folder: Path) -> None:
    """The main function of a reader's process: answer requests until the pipe is closed."""
    # Libraries print messages, which must not mix with our output. Errors go through the pipe.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    turns: _Turns | None = None
    while True:
        try:
            method = pipe.recv()
        except EOFError:
            return
        try:
            if turns is None:
                turns = _Turns(reader, task, folder)
            pipe.send(getattr(turns, method)())
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            pipe.send(WhamDataError(f"{reader.name}: {type(error).__name__}: {text}"))


def held(paths: Sequence[Path]) -> list[MappedFile]:
    """Map files and read them into memory, where they stay while the result exists.

    Returns:
        the mapped files; an empty list if they need more than half of the memory.

    Raises:
        WhamDataError: a file cannot be mapped.
    """
    files = [MappedFile(path) for path in paths if path.stat().st_size]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if sum(file.size for file in files) > memory / 2:
        return []
    for file in files:
        file.load()
    return files


class _Turns:
    """A reader's turns; `_Process` calls these methods by name through the pipe."""

    def __init__(self, reader: type[Reader], task: Task, folder: Path) -> None:
        folder.mkdir(parents=True)
        reader_object = reader(task, folder)
        reader_object.prepare()
        self._held = held(reader_object.files())
        # The first batch is timed at the second try, when all modules have been imported.
        next(reader_object.batches())
        start_s = time.perf_counter()
        self._batches = reader_object.batches()
        next(self._batches)
        self._first_batch_s = time.perf_counter() - start_s
        self._by_number = reader_object.by_number()
        self._draw = np.random.default_rng(task.seed)
        self._task = task

    def first_batch(self) -> float:
        """Seconds from opening the data to the first batch."""
        return self._first_batch_s

    def random(self) -> _Turn | None:
        """One turn of batches by window numbers; None if the reader has no random access."""
        if self._by_number is None:
            return None
        n, read = self._by_number
        size = self._task.batch_size
        return self._timed(read(self._draw.integers(0, n, size)) for _ in count())

    def loader(self) -> _Turn:
        """One turn of batches through the DataLoader."""
        return self._timed(self._batches)

    def _timed(self, batches: Iterator[object]) -> _Turn:
        start_wall, start_cpu = time.perf_counter(), time.process_time()
        number, wall_s, cpu_s = 0, 0.0, 0.0
        # A turn is measured in CPU time, so it does as much work on a busy machine as on an idle
        # one. PATIENCE ends the turn of a reader that mostly waits.
        while wall_s < self._task.turn_s or cpu_s < self._task.turn_s > wall_s / PATIENCE:
            next(batches)
            number += 1
            wall_s, cpu_s = time.perf_counter() - start_wall, time.process_time() - start_cpu
        return _Turn(number, wall_s, cpu_s)

    def memory(self) -> float:
        """MiB of this process's memory that are not mapped from files."""
        lines = Path("/proc/self/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        return sum(int(status[name].split()[0]) for name in ("RssAnon", "RssShmem")) / 1024
