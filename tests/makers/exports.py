"""Small corpora with pictures, for the tests of exports."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makers.video_clips import stamped
from wham_data.corpus.corpus import Corpus
from wham_data.corpus.shards import shard_id
from wham_data.pipelines.video import encode_jpeg, encode_png
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.clock import Grid
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.manifest import EpisodeRow
from wham_data.schemas.recording import Frames
from wham_data.schemas.steps import EpisodeSteps

SIZE = (96, 64)


def picture_of(number: int, step: int, size: tuple[int, int] = SIZE) -> Frames:
    """The picture of a step of an episode: a stamp that can be read off it."""
    return stamped((100 * number + step) % 4096, *size)


def actions_of(
    space: ActionSpace, number: int, n_steps: int, unknown: tuple[int, ...] = ()
) -> NDArray[np.float32]:
    """Actions that fit the space: buttons at random, of `discrete` spaces one; axes on tenths."""
    rng = np.random.default_rng(number)
    low, high = np.clip(space.ranges(), -10, 10).T
    values = np.round(rng.uniform(low, high, (n_steps, space.size)), 1)
    buttons = space.of_kind("button")
    values[:, buttons] = rng.random((n_steps, len(buttons))) < 0.3
    if len(buttons) == space.size and space.name not in ("csgo51", "pad"):
        values = np.eye(space.size)[rng.integers(0, space.size, n_steps)]
    values[list(unknown)] = np.nan
    return (values + 0.0).astype(np.float32)


def tokens_of(number: int, n_steps: int, info: CorpusInfo) -> NDArray[np.uint16]:
    """Tokens at random."""
    assert info.tokenizer is not None
    rng = np.random.default_rng(number)
    return rng.integers(0, info.tokenizer.vocab_size, (n_steps, info.n_tokens), np.uint16)


def picture_corpus(
    location: Path,
    space: str | ActionSpace = "wham16",
    episodes: Mapping[str, Mapping[str, Any]] | int = 2,
    *,
    n_steps: int = 6,
    unknown: tuple[int, ...] = (),
    size: tuple[int, int] = SIZE,
    **changes: Any,
) -> Corpus:
    """A corpus of PNG pictures; episode k shows `picture_of(k, step)`.

    Args:
        location: a new folder.
        space: of the actions.
        episodes: fields of the manifest's rows by name; or how many, called e0, e1, ...
        n_steps: of each.
        unknown: steps whose action is not known.
        size: of the pictures.
        changes: of the corpus' info.
    """
    space = load_space(space) if isinstance(space, str) else space
    if isinstance(episodes, int):
        episodes = {f"e{k}": {} for k in range(episodes)}
    info = CorpusInfo(**{"action_space": space, "size": size, "frames": "png", **changes})
    coded = {"png": encode_png, "jpeg": encode_jpeg}
    rate = info.rate if isinstance(info.rate, Fraction) else Fraction(10)
    made = []
    for number, (name, fields) in enumerate(episodes.items()):
        actions = actions_of(space, number, fields.get("n_steps", n_steps), unknown)
        count = len(actions)
        known = ~np.isnan(actions).any(axis=1)
        steps = np.arange(count, dtype=np.float32)
        made.append(
            EpisodeSteps(
                episode=name,
                time_ns=Grid(0, count, rate).edges_ns()[:-1],
                actions=actions,
                action_known=known,
                tokens=tokens_of(number, count, info) if info.tokenizer else None,
                frames=None
                if info.frames == "none"
                else [coded[info.frames](picture_of(number, step, size)) for step in range(count)],
                state=np.tile(steps[:, None], info.state_size) if info.state_size else None,
                reward=steps / 4 if info.reward else None,
                text=[f"task {step // 4}" for step in range(count)] if info.text else None,
            )
        )
    corpus = Corpus.create(location, info)
    shard = corpus.write_shard(made, shard_id(set(episodes), info.settings_hash))
    rows = [
        EpisodeRow(
            **{
                "episode": each.episode,
                "recording": each.episode,
                "source": f"recordings/{each.episode}.mp4",
                "format": "video-log",
                "shard": shard.name,
                "shard_sha256": shard.sha256,
                "row_start": place.start,
                "n_steps": each.n_steps,
                "split": "train",
                "settings": info.settings_hash,
                "source_fps": float(rate),
                "tokenizer": info.tokenizer.fingerprint if info.tokenizer else None,
                "missing_actions": int((~each.action_known).sum()),
                **{k: v for k, v in episodes[each.episode].items() if k != "n_steps"},
            }
        )
        for each, place in zip(made, shard.episodes, strict=True)
    ]
    corpus.commit(rows)
    return corpus
