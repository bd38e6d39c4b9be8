"""Measure how fast windows are read, the cost of starting, and the quality of the shuffle.

    python benchmarks/feed.py --cache DIR [--rounds 7] [--stored 20000] [--only readers,start,...]

Corpora are made once and kept in the cache. Their steps have the shape of WHAM's (540 tokens, 16
numbers); tokens are random, and half of them stay the same from one step to the next. The results are
Markdown tables. The readers take turns. Other libraries are measured if they are installed.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from wham_data.corpus import Corpus, shard_id
from wham_data.corpus.delta.table import ManifestTable
from wham_data.feed import WindowDataset
from wham_data.feed.bench import OURS, FeedFigures, Task, installed, measure
from wham_data.feed.order import Order
from wham_data.feed.peers import PEERS
from wham_data.feed.windows import Numbers
from wham_data.schemas.actions import load_space
from wham_data.schemas.corpus_info import CorpusInfo, TokenizerInfo
from wham_data.schemas.manifest import EPISODES_SCHEMA, EpisodeRow, episodes_table
from wham_data.schemas.steps import EpisodeSteps

LENGTH, BATCH = 10, 32
TENTH_NS = 100_000_000
TOKENIZER = TokenizerInfo("random", "random", (18, 30), 16_384, (300, 180))
INFO = CorpusInfo(action_space=load_space("wham16"), tokenizer=TOKENIZER)
PAGE = 4_096
READ_SIZE = 12_288
"""Bytes of a window's tokens, rounded up to pages as if they began at one."""
COLD_BATCHES = 1_000
"""Batches of shuffled windows that are read from the disk."""
THREADS = 16
EPOCHS = 10
WINDOWS = 1_000_000
"""Windows in the orders whose quality is measured."""
BOXES = 64

# Runs in its own process, so that nothing is loaded before and the peak memory is its own.
FIRST_BATCH = """
import json, sys, time
from pathlib import Path
from torch.utils.data import DataLoader
from wham_data import WindowDataset

def peak_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(l for l in lines if l.startswith("VmHWM")).split()[1]) / 1024

location, consumed, read = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "read"
before, began, used = peak_mb(), time.perf_counter(), time.process_time()
data = WindowDataset(location, length=10, batch_size=32)
opened = time.perf_counter() - began, time.process_time() - used
state = {**data.state_dict(), "consumed": consumed}
began, used = time.perf_counter(), time.process_time()
data.load_state_dict(state)
if read:
    next(iter(DataLoader(data, batch_size=None)))
first = time.perf_counter() - began, time.process_time() - used
print(json.dumps([*opened, *first, len(data.windows), before, peak_mb()]))
"""

# The windows do not overlap, so an epoch reads every step of the corpus once.
HELD = """
import json, sys
from pathlib import Path
from torch.utils.data import DataLoader
from wham_data import WindowDataset

def held_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(l for l in lines if l.startswith("RssAnon")).split()[1]) / 1024

data = WindowDataset(sys.argv[1], length=10, stride=10, batch_size=32)
held = []
for _ in range(int(sys.argv[2])):
    for _ in DataLoader(data, batch_size=None):
        pass
    held.append(held_mb())
print(json.dumps(held))
"""


def row_of(episode: str, shard: str, sha256: str, start: int, n_steps: int) -> EpisodeRow:
    recording = hashlib.sha256(episode.encode()).hexdigest()
    return EpisodeRow(
        episode=episode,
        recording=recording,
        source=f"recordings/{episode}.mp4",
        format="video-log",
        shard=shard,
        shard_sha256=sha256,
        row_start=start,
        n_steps=n_steps,
        split="train",
        settings=INFO.settings_hash,
        tokenizer=TOKENIZER.fingerprint,
    )


def play(episode: str, n_steps: int, rng: np.random.Generator) -> EpisodeSteps:
    tokens = rng.integers(0, TOKENIZER.vocab_size, (n_steps, TOKENIZER.n_tokens)).astype(np.uint16)
    since = np.where(rng.random(tokens.shape) < 0.5, 0, np.arange(n_steps)[:, None])
    np.maximum.accumulate(since, axis=0, out=since)
    buttons, sticks = rng.random((n_steps, 12)) < 0.1, rng.uniform(-1, 1, (n_steps, 4))
    actions = np.concatenate([buttons, sticks], axis=1).astype(np.float32)
    times = np.arange(n_steps) * TENTH_NS
    tokens = np.take_along_axis(tokens, since, axis=0)
    return EpisodeSteps(episode, times, actions, np.ones(n_steps, bool), tokens)


def corpus_of(location: Path, shards: int, steps: int) -> Corpus:
    """A corpus with one episode in each shard; made if it does not exist."""
    if location.exists():
        return Corpus.open(location)
    corpus = Corpus.create(location, INFO)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(shards):
        episode = play(f"e{number:05d}", int(steps / shards * rng.uniform(0.5, 1.5)), rng)
        row = row_of(episode.episode, "0" * 24 + ".parquet", "", 0, episode.n_steps)
        shard = corpus.write_shard([episode], shard_id({row.recording}, INFO.settings_hash))
        rows.append(row_of(episode.episode, shard.name, shard.sha256, 0, episode.n_steps))
    corpus.commit(rows)
    return corpus


def million_episodes(location: Path, episodes: int) -> None:
    """Write a manifest of this many episodes, a hundred per shard, without the shards."""
    if location.exists():
        return
    Corpus.create(location, INFO)
    table = ManifestTable(Corpus.open(location).storage, "episodes", EPISODES_SCHEMA)
    numbers = np.arange(episodes)
    hashes = [hashlib.sha256(str(n).encode()).hexdigest() for n in numbers.tolist()]
    one = episodes_table([row_of("e", "0" * 24 + ".parquet", "", 0, 100)], datetime.now(UTC))
    columns = {
        "episode": [f"{digest[:40]}-0" for digest in hashes],
        "recording": hashes,
        "source": [f"recordings/{n:08d}.mp4" for n in numbers.tolist()],
        "shard": [f"{hashes[n // 100][:24]}.parquet" for n in numbers.tolist()],
        "shard_sha256": [hashes[n // 100] for n in numbers.tolist()],
        "row_start": numbers % 100 * 100,
    }
    rows = one.take(np.zeros(episodes, np.int64))
    for name, values in columns.items():
        field = rows.schema.field(name)
        rows = rows.set_column(
            rows.schema.get_field_index(name), field, pa.array(values, field.type)
        )
    name = table.write_rows(rows)
    table.commit(table.snapshot(), "WRITE", add={name: episodes})


def readers(cache: Path, rounds: int, stored: int) -> Iterator[str]:
    corpus = corpus_of(cache / "shards-200", 200, 1_030_112)
    task = Task(corpus.location, LENGTH, BATCH, stored)
    found = measure(task, [*OURS, *installed(PEERS)], rounds, progress=say)
    ours, floor = found[0], found[1]
    yield (
        "| reader | by number, windows/s | per CPU s | x the floor's time | DataLoader, windows/s "
        "| per CPU s | ours is x faster | first batch, s | MB |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for reader in found:
        yield " | ".join(
            (
                f"| {reader.name}",
                rounded(reader.random),
                rounded(reader.random_cpu),
                ratio(floor.random_cpu, reader.random_cpu),
                rounded(reader.loader),
                rounded(reader.loader_cpu),
                ratio(ours.loader_cpu, reader.loader_cpu),
                "-" if reader.first_batch_s is None else f"{reader.first_batch_s:.3f}",
                f"{rounded(reader.memory_mb)} |",
            )
        )
    yield from failures(found)


def failures(figures: Sequence[FeedFigures]) -> Iterator[str]:
    for reader in figures:
        if reader.failed:
            yield f"\n{reader.name}: {reader.failed}"


def start(cache: Path, rounds: int) -> Iterator[str]:
    corpus = corpus_of(cache / "shards-1000", 1_000, 1_030_112)
    n = len(WindowDataset(corpus, length=LENGTH).windows)
    yield "| a thousand shards, a process of its own | opened, s | CPU s | first batch, s | CPU s |"
    yield "|---|---|---|---|---|"
    for name, share in (
        ("from the beginning", 0.0),
        ("resumed half-way", 0.5),
        ("near the end", 0.99),
    ):
        started = (corpus.location, str(int(n * share)), "read")
        elapsed = [in_a_process(FIRST_BATCH, *started)[:4] for _ in range(rounds)]
        medians = (f"{statistics.median(times):.3f}" for times in zip(*elapsed, strict=True))
        yield f"| {name} | {' | '.join(medians)} |"


def manifest(cache: Path) -> Iterator[str]:
    location = cache / "manifest-1000000"
    million_episodes(location, 1_000_000)
    elapsed = in_a_process(FIRST_BATCH, str(location), "0", "leave")
    opened, used, _, _, windows, before, peak = elapsed
    yield "| episodes | windows | opened, s | CPU s | peak, MB | of these before, MB |"
    yield "|---|---|---|---|---|---|"
    yield (f"| 1000000 | {windows:.0f} | {opened:.2f} | {used:.2f} | {peak:.0f} | {before:.0f} |")


def epochs(cache: Path) -> Iterator[str]:
    corpus = corpus_of(cache / "shards-200", 200, 1_030_112)
    held = in_a_process(HELD, corpus.location, str(EPOCHS))
    yield "| epoch | " + " | ".join(map(str, range(1, EPOCHS + 1))) + " |"
    yield "|---" * (EPOCHS + 1) + "|"
    yield (
        "| private memory after it, MB | "
        + " | ".join(f"{megabytes:.1f}" for megabytes in held)
        + " |"
    )


def in_a_process(program: str, *arguments: str) -> list[float]:
    command = [sys.executable, "-c", program, *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[float] = json.loads(finished.stdout)
    return found


def shuffle(rounds: int) -> Iterator[str]:
    """Compare orders of a million windows with numpy's permutations; one epoch or seed per round."""
    places = np.arange(WINDOWS)
    orders: dict[str, Callable[[int], Numbers]] = {
        "all windows": lambda epoch: Order(WINDOWS, 0).draws(epoch, places),
        "numpy's permutation": lambda epoch: np.random.default_rng(epoch).permutation(WINDOWS),
        **{
            f"pool={pool}": lambda epoch, pool=pool: Order(WINDOWS, 0, pool=pool).draws(
                epoch, places
            )
            for pool in (262_144, 65_536)
        },
    }
    yield (
        "| shuffled | chi-squared of 64 x 64 boxes, deviations off | correlation of neighbours, "
        "deviations | pairs that overlap in a batch of 32 |"
    )
    yield "|---|---|---|---|"
    for name, order in orders.items():
        found = [quality(order(epoch)) for epoch in range(rounds)]
        boxes, neighbours, pairs = zip(*found, strict=True)
        yield (
            f"| {name} | {min(boxes):.1f} to {max(boxes):.1f} "
            f"| {min(neighbours):.1f} to {max(neighbours):.1f} | {statistics.mean(pairs):.4f} |"
        )


def quality(order: Numbers) -> tuple[float, float, float]:
    """How much an order, int64 [N], differs from a random order.

    Returns:
        chi-squared of the counts in boxes of (position, window), in standard deviations from its
        mean; correlation of neighbours, in standard deviations; and pairs of windows per batch that
        have a step in common. For a random order the first two are about 0.
    """
    n = len(order)
    box = np.arange(n) * BOXES // n * BOXES + order * BOXES // n
    even, freedom = n / BOXES**2, (BOXES - 1) ** 2
    chi_squared = ((np.bincount(box, minlength=BOXES**2) - even) ** 2 / even).sum()
    correlation = np.corrcoef(order[:-1], order[1:])[0, 1]
    batches = np.sort(order[: n // BATCH * BATCH].reshape(-1, BATCH), axis=1)
    pairs = sum(
        int((batches[:, apart:] - batches[:, :-apart] < LENGTH).sum())
        for apart in range(1, min(BATCH, LENGTH))
    )
    return (
        float((chi_squared - freedom) / np.sqrt(2 * freedom)),
        float(correlation * np.sqrt(n)),
        pairs / len(batches),
    )


def cold(cache: Path, rounds: int) -> Iterator[str]:
    """Our reading against plain reading of the same files; all take turns in each round."""
    corpus = corpus_of(cache / "shards-200", 200, 1_030_112)
    shards = sorted((Path(corpus.location) / "shards").iterdir())
    places = [places_of(corpus, shards, seed) for seed in range(rounds)]
    fixed, pages = f"reads of {READ_SIZE} bytes", "reads of the pages of the windows"
    files, shuffled, in_order = "files one after another", "windows, shuffled", "windows, in order"
    tasks: dict[str, Callable[[int], tuple[float, float]]] = {
        fixed: lambda nth: scattered(shards, [one[:1] for one in places[nth]], READ_SIZE),
        pages: lambda nth: scattered(shards, places[nth]),
        shuffled: lambda nth: stream(corpus, shards, nth, shuffle=True),
        files: lambda _: read_through(shards),
        in_order: lambda nth: stream(corpus, shards, nth, shuffle=False),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for nth in range(rounds):
        for name, task in tasks.items():
            forget(shards)
            found[name].append(task(nth))
    yield "| page cache emptied of the corpus before | windows per s | MB/s from the disk |"
    yield "|---|---|---|"
    for name, rates in found.items():
        per_s, speed = (statistics.median(rate) for rate in zip(*rates, strict=True))
        yield f"| {name} | {'-' if name == files else round(per_s)} | {speed / 1e6:.0f} |"
    yield ""
    yield f"| ratio in each of {rounds} rounds | median | least | most | goal |"
    yield "|---|---|---|---|---|"
    for ours, theirs, column, goal in (
        (in_order, files, 1, "0.9"),
        (shuffled, pages, 0, "0.8"),
        (shuffled, fixed, 0, "-"),
    ):
        ratios = [a[column] / b[column] for a, b in zip(found[ours], found[theirs], strict=True)]
        yield (
            f"| {ours}, to {theirs} | {statistics.median(ratios):.2f} | {min(ratios):.2f} "
            f"| {max(ratios):.2f} | {goal} |"
        )


Place = list[tuple[int, int, int]]
"""For each column of a window: number of the file, first byte and number of bytes, in whole pages."""


def places_of(corpus: Corpus, shards: Sequence[Path], seed: int) -> list[Place]:
    """The pages of as many random windows as `stream` reads."""
    data = WindowDataset(corpus, length=LENGTH)
    chosen = np.random.default_rng(seed).integers(0, len(data.windows), COLD_BATCHES * BATCH)
    shard, row = data.windows.locate(chosen)
    views = [corpus.open_shard(path.name) for path in shards]
    columns = {"tokens": TOKENIZER.n_tokens * 2, "actions": INFO.action_space.size * 4}
    begin = {name: [view.matrix_offsets(name) for view in views] for name in columns}
    rows = [view.group_rows(0) for view in views]

    def pages(number: int, row: int, name: str) -> tuple[int, int, int]:
        group, at = divmod(row, rows[number])
        first = int(begin[name][number][group]) + at * columns[name]
        low, high = first // PAGE * PAGE, -(-(first + LENGTH * columns[name]) // PAGE) * PAGE
        return number, low, high - low

    return [
        [pages(number, each, name) for name in columns]
        for number, each in zip(shard.tolist(), row.tolist(), strict=True)
    ]


def stream(
    corpus: Corpus, shards: Sequence[Path], seed: int, *, shuffle: bool
) -> tuple[float, float]:
    """Windows per second and bytes per second, after every shard has been opened.

    In order the windows do not overlap: they would be copied ten times otherwise, which takes longer
    than to read them once from a fast disk.
    """
    data = WindowDataset(
        corpus,
        length=LENGTH,
        stride=1 if shuffle else LENGTH,
        batch_size=BATCH,
        shuffle=shuffle,
        seed=seed,
    )
    opened = data.windows.locate(np.arange(len(data.windows)))[0]
    for number in np.unique(opened, return_index=True)[1].tolist():
        data.windows[number]
    forget(shards)
    windows, read = iter(data), bytes_read()
    started, batches = time.perf_counter(), 0
    for _ in itertools.islice(windows, COLD_BATCHES if shuffle else None):
        batches += 1
    elapsed = time.perf_counter() - started
    return batches * BATCH / elapsed, (bytes_read() - read) / elapsed


def forget(files: Sequence[Path]) -> None:
    """Remove the pages of files from the page cache."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read_through(files: Sequence[Path]) -> tuple[float, float]:
    """Reads per second and bytes per second of plain reading, one file after another."""
    started, total, reads = time.perf_counter(), 0, 0
    for path in files:
        with path.open("rb", buffering=0) as file:
            while some := file.read(1 << 22):
                total, reads = total + len(some), reads + 1
    elapsed = time.perf_counter() - started
    return reads / elapsed, total / elapsed


def scattered(
    files: Sequence[Path], places: Sequence[Place], size: int | None = None
) -> tuple[float, float]:
    """Windows per second and bytes per second of plain reads by THREADS threads.

    Args:
        files: the files.
        places: what to read for each window.
        size: read this many bytes at each place, not the number in it.
    """
    descriptors = [os.open(path, os.O_RDONLY) for path in files]
    for descriptor in descriptors:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def work(own: Sequence[Place]) -> None:
        for place in own:
            for number, first, n_bytes in place:
                os.pread(descriptors[number], size or n_bytes, first)

    threads = [threading.Thread(target=work, args=(places[i::THREADS],)) for i in range(THREADS)]
    read, started = bytes_read(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    for descriptor in descriptors:
        os.close(descriptor)
    return len(places) / elapsed, (bytes_read() - read) / elapsed


def bytes_read() -> int:
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])


def rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def ratio(one: float | None, other: float | None) -> str:
    return "-" if one is None or other is None else f"{one / other:.2f}"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder for the corpora")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each figure")
    parser.add_argument(
        "--stored", type=int, default=20_000, help="most windows stored for other libraries"
    )
    parser.add_argument(
        "--only",
        default="readers,start,cold,manifest,epochs,shuffle",
        help="parts to run, with commas between them (default: all)",
    )
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    parts = {
        "readers": lambda: readers(arguments.cache, arguments.rounds, arguments.stored),
        "start": lambda: start(arguments.cache, arguments.rounds),
        "cold": lambda: cold(arguments.cache, arguments.rounds),
        "manifest": lambda: manifest(arguments.cache),
        "epochs": lambda: epochs(arguments.cache),
        "shuffle": lambda: shuffle(arguments.rounds),
    }
    for name in arguments.only.split(","):
        for line in parts[name]():
            print(line, flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
