"""A GPU gives the frames of the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import wham_data

RECORDINGS = Path(wham_data.__file__).parent / "pipelines" / "demo_recordings"


@pytest.mark.gpu
@pytest.mark.parametrize("video", ["coinrun", "doom", "miniworld"])
def test_a_gpu_gives_the_frames_of_the_cpu(video: str, cuda: str) -> None:
    del cuda
    pytest.importorskip("av", reason="videos need PyAV")
    from wham_data.pipelines.video import (
        DecodeAudit,
        VideoLimits,
        decode_frames,
        index_video,
        need_gpu,
    )

    need_gpu()
    path = RECORDINGS / f"{video}.mp4"
    here, there = (index_video(path, VideoLimits(decoder=each)) for each in ("cpu", "nvdec"))
    picks = np.arange(len(here.times_ns))
    assert there.decoder == "nvdec", there.notes

    audit = DecodeAudit()
    pairs = zip(decode_frames(here, picks), decode_frames(there, picks, audit=audit), strict=True)

    assert all(np.array_equal(one, other) for one, other in pairs)
    assert audit.pictures_decoded == len(picks)
