"""Small corpora with real pictures, and runs of `caption` on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from makers.corpora import info, recording_of, rows_for, steps
from makers.vision_server import VisionServer
from wham_data.corpus import Corpus
from wham_data.corpus.shards import shard_id
from wham_data.pipelines.caption.endpoint import EndpointSettings
from wham_data.pipelines.caption.job import CaptionSettings, caption
from wham_data.pipelines.caption.report import CaptionReport
from wham_data.pipelines.video import encode_png
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.manifest import EpisodeRow
from wham_data.schemas.recording import Frames
from wham_data.schemas.steps import EpisodeSteps

EPISODES = ("ann-0", "ann-1", "bob-0")
PROMPT = "What happens?"


def picture(step: int, size: tuple[int, int] = (30, 20)) -> Frames:
    """A grey picture, uint8 [H, W, 3], lighter from step to step."""
    return np.full((size[1], size[0], 3), min(8 * step, 255), np.uint8)


def pictured_steps(
    episode: str, corpus: CorpusInfo, n_steps: int = 20, text: list[str | None] | None = None
) -> EpisodeSteps:
    frames = [encode_png(picture(step, corpus.size)) for step in range(n_steps)]
    return replace(steps(episode, n_steps, corpus=corpus), frames=frames, text=text)


def add_pictured(corpus: Corpus, *names: str, **fields: Any) -> list[EpisodeRow]:
    """Write one shard of the named episodes, 20 steps each; their rows, not committed yet."""
    text, n_steps = fields.pop("text", None), fields.pop("n_steps", 20)
    episodes = [pictured_steps(name, corpus.info, n_steps, text) for name in names]
    name = shard_id({recording_of(each) for each in names}, corpus.info.settings_hash)
    return rows_for(corpus.write_shard(episodes, name), episodes, corpus.info, **fields)


def pictured_corpus(location: Path | str, **changes: Any) -> Corpus:
    """Two shards, two recordings, three episodes of 20 steps with PNG pictures."""
    corpus = Corpus.create(location, info(**{"frames": "png", **changes}))
    corpus.commit(add_pictured(corpus, "ann-0", "ann-1", player="ann"))
    corpus.commit(add_pictured(corpus, "bob-0", player="bob"))
    return corpus


def ask(
    corpus: Corpus | Path, server: VisionServer | str, *, every: int = 8, **changes: Any
) -> CaptionReport:
    """A run that does not wait long: clips of 8, 8 and 4 steps, one request at a time."""
    mine = {"prompt", "form", "replace", "limit"}
    settings = {"prompt": PROMPT, "every": every}
    settings |= {name: changes.pop(name) for name in mine & changes.keys()}
    more = {name: changes.pop(name) for name in ("workers", "prices", "watch") if name in changes}
    endpoint: dict[str, Any] = {
        "url": server if isinstance(server, str) else server.url,
        "model": "tiny-vl",
        "concurrent": 1,
        "timeout_s": 5,
        "retries": 2,
        "first_wait_s": 0.01,
        **changes,
    }
    report = caption(corpus, CaptionSettings(**settings), EndpointSettings(**endpoint), **more)
    assert isinstance(report, CaptionReport)
    assert report.clips == (
        report.has_text + report.answered_before + report.answered + report.failed + report.left
    )
    return report


def texts(corpus: Corpus | Path | str, version: int | None = None) -> dict[str, list[str | None]]:
    """The texts of each episode, as `scan` gives them."""
    if not isinstance(corpus, Corpus):
        corpus = Corpus.open(corpus, version)
    frame = corpus.scan().select("episode", "step", "text").collect().sort("episode", "step")
    of: dict[str, list[str | None]] = {}
    for episode, _, text in frame.iter_rows():
        of.setdefault(episode, []).append(text)
    return of
