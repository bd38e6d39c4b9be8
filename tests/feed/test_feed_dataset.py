"""WindowDataset: what a batch holds, in which order, and going on exactly where it stood."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from cProfile import Profile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.corpora import add_shard, info, recording_of, rows_for, small_corpus, steps
from makers.windows import TRAIN, VAL, dataset, feed_corpus

import wham_data
from wham_data.corpus import Corpus, shard_id
from wham_data.feed import WindowDataset, to_numpy, to_torch
from wham_data.schemas.errors import (
    IntegrityError,
    MismatchError,
    NoInputsError,
    UsageError,
)

Batches = Iterable[dict[str, Any]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return feed_corpus(tmp_path_factory.mktemp("feed") / "corpus")


def private_kb() -> int:
    """Memory of this process that is not mapped from files."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


def numbers(batches: Batches) -> list[int]:
    """The windows of some batches, in order."""
    return [int(n) for batch in batches for n in np.atleast_1d(np.asarray(batch["window"]))]


# What a batch holds


def test_a_batch_holds_the_steps_that_the_corpus_has(corpus: Corpus) -> None:
    fields = ("tokens", "actions", "action_known", "step", "time_ns")
    by_start = {
        int(time): (episode, step)
        for episode in (steps(name, n) for name, n in (TRAIN | VAL).items())
        for step, time in enumerate(episode.time_ns)
    }
    seen = set()
    for batch in dataset(corpus, fields=fields, split=None, unknown_actions="keep"):
        for tokens, actions, known, step, time in zip(*(batch[f] for f in fields), strict=True):
            episode, first = by_start[int(time[0])]
            rows = slice(first, first + 4)
            assert (tokens == episode.tokens[rows]).all()
            assert np.array_equal(actions, episode.actions[rows], equal_nan=True)
            assert (known == episode.action_known[rows]).all()
            assert (step == np.arange(first, first + 4)).all()
            assert (time == episode.time_ns[rows]).all()
            seen.add((episode.episode, first))
    assert len(seen) == sum(n - 3 for n in (TRAIN | VAL).values())


def test_a_batch_is_contiguous_and_keeps_its_sixteen_bits(corpus: Corpus) -> None:
    batch = next(iter(dataset(corpus)))

    assert {name: (v.dtype.name, v.shape) for name, v in batch.items()} == {
        "tokens": ("uint16", (3, 4, 6)),
        "actions": ("float32", (3, 4, 3)),
        "window": ("int64", (3,)),
        "position": ("int64", (2,)),
    }
    assert all(values.flags.c_contiguous for values in batch.values())


def test_without_a_batch_size_windows_come_one_by_one(corpus: Corpus) -> None:
    single = list(dataset(corpus, batch_size=None))

    assert single[0]["tokens"].shape == (4, 6)
    assert numbers(single) == numbers(dataset(corpus))


def test_a_window_of_a_split_holds_no_other_split(corpus: Corpus) -> None:
    def times(split: str | None) -> set[int]:
        windows = dataset(corpus, split=split, fields=("time_ns",)).windows
        return set(windows[:]["time_ns"].ravel().tolist())

    assert not times("train") & times("val")
    assert times("train") | times("val") == times(None)


def test_windows_with_unknown_actions_are_left_out_unless_asked_for(corpus: Corpus) -> None:
    left = dataset(corpus, epochs=1)
    kept = dataset(corpus, unknown_actions="keep")

    assert all(not np.isnan(batch["actions"]).any() for batch in left)
    assert any(np.isnan(batch["actions"]).any() for batch in kept)
    # Steps 6, 13, 20 and 27 are unknown; windows of 4 begin at three of the six between two of them.
    assert len(left.windows) == 2 * (3 + 3 + 3) + (3 + 3 + 3 + 3 + 2)
    assert len(kept.windows) == 2 * 17 + 30


def test_the_next_observation_is_one_more_of_them_alone(corpus: Corpus) -> None:
    fields = ("tokens", "actions", "step", "action_known")
    batch = next(iter(dataset(corpus, next_observation=True, fields=fields)))

    assert {name: batch[name].shape[1] for name in fields} == {
        "tokens": 5,
        "actions": 4,
        "step": 5,
        "action_known": 4,
    }
    assert (np.diff(batch["step"]) == 1).all()


def test_windows_stay_within_what_is_kept(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus", info())
    corpus.commit(add_shard(corpus, "ann-0", keep=((0, 5), (5, 6), (8, 14))))
    corpus.commit(add_shard(corpus, "bob-0", keep=()))

    windows = dataset(corpus, unknown_actions="keep", fields=("step",)).windows

    assert windows[:]["step"][:, 0].tolist() == [0, 1, 8, 9, 10]


def test_windows_that_cross_row_groups_are_whole(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus", info())
    corpus.commit(add_shard(corpus, "ann-0", n_steps=9_000))
    group = 4_096
    numbers = [0, group - 4, group - 3, group - 1, group, 2 * group - 2, 9_000 - 4]

    batch = dataset(corpus, unknown_actions="keep").windows[numbers]

    tokens = steps("ann-0", 9_000).tokens
    assert (batch["tokens"] == np.stack([tokens[n : n + 4] for n in numbers])).all()


def test_strides_count_from_the_beginning_of_what_is_kept(corpus: Corpus) -> None:
    windows = dataset(corpus, stride=5, fields=("step",), unknown_actions="keep").windows

    first = windows[:]["step"][:, 0].tolist()
    assert sorted(first) == sorted([0, 5, 10, 15] * 3 + [20, 25])


# Random access


def test_a_window_by_number_is_the_one_in_the_batch(corpus: Corpus) -> None:
    data = dataset(corpus)
    for batch in data:
        again = data.windows[batch["window"]]
        assert (again["tokens"] == batch["tokens"]).all()
        assert (data.windows[int(batch["window"][0])]["tokens"] == batch["tokens"][0]).all()


def test_windows_are_numbered_like_a_list(corpus: Corpus) -> None:
    windows = dataset(corpus).windows
    n = len(windows)

    assert (windows[-1]["tokens"] == windows[n - 1]["tokens"]).all()
    assert windows[n - 2 :]["tokens"].shape[0] == 2
    assert windows[[]]["tokens"].shape == (0, 4, 6)
    for beyond in (n, -n - 1, [0, n]):
        with pytest.raises(IndexError):
            windows[beyond]
    with pytest.raises(IndexError):
        windows[0.5]  # type: ignore[index]


# Order


def test_an_epoch_has_every_window_once(corpus: Corpus) -> None:
    data = dataset(corpus)

    assert sorted(numbers(data)) == list(range(len(data.windows)))
    assert len(data) == -(-len(data.windows) // 3)


def test_unshuffled_windows_come_in_order(corpus: Corpus) -> None:
    data = dataset(corpus, shuffle=False)

    assert numbers(data) == list(range(len(data.windows)))


def test_each_loop_is_the_next_epoch(corpus: Corpus) -> None:
    data = dataset(corpus)
    first, second = numbers(data), numbers(data)

    assert first != second
    assert sorted(first) == sorted(second)
    assert data.epoch == 2
    assert first + second == numbers(dataset(corpus, epochs=2))


def test_a_loop_that_was_broken_off_begins_again(corpus: Corpus) -> None:
    data = dataset(corpus)
    peeked = next(iter(data))

    assert numbers([peeked]) == numbers(data)[:3]


def test_an_epoch_can_be_asked_for(corpus: Corpus) -> None:
    data, other = dataset(corpus), dataset(corpus)
    list(data)
    other.set_epoch(1)

    assert numbers(data) == numbers(other)


def test_the_order_depends_on_the_seed(corpus: Corpus) -> None:
    assert numbers(dataset(corpus, seed=1)) != numbers(dataset(corpus, seed=2))


def test_a_dataset_without_end_has_no_length(corpus: Corpus) -> None:
    data = dataset(corpus, epochs=None)
    endless = iter(data)
    n = len(data.windows)

    seen = [next(endless) for _ in range(3 * -(-n // 3))]

    assert numbers(seen) == numbers(dataset(corpus, epochs=3))
    with pytest.raises(TypeError, match="no length"):
        len(data)


@settings(deadline=None, max_examples=25)
@given(
    ranks=st.integers(1, 4),
    per_rank=st.integers(1, 5),
    then=st.sampled_from([(1, 1), (1, 4), (2, 3), (4, 1), (3, 2)]),
    taken=st.integers(0, 8),
)
def test_other_ranks_go_on_exactly(
    corpus: Corpus, ranks: int, per_rank: int, then: tuple[int, int], taken: int
) -> None:
    readers = [
        dataset(corpus, rank=rank, world_size=ranks, batch_size=per_rank) for rank in range(ranks)
    ]
    taken = min(taken, *(len(reader) for reader in readers))
    consumed, state = [], readers[0].state_dict()
    for reader in readers:
        batches = iter(reader)
        consumed += numbers(next(batches) for _ in range(taken))
        state = reader.state_dict()
    rest = []
    for rank in range(then[0]):
        reader = dataset(corpus, rank=rank, world_size=then[0], batch_size=then[1])
        reader.load_state_dict(json.loads(json.dumps(state)))
        epoch = reader.epoch
        rest += numbers(batch for batch in reader)

    expected = list(range(len(readers[0].windows)))
    assert sorted(consumed + rest) == (expected if epoch == 0 else sorted(expected * 2))


def test_a_state_goes_on_at_the_next_batch(corpus: Corpus) -> None:
    straight = numbers(dataset(corpus, epochs=3))
    for taken in (0, 1, 5, 11, 12, 13, 30):
        data = dataset(corpus, epochs=3)
        batches = iter(data)
        before = numbers(next(batches) for _ in range(taken))
        after = dataset(corpus, epochs=3)
        after.load_state_dict(json.loads(json.dumps(data.state_dict())))
        assert before + numbers(after) == straight


def test_a_state_of_other_windows_is_refused(corpus: Corpus) -> None:
    state = dataset(corpus).state_dict()

    for other in ({"length": 5}, {"seed": 1}, {"split": "val"}, {"shuffle": False}, {"stride": 2}):
        with pytest.raises(MismatchError, match=next(iter(other))):
            dataset(corpus, **other).load_state_dict(state)
    with pytest.raises(UsageError, match="not a state"):
        dataset(corpus).load_state_dict({"epoch": 1})


def test_a_state_outlives_an_append_to_another_split(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    data = dataset(corpus)
    next(iter(data))
    corpus.commit(add_shard(corpus, "eve-0", split="test"))

    dataset(Corpus.open(corpus.location)).load_state_dict(data.state_dict())


def test_reading_ahead_changes_nothing(corpus: Corpus) -> None:
    data = dataset(corpus, prefetch=2)
    batches = iter(data)
    seen = [next(batches) for _ in range(4)]

    assert numbers(seen) == numbers(dataset(corpus))[:12]
    state = data.state_dict()
    assert (state["epoch"], state["consumed"]) == (0, 12)
    assert numbers(seen) + numbers(batches) == numbers(dataset(corpus))


def test_memory_does_not_grow_from_epoch_to_epoch(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus", info())
    corpus.commit(add_shard(corpus, "ann-0", n_steps=5_000))
    data = dataset(corpus, unknown_actions="keep", epochs=None, batch_size=32)
    epochs = iter(data)
    n = -(-len(data.windows) // 32)

    held = []
    for _ in range(10):
        numbers(next(epochs) for _ in range(n))
        held.append(private_kb())

    assert held[-1] - held[1] < 2_000


def test_opening_does_no_work_per_episode_but_in_compiled_code(tmp_path: Path) -> None:
    calls = []
    for count in (20, 300):
        corpus = Corpus.create(tmp_path / f"corpus{count}", info())
        corpus.commit(add_shard(corpus, *(f"p{n}-0" for n in range(count)), n_steps=6))
        profile = Profile()
        profile.enable()
        dataset(corpus)
        profile.disable()
        calls.append(sum(each.callcount for each in profile.getstats()))

    assert calls[1] < 1.2 * calls[0]


# Weights


def test_weights_say_how_often_a_window_comes(corpus: Corpus) -> None:
    data = dataset(corpus, weights={"ann-0": 0, "ann-1": 3}, fields=("time_ns",))
    epoch = np.concatenate([batch["time_ns"][:, 0] for batch in data])

    counts = {name: int(np.isin(epoch, steps(name, n).time_ns).sum()) for name, n in TRAIN.items()}

    assert counts == {"ann-0": 0, "ann-1": 27, "dan-0": 14}


def test_a_mix_draws_from_each_corpus_its_share(corpus: Corpus, tmp_path: Path) -> None:
    other = small_corpus(tmp_path / "other")
    data = WindowDataset.mix({corpus: 3, other.location: 1}, length=4, batch_size=4)

    drawn = np.array(numbers(data))

    of_first = len(dataset(corpus).windows)
    assert len(drawn) == len(data.windows) == of_first + len(dataset(other).windows)
    assert (drawn < of_first).mean() == pytest.approx(0.75, abs=0.02)


def test_corpora_of_other_tokens_are_not_mixed(corpus: Corpus, tmp_path: Path) -> None:
    other = small_corpus(tmp_path / "other", tokenizer=None)

    with pytest.raises(MismatchError, match="cannot be mixed"):
        WindowDataset.mix({corpus: 1, other: 1}, length=4)


def test_balanced_windows_hold_rare_actions_more_often(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus", info())
    idle = steps("ann-0", 2_000)
    actions = np.zeros_like(idle.actions)
    actions[1_000:1_040, 0] = 1
    idle = replace(idle, actions=actions, action_known=np.ones(2_000, bool))
    shard = corpus.write_shard([idle], shard_id({recording_of("ann-0")}, corpus.info.settings_hash))
    corpus.commit(rows_for(shard, [idle], corpus.info))

    def share(**changes: Any) -> float:
        return float(
            np.mean([batch["actions"][..., 0].mean() for batch in dataset(corpus, **changes)])
        )

    even, balanced = share(), share(balance="action")
    assert even == pytest.approx(0.02, abs=0.002)
    assert balanced > 3 * even
    assert len(dataset(corpus, balance="action")) == len(dataset(corpus))


# What is refused


@pytest.mark.parametrize(
    "changes",
    [
        {"length": 0},
        {"stride": 0},
        {"rank": 2, "world_size": 2},
        {"rank": -1},
        {"batch_size": 0},
        {"epochs": 0},
        {"pool": 0},
        {"fields": ()},
        {"fields": ("tokens", "frame")},
        {"unknown_actions": "perhaps"},
        {"balance": "everything"},
        {"weights": {"nobody": 1.0}},
        {"weights": {"ann-0": -1.0}},
        {"weights": {"ann-0": float("nan")}},
        {"weights": {"ann-0": 0.0, "ann-1": 0.0, "dan-0": 0.0}},
        {"batch_size": 1_000, "drop_last": True},
        {"interleave": True, "unknown_actions": "keep"},
        {"interleave": True},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused_in_a_line(
    corpus: Corpus, changes: dict[str, Any]
) -> None:
    with pytest.raises(UsageError) as error:
        dataset(corpus, **changes)
    assert "\n" not in str(error.value)


def test_no_window_at_all_is_an_error_that_says_where_there_are_some(corpus: Corpus) -> None:
    with pytest.raises(NoInputsError, match=r"test.*its splits are train, val"):
        dataset(corpus, split="test")
    with pytest.raises(NoInputsError, match="no window of 50 steps"):
        dataset(corpus, length=50)


def test_tokens_of_a_corpus_without_are_refused(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus", tokenizer=None)

    with pytest.raises(UsageError, match="holds no tokens"):
        dataset(corpus)
    assert len(dataset(corpus, fields=("actions",))) > 0


def test_a_cold_corpus_says_how_to_warm_it(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus", layout="cold")

    with pytest.raises(UsageError, match="compact"):
        next(iter(dataset(corpus)))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    path = corpus.shard_path(corpus.episodes["shard"][0])
    data = dataset(corpus)
    path.unlink()

    with pytest.raises(IntegrityError, match=path.name):
        list(data)


def test_a_shard_that_was_cut_is_named(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    path = corpus.shard_path(corpus.episodes["shard"][0])
    data = dataset(corpus)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(IntegrityError, match=path.name):
        list(data)


def test_a_flipped_bit_is_found_where_that_is_asked_for(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    view = corpus.open_shard(dataset(corpus).windows.shards.open(0).path.name)
    body = bytearray(view.path.read_bytes())
    body[int(view.matrix_offsets("tokens")[0])] ^= 1
    view.path.unlink()
    view.path.write_bytes(body)

    assert len(list(dataset(corpus))) == 6
    with pytest.raises(IntegrityError, match="differ from those that were committed"):
        list(dataset(corpus, check_shards=True))


def test_a_manifest_that_promises_more_than_the_shard_has_reads_nothing_else(
    tmp_path: Path,
) -> None:
    corpus = Corpus.create(tmp_path / "corpus", info())
    rows = add_shard(corpus, "ann-0", "bob-0")
    corpus.commit([replace(rows[0], n_steps=25), replace(rows[1], row_start=25, n_steps=20)])

    with pytest.raises(IntegrityError, match="do not lie within its episodes"):
        list(dataset(corpus, unknown_actions="keep"))


def test_rows_that_two_episodes_claim_are_refused(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus", info())
    rows = add_shard(corpus, "ann-0", "bob-0")
    corpus.commit([rows[0], replace(rows[1], row_start=10)])

    with pytest.raises(IntegrityError, match="overlap"):
        dataset(corpus)


# Handing over


def test_a_pickled_dataset_is_small_and_goes_on(corpus: Corpus) -> None:
    data = dataset(corpus)
    batches = iter(data)
    before = numbers(next(batches) for _ in range(2))
    data.load_state_dict(data.state_dict())

    packed = pickle.dumps(data)

    assert len(packed) < 20_000
    assert before + numbers(pickle.loads(packed)) == numbers(dataset(corpus))


def test_batches_go_to_tensors_and_back(corpus: Corpus) -> None:
    torch = pytest.importorskip("torch")
    batch = next(iter(dataset(corpus)))

    tensors = to_torch(batch)
    same = to_torch(batch, widen=False)

    assert tensors["tokens"].dtype == torch.int64
    assert same["tokens"].dtype == torch.uint16
    assert tensors["actions"].dtype == torch.float32
    assert all(np.array_equal(to_numpy(same)[name], values) for name, values in batch.items())


def test_the_dataset_is_a_public_name() -> None:
    assert wham_data.WindowDataset is WindowDataset
