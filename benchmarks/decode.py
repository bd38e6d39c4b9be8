"""Measure how fast frames are decoded, and compare with the fastest ffmpeg command for the same frames.

    python benchmarks/decode.py --source RECORDING.mp4 --cache DIR [--seconds 60] [--runs 5]
    python benchmarks/decode.py --source RECORDING.mp4 --cache DIR --minutes 60     # one long file

The clips are made from the source (upscaled and looped; without a source, from noise) and kept in the
cache. This package (index and decode) alternates with
`ffmpeg -vf fps=10:round=up,scale=300:180:flags=area` at several thread settings; the fastest setting
counts. The medians are printed in a Markdown table at the end. Wall time does not include the start of
Python, but it includes the start of ffmpeg (50 ms).
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.video import DecodeAudit, decode_frames, index_video
from wham_data.pipelines.video.scale import Scaler

TENTH_NS = 100_000_000
SIZE = (300, 180)
THREADS = 2
# These use only one core. They run once, to measure their CPU time.
SLOW = frozenset({"ours, 1 thread", "ffmpeg -threads 1"})


@dataclass(frozen=True, slots=True)
class Clip:
    """A file to make and decode; `size` is (width, height), `options` are those of the encoder."""

    name: str
    codec: str
    size: tuple[int, int]
    options: dict[str, str]
    suffix: str = ".mp4"


X264 = {"preset": "veryfast", "g": "250"}
CLIPS = (
    Clip("1080p60 H.264, B-frames", "libx264", (1920, 1080), {**X264, "b": "9M", "bf": "3"}),
    Clip("720p60 H.264, B-frames", "libx264", (1280, 720), {**X264, "b": "6M", "bf": "3"}),
    Clip(
        "1080p60 H.264, two B-frames always, as hardware encoders write",
        "libx264",
        (1920, 1080),
        {**X264, "b": "9M", "bf": "2", "x264-params": "b-adapt=0:b-pyramid=none"},
    ),
    Clip("1080p60 H.264, no B-frames", "libx264", (1920, 1080), {**X264, "b": "9M", "bf": "0"}),
    Clip(
        "1080p60 HEVC",
        "libx265",
        (1920, 1080),
        {"preset": "ultrafast", "b": "6M", "x265-params": "bframes=4:log-level=none"},
    ),
    Clip("1080p60 AV1", "libsvtav1", (1920, 1080), {"preset": "11", "b": "5M", "g": "240"}),
)


def source_frames(source: Path | None, size: tuple[int, int]) -> Iterator[av.VideoFrame]:
    """Endless YUV frames of `size`: the source, repeated; without a source, moving noise."""
    if source is None:
        rng = np.random.default_rng(0)
        field = rng.integers(0, 256, (size[1] // 8 + 64, size[0] // 8 + 64), np.uint8)
        shift = 0
        while True:
            shift = (shift + 1) % 64
            small = field[shift : shift + size[1] // 8, shift // 2 : shift // 2 + size[0] // 8]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(small), format="gray")
            yield frame.reformat(width=size[0], height=size[1], format="yuv420p")
    while True:
        with av.open(str(source)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                yield frame.reformat(width=size[0], height=size[1], format="yuv420p")


def make(clip: Clip, source: Path | None, seconds: int, cache: Path) -> Path:
    """The file of a clip; made if it does not exist."""
    stem = "".join(c if c.isalnum() else "_" for c in clip.name)
    path = cache / f"{stem}_{seconds}s{clip.suffix}"
    if path.exists():
        return path
    print(f"making {path.name} ...", file=sys.stderr, flush=True)
    unfinished = path.with_name("unfinished_" + path.name)
    with av.open(str(unfinished), "w") as out:
        stream = out.add_stream(clip.codec, rate=Fraction(60), options=clip.options)
        stream.width, stream.height, stream.pix_fmt = *clip.size, "yuv420p"
        stream.codec_context.thread_count = 0
        for number, frame in zip(
            range(seconds * 60), source_frames(source, clip.size), strict=False
        ):
            frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, 60), 0
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    unfinished.rename(path)
    return path


def repeat(short: Path, minutes: int) -> Path:
    """The clip repeated to this length, without encoding it again; made if it does not exist."""
    path = short.with_name(f"{short.stem}_{minutes}min{short.suffix}")
    if path.exists():
        return path
    unfinished = path.with_name("unfinished_" + path.name)
    with av.open(str(unfinished), "w") as out:
        stream, shift = None, 0
        while shift < minutes * 60:
            with av.open(str(short)) as container:
                source = container.streams.video[0]
                stream = stream or out.add_stream_from_template(source)
                for packet in container.demux(source):
                    if packet.size:
                        packet.pts += int(shift / source.time_base)
                        packet.dts += int(shift / source.time_base)
                        packet.stream = stream
                        out.mux(packet)
                shift += round(source.duration * source.time_base)
    unfinished.rename(path)
    return path


def grid_picks(times_ns: NDArray[np.int64], end_ns: int) -> NDArray[np.int64]:
    """The number of the frame on screen at every tenth of a second, int64 [K]."""
    grid = np.arange(times_ns[0], end_ns, TENTH_NS)
    return np.searchsorted(times_ns, grid, side="right") - 1


def ours(path: Path, threads: int) -> dict[str, float]:
    """One decode in this process: wall and CPU seconds, peak memory in MiB, number of frames, ..."""
    wall, cpu = time.perf_counter(), time.process_time()
    index = index_video(path)
    indexed = time.perf_counter()
    audit = DecodeAudit()
    picks = grid_picks(index.times_ns, index.end_ns)
    count = sum(
        len(batch) for batch in decode_frames(index, picks, SIZE, threads=threads, audit=audit)
    )
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "index": indexed - wall,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "frames": count,
        "skipped": (audit.skipped_disposable + audit.skipped_unneeded) / index.found_frames,
        "lost": len(audit.lost),
    }


def ours_apart(path: Path, threads: int) -> dict[str, float]:
    """`ours` in a separate process."""
    command = [sys.executable, __file__, "--child", str(path), "--threads", str(threads)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def ffmpeg(binary: str, path: Path, threads: str) -> dict[str, float]:
    """Decode the same frames with the ffmpeg command: wall and CPU seconds."""
    chain = f"fps=10:round=up,scale={SIZE[0]}:{SIZE[1]}:flags=area"
    setting = [] if threads == "auto" else ["-threads", threads]
    command = [binary, "-v", "error", "-nostdin", *setting, "-i", str(path), "-an", "-vf", chain]
    command += ["-pix_fmt", "rgb24", "-f", "rawvideo", "-y", "/dev/null"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = time.perf_counter()
    subprocess.run(command, check=True)
    elapsed = time.perf_counter() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": elapsed, "cpu": cpu}


def differing_frames(path: Path, threads: int) -> tuple[int, int]:
    """Number of frames that differ from a full decode with the same scaling, and number compared."""
    index = index_video(path)
    picks = grid_picks(index.times_ns, index.end_ns)
    time_base = Fraction(0)
    scaler = Scaler(index.picture, SIZE, "stretch")
    decoded = iter(
        frame
        for batch in decode_frames(index, picks, SIZE, threads=threads, audit=DecodeAudit())
        for frame in batch
    )
    ranks = {int(rank) for rank in picks}
    differing = compared = 0
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for rank, frame in enumerate(container.decode(video=0)):
            time_base = frame.time_base or time_base
            if rank in ranks:
                compared += 1
                differing += not np.array_equal(next(decoded), scaler.picture(frame))
    return differing, compared


def compare(clip: Clip, path: Path, binary: str, runs: int) -> str:
    """Measure this package and ffmpeg in turns; return a row of the table."""
    contenders: dict[str, Callable[[], dict[str, float]]] = {
        "ours": lambda: ours_apart(path, THREADS),
        "ours, 1 thread": lambda: ours_apart(path, 1),
        **{
            f"ffmpeg -threads {n}": (lambda n=n: ffmpeg(binary, path, n))
            for n in ("auto", "1", "2")
        },
    }
    results: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for run in range(runs):
        for name, contender in contenders.items():
            if run and name in SLOW:
                continue
            results[name].append(contender())
            print(
                f"{clip.name} {run + 1}/{runs} {name}: {results[name][-1]['wall']:.2f} s",
                file=sys.stderr,
            )

    def median(name: str, what: str) -> float:
        return statistics.median(result[what] for result in results[name])

    best = min(
        (name for name in results if "ffmpeg" in name), key=lambda name: median(name, "wall")
    )
    differing, compared = differing_frames(path, THREADS)
    bits = path.stat().st_size * 8 / (index_video(path).end_ns / 1e9) / 1e6
    return (
        f"| {clip.name} | {bits:.1f} | {median('ours', 'wall'):.2f} | {median('ours', 'cpu'):.2f} "
        f"| {median('ours, 1 thread', 'wall'):.2f} | {median('ours, 1 thread', 'cpu'):.2f} "
        f"| {median(best, 'wall'):.2f} ({best.removeprefix('ffmpeg ')}) | {median(best, 'cpu'):.2f} "
        f"| **{median('ours', 'wall') / median(best, 'wall'):.2f}** "
        f"| {median('ours', 'skipped'):.0%} | {median('ours', 'peak_mb'):.0f} "
        f"| {differing} of {compared} |"
    )


HEADER = (
    "| clip | Mbit/s | ours, 2 threads: wall s | CPU s | 1 thread: wall s | CPU s "
    "| fastest ffmpeg: wall s | CPU s | wall ratio | pictures not decoded | peak MB | frames that differ |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="a recording to make the clips from")
    parser.add_argument(
        "--cache", type=Path, help="folder for the clips (default: a temporary folder)"
    )
    parser.add_argument("--seconds", type=int, default=60, help="length of a clip")
    parser.add_argument("--runs", type=int, default=5, help="runs of which the median is taken")
    parser.add_argument(
        "--minutes", type=int, help="decode one clip of this length and report memory"
    )
    parser.add_argument("--only", default="", help="use only clips whose name contains this")
    parser.add_argument(
        "--ffmpeg", default=shutil.which("ffmpeg"), help="ffmpeg binary to compare with"
    )
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=THREADS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(ours(arguments.child, arguments.threads)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        cache = arguments.cache or Path(temporary)
        cache.mkdir(parents=True, exist_ok=True)
        if arguments.minutes:
            short = make(CLIPS[0], arguments.source, arguments.seconds, cache)
            path = repeat(short, arguments.minutes)
            found = ours_apart(path, THREADS)
            print(
                f"{arguments.minutes} min of {CLIPS[0].name} ({path.stat().st_size / 1e9:.2f} GB): "
                f"{found['frames']:.0f} frames in {found['wall']:.0f} s "
                f"(index {found['index']:.1f} s), peak {found['peak_mb']:.0f} MB"
            )
            return
        rows = []
        for clip in CLIPS:
            if arguments.only in clip.name:
                path = make(clip, arguments.source, arguments.seconds, cache)
                if arguments.ffmpeg:
                    rows.append(compare(clip, path, arguments.ffmpeg, arguments.runs))
                else:
                    print(clip.name, json.dumps(ours_apart(path, THREADS)))
        if rows:
            print(HEADER, *rows, sep="\n")


if __name__ == "__main__":
    main()
