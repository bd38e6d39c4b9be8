"""Windows as a world model reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.corpora import TOKENIZER, recording_of, rows_for

from wham_data.corpus import Corpus, shard_id
from wham_data.feed import WindowDataset
from wham_data.feed.interleave import Interleaving
from wham_data.schemas.actions import load_space
from wham_data.schemas.corpus_info import CorpusInfo, TokenizerInfo
from wham_data.schemas.steps import EpisodeSteps
from wham_data.schemas.wham_tokens import NoTokenError, encode_actions

N, V = TOKENIZER.n_tokens, TOKENIZER.vocab_size


def play(space: str, n_steps: int = 30) -> EpisodeSteps:
    rng = np.random.default_rng(1)
    dimensions = load_space(space).dimensions
    values = [
        rng.random(n_steps) < 0.3 if d.kind == "button" else rng.uniform(d.low, d.high, n_steps)
        for d in dimensions
    ]
    return EpisodeSteps(
        "ann-0",
        np.arange(n_steps) * 100_000_000,
        np.stack(values, axis=1).astype(np.float32),
        np.ones(n_steps, bool),
        rng.integers(0, V, (n_steps, N)).astype(np.uint16),
    )


def corpus_of(location: Path, space: str = "wham16") -> Corpus:
    info = CorpusInfo(action_space=load_space(space), tokenizer=TOKENIZER, size=(30, 20))
    corpus = Corpus.create(location, info)
    episode = play(space)
    shard = corpus.write_shard([episode], shard_id({recording_of("ann-0")}, info.settings_hash))
    corpus.commit(rows_for(shard, [episode], info))
    return corpus


def dataset(corpus: Corpus, **changes: Any) -> WindowDataset:
    return WindowDataset(
        corpus, **{"length": 3, "batch_size": 4, "shuffle": False, "interleave": True, **changes}
    )


def ids_slowly(first: int, length: int) -> list[int]:
    episode = play("wham16")
    codes, _ = encode_actions(episode.actions)
    ids: list[int] = []
    for step in range(first, first + length):
        ids += episode.tokens[step].tolist()
        ids += [V + code for code in codes[step].tolist()]
    return ids


def test_a_row_of_ids_is_image_then_action_tokens_step_by_step(tmp_path: Path) -> None:
    batch = next(iter(dataset(corpus_of(tmp_path / "corpus"))))

    for first, (inputs, targets) in enumerate(zip(batch["inputs"], batch["targets"], strict=True)):
        ids = ids_slowly(first, 3)
        assert inputs.tolist() == ids[:-1]
        assert targets.tolist() == ids[1:]


def test_ids_are_contiguous_and_have_sixteen_bits(tmp_path: Path) -> None:
    batch = next(iter(dataset(corpus_of(tmp_path / "corpus"))))

    assert batch.keys() == {"inputs", "targets", "window", "position"}
    for name in ("inputs", "targets"):
        assert batch[name].dtype == np.uint16
        assert batch[name].shape == (4, 3 * (N + 16) - 1)
        assert batch[name].flags.c_contiguous


def test_the_next_observation_is_predicted_too(tmp_path: Path) -> None:
    batch = next(iter(dataset(corpus_of(tmp_path / "corpus"), next_observation=True)))

    assert batch["inputs"].shape == (4, 3 * (N + 16) + N - 1)
    assert batch["targets"][0, -N:].tolist() == play("wham16").tokens[3].tolist()


def test_windows_by_number_give_whole_rows(tmp_path: Path) -> None:
    windows = dataset(corpus_of(tmp_path / "corpus")).windows

    assert windows.flat(np.array([5, 0])).tolist() == [ids_slowly(5, 3), ids_slowly(0, 3)]


def test_other_fields_stay_beside_the_ids(tmp_path: Path) -> None:
    data = dataset(corpus_of(tmp_path / "corpus"), fields=("tokens", "actions", "step"))

    batch = next(iter(data))

    assert batch["step"][0].tolist() == [0, 1, 2]
    assert "tokens" not in batch


def test_actions_of_another_space_are_converted(tmp_path: Path) -> None:
    data = dataset(corpus_of(tmp_path / "corpus", "xinput"))
    conversion = Interleaving.of(corpus_of(tmp_path / "same", "xinput").info).conversion
    assert conversion is not None

    codes, _ = encode_actions(conversion.apply(play("xinput").actions))

    found = data.windows.flat(np.array([0])).reshape(3, N + 16)[:, N:]
    assert (found == V + codes[:3]).all()


def test_a_vocabulary_too_large_for_sixteen_bits_takes_more() -> None:
    large = TokenizerInfo("large", "f", grid=(2, 3), vocab_size=65_536, frame_size=(30, 20))
    info = CorpusInfo(action_space=load_space("wham16"), tokenizer=large, size=(30, 20))
    interleaving = Interleaving.of(info)

    ids = interleaving.flat(np.full((1, 1, N), 65_535, np.uint16), np.zeros((1, 1, 16), np.float32))

    assert ids.dtype == np.int32
    assert ids[0, N:].tolist() == (65_536 + encode_actions(np.zeros(16))[0]).tolist()


def test_an_unknown_action_has_no_id() -> None:
    interleaving = Interleaving(V, N)
    actions = np.full((1, 1, 16), np.nan, np.float32)

    with pytest.raises(NoTokenError):
        interleaving.flat(np.zeros((1, 1, N), np.uint16), actions)
