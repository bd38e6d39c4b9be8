"""Small things to dream from, a small model to do it, and the command that does."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typer.testing import CliRunner

from makers.corpora import rows_for
from makers.wham_checkpoints import VIT, gpt, write_checkpoint
from wham_data.cli.main import app
from wham_data.corpus import Corpus
from wham_data.corpus.shards import shard_id
from wham_data.inference.tokenizer import Tokenizer
from wham_data.pipelines.video import encode_png
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.errors import WhamDataError
from wham_data.schemas.steps import EpisodeSteps
from wham_data.schemas.wham_tokens import measured_from_bins

SPEC = replace(gpt(VIT), positions=4 * (VIT.tokens + 16))
"""Holds four steps."""

GREEDY = ("--greedy", "--context", 3, "--steps", 2)
Arrays = dict[str, NDArray[Any]]

WHAM16 = ",".join(load_space("wham16").names)
REST = ",".join(["0"] * 16)
"""The header of a file of actions, and a row in which nothing is done."""


@dataclass(frozen=True)
class Ran:
    """How a command ended: its exit code, what it printed, and the one line of its error."""

    code: int
    out: str
    said: str
    error: str

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.out)


def dream(*arguments: object) -> Ran:
    result = CliRunner().invoke(app, ["dream", *map(str, arguments)])
    if isinstance(result.exception, WhamDataError):
        why = result.exception
        return Ran(why.exit_code, result.stdout, result.stderr, str(why))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr, "")


def wham_episode(steps: int = 8, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    buttons, sticks = rng.integers(0, 2, (steps, 12)), rng.integers(0, 11, (steps, 4))
    return {
        "images": rng.integers(0, 256, (steps, 3, 18, 30), np.uint8),
        "actions": np.concatenate([buttons, sticks], axis=1).astype(np.float32),
    }


def write_npz(path: Path, arrays: Arrays) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def arrays_of(path: Path) -> Arrays:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def small_checkpoint(folder: Path, name: str = "model.ckpt", **more: Any) -> Path:
    """Random weights over frames of 30x18; holds four steps."""
    return write_checkpoint(folder / name, VIT, SPEC, **more)


def make_corpus(
    location: Path,
    own: Tokenizer,
    *episodes: str,
    known: NDArray[np.bool_] | None = None,
    keep: tuple[tuple[int, int], ...] | None = None,
    space: ActionSpace | None = None,
    **changes: Any,
) -> Path:
    """A corpus of episodes of 8 steps, with this tokenizer's tokens unless `changes` say other."""
    info = CorpusInfo(
        **{
            "action_space": space or load_space("wham16"),
            "tokenizer": own.info,
            "size": own.frame_size,
            **changes,
        }
    )
    corpus = Corpus.create(location, info)
    steps = [episode_steps(name, seed, info, own, known) for seed, name in enumerate(episodes)]
    shard = corpus.write_shard(steps, shard_id(episodes, info.settings_hash))
    corpus.commit(rows_for(shard, steps, info, keep=keep))
    return location


def episode_steps(
    name: str, seed: int, info: CorpusInfo, tokenizer: Tokenizer, known: NDArray[np.bool_] | None
) -> EpisodeSteps:
    arrays = wham_episode(seed=seed)
    actions = np.zeros((8, info.action_space.size), np.float32)
    if info.action_space.name == "wham16":
        actions = measured_from_bins(arrays["actions"])
    known = np.ones(8, np.bool_) if known is None else known
    actions[~known] = np.nan
    frames = np.ascontiguousarray(arrays["images"].transpose(0, 2, 3, 1))
    return EpisodeSteps(
        episode=name,
        time_ns=np.arange(8) * 100_000_000,
        actions=actions,
        action_known=known,
        tokens=tokenizer.encode(frames) if info.tokenizer else None,
        frames=[encode_png(frame) for frame in frames] if info.frames == "png" else None,
    )
