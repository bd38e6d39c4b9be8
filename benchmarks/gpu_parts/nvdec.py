"""Videos decoded by the GPU, against the frames of the CPU."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import wham_data
from gpu_parts.report import Bench

RECORDINGS = Path(wham_data.__file__).parent / "pipelines" / "demo_recordings"


def nvdec(bench: Bench) -> None:
    """The bundled recordings, every frame, in both ways."""
    try:
        from wham_data.pipelines.video.hardware import why_no_gpu
    except ImportError as missing:
        bench.note("videos on the GPU", f"not run: {missing.name} is not installed")
        return
    if not bench.gpu:
        bench.note("videos on the GPU", "not run: this is a dry run on a CPU")
        return
    if (why := why_no_gpu()) is not None:
        bench.note("videos on the GPU", f"not run: {why}")
        return
    for path in sorted(RECORDINGS.glob("*.mp4")):
        _one_video(bench, path)


def _one_video(bench: Bench, path: Path) -> None:
    from wham_data.pipelines.video import VideoLimits, decode_frames, index_video
    from wham_data.pipelines.video.source import Decoder

    def decoded(decoder: Decoder) -> tuple[str, tuple[str, ...], NDArray[np.uint8], float]:
        index = index_video(path, VideoLimits(decoder=decoder))
        picks = np.arange(len(index.times_ns))
        started = time.perf_counter()
        frames = np.concatenate(list(decode_frames(index, picks)))
        return index.decoder, index.notes, frames, len(picks) / (time.perf_counter() - started)

    _, _, expected, rate_of_cpu = decoded("cpu")
    used, notes, found, rate = decoded("nvdec")
    bench.check(
        f"{path.name}: decoded by",
        used,
        used == "nvdec",
        "nvdec",
        "; ".join(notes) or "see `hardware.decoder_for`",
    )
    differ = int((expected != found).any(axis=(1, 2, 3)).sum())
    bench.check(
        f"{path.name}: frames that differ, of {len(expected)}",
        differ,
        differ == 0,
        "0",
        "do not use --decoder nvdec on this machine; compare the planes before scaling",
    )
    bench.note("    frames/s on the CPU (one thread), on the GPU", f"{rate_of_cpu:.0f}, {rate:.0f}")
