"""Small corpora for the tests of the corpus: everything visible, nothing random but by seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from wham_data.corpus.corpus import Corpus
from wham_data.corpus.shards import ShardFile, shard_id
from wham_data.schemas.actions import ActionSpace, Dimension
from wham_data.schemas.clock import Grid
from wham_data.schemas.corpus_info import CorpusInfo, TokenizerInfo
from wham_data.schemas.manifest import EpisodeRow
from wham_data.schemas.steps import EpisodeSteps

PAD = ActionSpace(
    "pad",
    (Dimension("a", "button", 0, 1), Dimension("b", "button", 0, 1), Dimension("x", "axis", -1, 1)),
)
TOKENIZER = TokenizerInfo("tiny", "fingerprint-1", grid=(2, 3), vocab_size=64, frame_size=(30, 20))


def info(**changes: Any) -> CorpusInfo:
    """10 Hz, two buttons and a stick, 6 tokens of a vocabulary of 64."""
    return CorpusInfo(**{"action_space": PAD, "tokenizer": TOKENIZER, "size": (30, 20), **changes})


def steps(episode: str, n_steps: int = 20, *, corpus: CorpusInfo | None = None) -> EpisodeSteps:
    """An episode whose content follows from its name; every seventh action is not known."""
    corpus = corpus or info()
    seed = int(hashlib.sha256(episode.encode()).hexdigest()[:8], 16)
    rng = np.random.default_rng(seed)
    rate = corpus.rate if isinstance(corpus.rate, Fraction) else Fraction(10)
    known = np.arange(n_steps) % 7 != 6
    actions = np.stack(
        [
            rng.random(n_steps) < 0.25,
            rng.random(n_steps) < 0.5,
            rng.uniform(-1, 1, n_steps),
        ],
        axis=1,
    ).astype(np.float32)
    actions[~known] = np.nan
    tokens = rng.integers(0, 64, (n_steps, corpus.n_tokens)).astype(np.uint16)
    return EpisodeSteps(
        episode=episode,
        time_ns=Grid(seed % 1000, n_steps, rate).edges_ns()[:-1],
        actions=actions,
        action_known=known,
        tokens=tokens if corpus.tokenizer else None,
        frames=[b"\xff\xd8picture"] * n_steps if corpus.frames != "none" else None,
    )


def recording_of(episode: str) -> str:
    """The hash of the recording an episode `name-0` is a stretch of."""
    return hashlib.sha256(episode.split("-")[0].encode()).hexdigest()


def rows_for(
    shard: ShardFile, episodes: Iterable[EpisodeSteps], corpus: CorpusInfo, **fields: Any
) -> list[EpisodeRow]:
    """Manifest rows of the episodes of a shard."""
    start = {each.episode: each for each in shard.episodes}
    return [
        EpisodeRow(
            **{
                "episode": each.episode,
                "recording": recording_of(each.episode),
                "source": f"recordings/{each.episode}.mp4",
                "format": "video-log",
                "shard": shard.name,
                "shard_sha256": shard.sha256,
                "row_start": start[each.episode].start,
                "n_steps": each.n_steps,
                "split": "train",
                "settings": corpus.settings_hash,
                "start_ns": int(each.time_ns[0]),
                "source_fps": 60.0,
                "missing_actions": int((~each.action_known).sum()),
                "tokenizer": corpus.tokenizer.fingerprint if corpus.tokenizer else None,
                **fields,
            }
        )
        for each in episodes
    ]


def add_shard(corpus: Corpus, *names: str, n_steps: int = 20, **fields: Any) -> list[EpisodeRow]:
    """Write one shard of the named episodes; their rows, not committed yet."""
    episodes = [steps(name, n_steps, corpus=corpus.info) for name in names]
    name = shard_id({recording_of(each) for each in names}, corpus.info.settings_hash)
    return rows_for(corpus.write_shard(episodes, name), episodes, corpus.info, **fields)


def small_corpus(location: Path | str, **changes: Any) -> Corpus:
    """Two shards, three recordings, four episodes, committed one shard at a time."""
    corpus = Corpus.create(location, info(**changes))
    corpus.commit(add_shard(corpus, "ann-0", "ann-1", player="ann", match="m1", game="maze"))
    corpus.commit(add_shard(corpus, "bob-0", "cem-0", player="bob", split="val", license="CC0-1.0"))
    return corpus
