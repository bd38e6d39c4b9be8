"""Export to genie-bottle's CoinRun videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from makers.exports import picture_corpus, picture_of
from makers.readings import frames_of, recordings_in
from makers.video_clips import read_stamp

import wham_data
from wham_data.schemas.errors import UsageError

SIZE = (64, 64)
EPISODES = {"e0": {"split": "train"}, "e1": {"split": "val"}, "e2": {"split": "train"}}


def test_videos_of_each_split_are_numbered_through_and_come_back_in_their_colours(
    tmp_path: Path,
) -> None:
    corpus = picture_corpus(tmp_path / "corpus", episodes=EPISODES, unknown=(1,), size=SIZE)

    report = wham_data.export(corpus, to="coinrun", out=tmp_path / "out")

    assert (report.written, report.left_out_steps) == (3, 0)
    found = recordings_in(tmp_path / "out", "genie-coinrun")
    assert list(found) == [
        "Coinrun/train/0000.mp4",
        "Coinrun/train/0002.mp4",
        "Coinrun/val/0001.mp4",
    ]
    for opened, number in zip(found.values(), (0, 2, 1), strict=True):
        assert opened.frame_times_ns.tolist() == [100_000_000 * k for k in range(6)]
        for step, frame in enumerate(frames_of(opened, SIZE)):
            truth = picture_of(number, step, SIZE)
            assert read_stamp(frame) == 100 * number + step
            assert np.abs(frame.astype(int).mean((0, 1)) - truth.mean((0, 1))).max() < 3


def test_colours_can_be_written_as_they_are(tmp_path: Path) -> None:
    corpus = picture_corpus(tmp_path / "corpus", episodes=1, size=SIZE)

    wham_data.export(corpus, to="coinrun", out=tmp_path / "out", options={"colours": "true"})

    (opened,) = recordings_in(tmp_path / "out", "genie-coinrun", colours="stored").values()
    off = frames_of(opened, SIZE)[0].astype(int) - picture_of(0, 0, SIZE)
    assert np.abs(off.mean((0, 1))).max() < 3


def test_pictures_of_another_size_are_refused_with_the_way_out(tmp_path: Path) -> None:
    corpus = picture_corpus(tmp_path / "corpus")

    with pytest.raises(UsageError, match="coinrun is 64x64, the corpus 96x64: ingest with --size"):
        wham_data.export(corpus, to="coinrun", out=tmp_path / "out")


def test_opencv_sees_them_as_the_sampler_left_them(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    corpus = picture_corpus(tmp_path / "corpus", episodes=1, size=SIZE)
    wham_data.export(corpus, to="coinrun", out=tmp_path / "out")

    video = cv2.VideoCapture(str(tmp_path / "out/Coinrun/train/0000.mp4"))
    there, frame = video.read()

    assert there
    off = frame.astype(int) - picture_of(0, 0, SIZE)
    assert np.abs(off.mean((0, 1))).max() < 3, "what it takes for BGR is RGB"
