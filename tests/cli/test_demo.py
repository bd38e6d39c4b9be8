"""The demo does the whole job with what ships in the package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers.once import made_once

from wham_data.corpus import Corpus
from wham_data.pipelines.demo import DREAM, DemoResult, run_demo
from wham_data.pipelines.run.progress import Silent
from wham_data.pipelines.run.runner import LocalRunner
from wham_data.pipelines.video import decode_image, index_video

pytestmark = pytest.mark.timeout(600)
"""It is the whole job: a minute of CPU, more on a busy machine."""

SHORTER = replace(DREAM, steps=2)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    def make(folder: Path) -> DemoResult:
        return run_demo(folder, LocalRunner(), Silent(), Silent(), SHORTER)

    return made_once(tmp_path_factory, "demo", make)


def test_every_bundled_recording_goes_in(demo: DemoResult) -> None:
    assert (demo.report.found, demo.report.ingested, demo.report.exit_code) == (3, 3, 0)


def test_the_page_shows_moments_of_every_recording_and_is_not_blank(demo: DemoResult) -> None:
    page = decode_image(demo.picture.read_bytes())

    assert page.shape[1] > 1200
    assert page.shape[0] > 6 * 180
    assert page.std() > 30


def test_the_film_shows_every_step(demo: DemoResult) -> None:
    assert len(index_video(demo.video).times_ns) == demo.checked


def test_it_ends_with_a_dream_of_every_recording(demo: DemoResult) -> None:
    assert (demo.dreamt.made, demo.dreamt.actions, len(demo.dreams)) == (3, "recorded", 3)
    for overlay in demo.dreams:
        assert len(index_video(overlay).times_ns) == SHORTER.steps


def test_players_hands_are_not_still(demo: DemoResult) -> None:
    corpus = Corpus.open(demo.report.corpus)
    episode = corpus.episodes["episode"][0]
    actions = corpus.read_episode(episode).actions

    assert np.ptp(actions, axis=0).max() > 0.5


def test_a_picture_is_recognised_in_its_tokens(demo: DemoResult) -> None:
    from wham_data.inference.tokenizer import load_tokenizer
    from wham_data.inference.training.evaluate import psnr_db

    corpus = Corpus.open(demo.report.corpus)
    tokenizer = load_tokenizer("wham-tiny", "cpu")
    quality = []
    for episode in corpus.episodes["episode"]:
        steps = corpus.read_episode(episode)
        assert steps.tokens is not None
        assert steps.frames is not None
        for step in range(0, steps.n_steps, 40):
            decoded = tokenizer.decode(steps.tokens[step : step + 1])
            quality.append(psnr_db(decode_image(steps.frames[step])[None], decoded))

    assert np.mean(quality) > 22
