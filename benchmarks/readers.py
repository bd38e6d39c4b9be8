"""Measure how fast each source format is read, and the memory needed.

    python benchmarks/readers.py [FOLDER...] [--frames 600] [--seconds 2]

Without folders, small recordings of `--frames` frames are made with the functions of the tests, in
every format for which they can make any length. Each format is read in its own process with one
thread: all recordings are opened, then their frames are read at 300x180, repeatedly, for `--seconds`
seconds. Memory is the largest resident size of this process; Python and the libraries take about
100 MB of it. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "pipelines" / "readers")]

import wham_data  # noqa: E402
from wham_data.pipelines.readers import discover, open_recording  # noqa: E402
from wham_data.schemas.errors import WhamDataError  # noqa: E402

SIZE = (300, 180)
BATCH = 32


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of one format.

    recordings       recordings that could be opened
    frames           frames of one pass over them
    opening_seconds  CPU seconds to open all recordings
    read             frames read in all passes
    seconds          CPU seconds of all passes
    peak_mb          largest resident size of the process in MiB
    """

    recordings: int
    frames: int
    opening_seconds: float
    read: int
    seconds: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="recordings to read"
    )
    parser.add_argument("--frames", type=int, default=600, help="frames of a made recording")
    parser.add_argument("--seconds", type=float, default=2, help="seconds of reading per format")
    parser.add_argument("--only", metavar="FORMAT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(asdict(measure(arguments.folders[0], arguments.only, arguments.seconds))))
        return
    print(
        "| folder | format | recordings | frames | opening, CPU ms each | frames per CPU second "
        "| peak MB |\n"
        "|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory(prefix="wham-data-readers-") as scratch:
        for folder in arguments.folders or make_recordings(Path(scratch), arguments.frames):
            for format in sorted({found.format for found in discover([folder]).recordings}):
                print(row(folder, format, arguments.seconds), flush=True)


def row(folder: Path, format: str, seconds: float) -> str:
    """Measure a format in a separate process; return a row of the table."""
    command = [sys.executable, __file__, folder, "--only", format, "--seconds", str(seconds)]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    measured = Measured(**json.loads(run.stdout))
    return (
        f"| {folder.name} | {format} | {measured.recordings} | {measured.frames} "
        f"| {1000 * measured.opening_seconds / measured.recordings:.1f} "
        f"| {measured.read / measured.seconds:.0f} | {measured.peak_mb:.0f} |"
        if measured.seconds
        else f"| {folder.name} | {format} | {measured.recordings} | none | - | - | {measured.peak_mb:.0f} |"
    )


def measure(folder: Path, format: str, seconds: float) -> Measured:
    """Open every recording of a format, then read them repeatedly for this many seconds."""
    opened, opening = [], 0.0
    for recording in discover([folder], format).recordings:
        started = time.process_time()
        try:
            opened.append(open_recording(recording))
        except WhamDataError as refused:
            print(f"{recording.source}: {refused}", file=sys.stderr)
        opening += time.process_time() - started
    shown = [each for each in opened if not each.pictureless]
    frames = sum(len(each.frame_times_ns) for each in shown)
    read, started, ends = 0, time.process_time(), time.monotonic() + seconds
    while shown and time.monotonic() < ends:
        for each in shown:
            picks = np.arange(len(each.frame_times_ns))
            for batch in each.frames(picks, SIZE, fit="stretch", batch=BATCH, threads=1):
                read += len(batch)
    took = time.process_time() - started if shown else 0.0
    return Measured(len(opened), frames, opening, read, took, peak_mb())


def peak_mb() -> float:
    """Largest resident size of this process so far, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def make_recordings(scratch: Path, count: int) -> Iterator[Path]:
    """Make a folder with one recording for each format that the tests can write at any length."""
    for name, maker in makers().items():
        folder = scratch / name
        folder.mkdir()
        maker(folder, count)
        yield folder


def makers() -> dict[str, Callable[[Path, int], object]]:
    """Format -> a function that writes a recording of a number of frames into a folder."""
    import test_reader_csgo_hdf5 as csgo
    import test_reader_diamond_atari as atari
    import test_reader_doom_parquet as doom
    import test_reader_genie_coinrun as coinrun
    import test_reader_gf_minecraft as minecraft
    import test_reader_melting_pot_lmdb as lmdb
    import test_reader_minari as minari
    import test_reader_mineworld as mineworld
    import test_reader_multi_agent_jsonl as agents
    import test_reader_open_oasis as oasis
    import test_reader_p2p as p2p
    import test_reader_rlds as rlds
    import test_reader_vpt as vpt
    import test_reader_wham_npz as wham
    from makers import exports as export_makers

    def tar(folder: Path, count: int) -> None:
        corpus = export_makers.picture_corpus(
            folder.with_name("corpus"), episodes=1, n_steps=count, text=True
        )
        wham_data.export(corpus, to="webdataset", out=folder)

    def times(rows: list[object], count: int) -> list[object]:
        return [rows[k % len(rows)] for k in range(count)]

    return {
        "csgo-hdf5": lambda folder, n: csgo.write(folder / csgo.NAME, n),
        "diamond-atari": lambda folder, n: atari.saved(
            atari.episode(times([0, 1, 2], n)), folder / "000/00/0/0.pt"
        ),
        "doom-parquet": lambda folder, n: doom.first(
            folder / "episode_0.parquet", list(range(n)), actions=times([0, 1], n)
        ),
        "genie-coinrun": lambda folder, n: coinrun.clip(folder / "0007.mp4", n),
        "gf-minecraft": lambda folder, n: minecraft.written(
            folder, {str(k): minecraft.entry() for k in range(n)}, n
        ),
        "melting-pot-lmdb": lambda folder, n: lmdb.shard(
            folder,
            rgb=minari.images(n)[None],
            actions=np.zeros((1, n, 2), np.int64),
            coords=None,
        ),
        "minari": lambda folder, n: minari.write(folder, {"episode_0": minari.episode([0] * n)}),
        "mineworld": lambda folder, n: mineworld.written(folder, times(mineworld.LINES, n), n),
        "multi-agent-jsonl": lambda folder, n: agents.write(
            folder, "episode_0", times([agents.both(1, 0)], n), n
        ),
        "open-oasis": lambda folder, n: oasis.saved(folder, times(oasis.binned(), n), frames=n),
        "p2p": lambda folder, n: p2p.session(folder / "id", [p2p.field(1, p2p.action("w"))] * n),
        "rlds": lambda folder, n: rlds.write(folder, rlds.episode(n)),
        "vpt": lambda folder, n: vpt.record(folder, [vpt.line("w")] * n),
        "webdataset": tar,
        "wham-npz": lambda folder, n: wham.write(folder / wham.NAME, wham.episode(n)),
    }


if __name__ == "__main__":
    main()
