"""How fast windows are fed: ours, a raw memory map, and other libraries where they are installed.

Every reader lives in a process of its own, which imports first and is then told what to do; the
readers take turns, round by round, so that what else the machine does hits all alike. Ours and the
memory map read the same windows of the whole corpus. Other libraries get the easier task of windows
that were stored one by one, without overlap: what overlaps would take them `length` times the disk.
What each of them reads is held in memory meanwhile, whatever the system would like to do with it.
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
from wham_data.feed.mapped_shards import MappedFile
from wham_data.feed.windows import Numbers
from wham_data.schemas.errors import WhamDataError
from wham_data.schemas.steps import FLOAT, TOKEN

WARM_UP: Final = 8
"""Turns that are not counted: shards are opened and pages mapped when they are first touched."""
PATIENCE: Final = 20
"""A turn ends after this many times the seconds it should have, whatever has been done."""
BYTE: Final = np.dtype(np.uint8)


@dataclass(frozen=True, slots=True)
class Task:
    """What all readers read.

    location    of the corpus
    batch_size  windows of a batch
    stored      most windows that are stored for other libraries
    turn_s      seconds of a turn, of which the reader should have had the CPU
    """

    location: str
    length: int
    batch_size: int
    stored: int = 10_000
    turn_s: float = 0.5
    seed: int = 0

    def dataset(self, **changes: Any) -> WindowDataset:
        """The `WindowDataset` that reads this task; `changes` replace its settings."""
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
    """One way to read windows, in a process of its own.

    name   for people
    needs  the package without which it cannot be measured
    """

    name: ClassVar[str]
    needs: ClassVar[str | None] = None

    def __init__(self, task: Task, folder: Path) -> None:
        self.task, self.folder = task, folder

    @abstractmethod
    def prepare(self) -> None:
        """Write whatever it needs into the folder; not timed."""

    def files(self) -> list[Path]:
        """The files that it reads."""
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def by_number(self) -> tuple[int, Callable[[Numbers], object]] | None:
        """How many windows there are, and what reads a batch of them by number."""
        return None

    @abstractmethod
    def batches(self) -> Iterator[object]:
        """Endless shuffled batches, through its DataLoader."""


class WhamData(Reader):
    """This package; it reads the corpus as it is."""

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
    """The rows of all shards in two flat files: gathered in one call, or by the window in a loader."""

    name = "memory map"

    def prepare(self) -> None:
        """Copy tokens and actions of all shards, and note where each window begins.

        Raises:
            WhamDataError: the disk has no room for them.
        """
        windows = self.task.dataset().windows
        needed = sum(path.stat().st_size for path in WhamData(self.task, self.folder).files())
        if (free := shutil.disk_usage(self.folder).free) < needed:
            raise WhamDataError(
                f"{self.folder}: {free / 1e9:.1f} GB free, but the memory map takes "
                f"{needed / 1e9:.1f} GB; TMPDIR says where it goes"
            )
        begins, row = [], 0
        with ExitStack() as files:
            out = {
                name: files.enter_context((self.folder / name).open("wb"))
                for name in ("tokens", "actions")
            }
            for number in range(len(windows.shards)):
                view = windows.shards.open(number)
                begins.append(row)
                row += view.rows
                for _, table in view.read_rows(0, view.rows, list(out)):
                    for name, file in out.items():
                        file.write(matrix_of(table.column(name).combine_chunks(), BYTE).data)
        shard, first = windows.locate(np.arange(len(windows)))
        np.save(self.folder / "starts.npy", np.array(begins)[shard] + first)
        np.save(self.folder / "rows.npy", row)

    def by_number(self) -> tuple[int, Callable[[Numbers], object]] | None:
        """See `Reader`."""
        starts, tokens, actions = self._open()
        whole = [_overlapping(matrix, self.task.length) for matrix in (tokens, actions)]
        return len(starts), lambda numbers: [matrix[starts[numbers]] for matrix in whole]

    def batches(self) -> Iterator[object]:
        """Windows cut out one by one, widened and collated, as nanoGPT and its kin do."""
        from torch.utils.data import DataLoader

        cut: Any = _Cut(*self._open(), self.task.length)
        loader = DataLoader(cut, self.task.batch_size, shuffle=True)
        while True:
            yield from loader

    def _open(self) -> tuple[Numbers, NDArray[np.uint16], NDArray[np.float32]]:
        rows = int(np.load(self.folder / "rows.npy"))
        tokens = np.memmap(self.folder / "tokens", TOKEN, "r").reshape(rows, -1)
        actions = np.memmap(self.folder / "actions", FLOAT, "r").reshape(rows, -1)
        return np.load(self.folder / "starts.npy"), tokens, actions


@dataclass(frozen=True, slots=True)
class _Cut:
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
    """Every `length` rows of a matrix, [rows - length + 1, length, numbers], one copy to gather."""
    plain = np.asarray(matrix).view(np.ndarray)
    shape = (len(plain) - length + 1, length, plain.shape[1])
    return as_strided(plain, shape, (plain.strides[0], *plain.strides), writeable=False)


OURS: Final[tuple[type[Reader], ...]] = (WhamData, MemoryMap)


@dataclass(frozen=True, slots=True)
class FeedFigures:
    """The figures of one reader: medians over the rounds, None for what it cannot do.

    random         windows/s, batches of random numbers
    loader         windows/s, shuffled, through its DataLoader
    random_cpu     windows per CPU second; what is left of the noise of a busy machine
    first_batch_s  from nothing (but imports) to the first batch
    memory_mb      most private memory of its process
    failed         why it could not be measured
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
    """Let the readers take turns.

    Args:
        readers: OURS, and those of `peers` that are `installed`.
        rounds: turns of each reader that are counted.
        warm_up: turns before them.

    Returns:
        figures in the order of `readers`.

    Raises:
        WhamDataError: ours or the memory map cannot be measured.
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
            for each in processes:
                each.take(counts=number >= 0)
        return [each.figures() for each in processes]


def installed(readers: Sequence[type[Reader]]) -> list[type[Reader]]:
    """The readers whose package is installed on this machine."""
    return [each for each in readers if each.needs is None or find_spec(each.needs) is not None]


class _Turn(NamedTuple):
    batches: int
    wall_s: float
    cpu_s: float


class _Process:
    """A reader in its process, and what it has come to so far."""

    def __init__(self, reader: type[Reader], task: Task, folder: Path) -> None:
        self._reader, self._batch_size = reader, task.batch_size
        self._turns: dict[str, list[_Turn]] = {"random": [], "loader": []}
        self._memory_mb: float | None = None
        self._failed: str | None = None
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, reader, task, folder), daemon=True
        )
        self._process.start()
        theirs.close()
        self._first_batch_s: float | None = self._ask("first_batch")

    def take(self, *, counts: bool) -> None:
        """One turn of each kind."""
        for kind, turns in self._turns.items():
            turn = self._ask(kind)
            if counts and turn is not None:
                turns.append(turn)
        self._memory_mb = max(self._memory_mb or 0, self._ask("memory") or 0) or None

    def figures(self) -> FeedFigures:
        """Medians."""
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

    def _ask(self, what: str) -> Any:
        if self._failed is not None:
            return None
        try:
            self._pipe.send(what)
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
    """What a reader's process does: answers until nobody asks any more."""
    # Libraries talk; ours is the only word on stdout, and what breaks goes through the pipe.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    turns: _Turns | None = None
    while True:
        try:
            what = pipe.recv()
        except EOFError:
            return
        try:
            if turns is None:
                turns = _Turns(reader, task, folder)
            pipe.send(getattr(turns, what)())
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            pipe.send(WhamDataError(f"{reader.name}: {type(error).__name__}: {text}"))


def held(paths: Sequence[Path]) -> list[MappedFile]:
    """Files in memory while what is returned lives; none where they would fill half of it."""
    files = [MappedFile(path) for path in paths if path.stat().st_size]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if sum(file.size for file in files) > memory / 2:
        return []
    for file in files:
        file.load()
    return files


class _Turns:
    """What a reader does when it is its turn; the methods are what `_Process` asks for."""

    def __init__(self, reader: type[Reader], task: Task, folder: Path) -> None:
        folder.mkdir(parents=True)
        made = reader(task, folder)
        made.prepare()
        self._held = held(made.files())
        # Timed when everything has been imported and something has been read.
        next(made.batches())
        began = time.perf_counter()
        self._batches = made.batches()
        next(self._batches)
        self._first_batch_s = time.perf_counter() - began
        self._by_number = made.by_number()
        self._draw = np.random.default_rng(task.seed)
        self._task = task

    def first_batch(self) -> float:
        """Seconds from nothing to the first batch."""
        return self._first_batch_s

    def random(self) -> _Turn | None:
        """Batches by number."""
        if self._by_number is None:
            return None
        n, read = self._by_number
        size = self._task.batch_size
        return self._timed(read(self._draw.integers(0, n, size)) for _ in count())

    def loader(self) -> _Turn:
        """Batches through the loader."""
        return self._timed(self._batches)

    def _timed(self, batches: Iterator[object]) -> _Turn:
        wall, cpu = time.perf_counter(), time.process_time()
        number, took, used = 0, 0.0, 0.0
        # On a busy machine as much work as on an idle one; who waits for something else gets away.
        while took < self._task.turn_s or used < self._task.turn_s > took / PATIENCE:
            next(batches)
            number += 1
            took, used = time.perf_counter() - wall, time.process_time() - cpu
        return _Turn(number, took, used)

    def memory(self) -> float:
        """Megabytes of this process that are not mapped from files."""
        lines = Path("/proc/self/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        return sum(int(status[name].split()[0]) for name in ("RssAnon", "RssShmem")) / 1024
