"""genie-bottle's CoinRun: red is red again, and a video without actions is no error."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from makers.readings import frames_of, recordings_in, the_recording
from makers.recordings import ingest_here
from makers.video_clips import read_stamp, stamped, write_clip

from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.readers import discover

SIDE = (64, 64)


def clip(path: Path, count: int = 12, size: tuple[int, int] = SIDE, codec: str = "mpeg4") -> Path:
    """As genie-bottle writes one: frame k shows number k, red and blue exchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = (stamped(k, *size)[:, :, ::-1].copy() for k in range(count))
    rate = Fraction(30)
    return write_clip(
        path, range(count), codec=codec, time_base=1 / rate, rate=rate, size=size, frames=frames
    )


def redness(frames: np.ndarray) -> float:
    """How much more red than blue there is in the lower half, where the block is red."""
    lower = frames[:, 32:].astype(float)
    return float(lower[..., 0].mean() - lower[..., 2].mean())


def test_frames_come_out_in_their_true_colours(tmp_path: Path) -> None:
    clip(tmp_path / "Coinrun/train/0007.mp4")

    opened = the_recording(tmp_path)
    frames = frames_of(opened, SIDE)

    assert [read_stamp(frame) for frame in frames] == list(range(12))
    assert redness(frames) > 10
    assert opened.actions is None
    assert opened.frame_times_ns[3] == 100_000_000


def test_colours_can_be_left_as_stored(tmp_path: Path) -> None:
    clip(tmp_path / "0007.mp4")

    assert redness(frames_of(the_recording(tmp_path, colours="stored"), SIDE)) < -10


def test_the_seed_of_the_level_is_the_map(tmp_path: Path) -> None:
    clip(tmp_path / "0007.mp4", 2)

    (found,) = discover([tmp_path]).recordings

    assert (found.provenance.game, found.provenance.map) == ("CoinRun", "0007")


def test_every_step_of_the_corpus_has_no_known_action(tmp_path: Path) -> None:
    clip(tmp_path / "in/0007.mp4")
    settings = IngestSettings(rate=None, size=SIDE, tokenizer=None, actions="wham16")

    report = ingest_here(tmp_path / "in", tmp_path / "corpus", settings)

    assert (report.ingested, report.steps) == (1, 12)
    steps = Corpus.open(tmp_path / "corpus").scan().collect()
    assert steps["actions"].null_count() == 12


def test_videos_of_another_size_codec_or_name_or_with_a_log_are_left_alone(tmp_path: Path) -> None:
    clip(tmp_path / "0001.mp4", 2, (96, 64))
    clip(tmp_path / "0002.mp4", 2, codec="libx264")
    clip(tmp_path / "level_3.mp4", 2)
    clip(tmp_path / "0004.mp4", 2)
    (tmp_path / "0004.csv").write_text("time_s,jump\n0,1\n")

    assert recordings_in(tmp_path, "genie-coinrun") == {}
