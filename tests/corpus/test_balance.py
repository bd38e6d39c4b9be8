"""How a corpus is spread is what a slow count gives, and weights even it out at the cost they tell."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from makers.corpora import add_shard, info, recording_of, small_corpus

import wham_data
from wham_data.corpus.balance import count
from wham_data.corpus.balance.count import balance_of, count_balance, entropy_bits, hold_bins
from wham_data.corpus.balance.weights import (
    read_target,
    read_weights,
    weights_of,
    weights_table,
)
from wham_data.corpus.corpus import Corpus
from wham_data.schemas.errors import NoInputsError, UsageError


def held_sets(
    corpus: Corpus, episode: str, keep: tuple[int, int] | None = None
) -> list[frozenset[str]]:
    """What was held in each counted step of an episode."""
    steps = corpus.read_episode(episode)
    sets = []
    for number, (actions, known) in enumerate(zip(steps.actions, steps.action_known, strict=True)):
        if known and (keep is None or keep[0] <= number < keep[1]):
            a, b, x = actions
            flags = {"a": a > 0.5, "b": b > 0.5, "x-": x < -0.1, "x+": x > 0.1}
            sets.append(frozenset(name for name, held in flags.items() if held))
    return sets


def two_games(location: Path) -> Corpus:
    """A maze of 300 steps and an arena of 100."""
    corpus = Corpus.create(location, info(tokenizer=None))
    corpus.commit(add_shard(corpus, "ann-0", n_steps=300, game="maze", player="ann"))
    corpus.commit(add_shard(corpus, "bob-0", n_steps=100, game="arena", player="bob"))
    return corpus


def test_shares_pairs_combinations_and_entropy_are_counted_as_by_hand(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    corpus.commit(add_shard(corpus, "long-0", n_steps=5000))
    found = balance_of(count_balance(corpus))
    names = corpus.episodes["episode"].to_list()
    sets = [each for name in names for each in held_sets(corpus, name)]

    assert (found.steps, found.left_out) == (len(sets), 5080 - len(sets))
    assert found.hours == pytest.approx(len(sets) / 36_000)
    for control in found.controls:
        assert control.share == pytest.approx(np.mean([control.name in each for each in sets]))
        assert control.alone == pytest.approx(np.mean([each == {control.name} for each in sets]))
    both = Counter(pair for each in sets for pair in combinations(sorted(each), 2))
    assert {(p.first, p.second): p.share for p in found.pairs} == {
        pair: pytest.approx(number / len(sets)) for pair, number in both.items()
    }
    assert {frozenset(each.controls): each.share for each in found.combinations} == {
        each: pytest.approx(number / len(sets)) for each, number in Counter(sets).items()
    }
    of_ann = Counter(each for name in ("ann-0", "ann-1") for each in held_sets(corpus, name))
    bits = dict(found.monotonous)
    assert bits[recording_of("ann-0")] == pytest.approx(entropy_bits([*of_ann.values()]))
    assert found.entropy_bits is not None
    assert found.entropy_bits.count == 4


def test_steps_outside_keep_do_not_count(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info())
    corpus.commit(add_shard(corpus, "ann-0", keep=((2, 9),)))
    found = balance_of(count_balance(corpus))
    sets = held_sets(corpus, "ann-0", (2, 9))

    assert (found.steps, found.left_out) == (len(sets), 20 - len(sets))
    assert found.controls[0].share == pytest.approx(np.mean(["a" in each for each in sets]))


def test_one_split_is_counted_alone_and_an_empty_one_is_refused(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")

    assert [each.name for each in balance_of(count_balance(corpus, "val")).by["split"]] == ["val"]
    with pytest.raises(NoInputsError, match="no episode in the split test"):
        count_balance(corpus, "test")
    with pytest.raises(UsageError, match="none of train, val, test"):
        count_balance(corpus, "everything")


def test_holds_are_in_doubling_bins() -> None:
    assert hold_bins(np.array([0, 5, 4, 3, 2, 1, 0, 0, 1, 1])) == (5, 4, 5, 2, 1)
    assert hold_bins(np.zeros(9, np.int64)) == ()


def test_entropy_is_in_bits() -> None:
    assert entropy_bits([7]) == 0
    assert entropy_bits([3, 3]) == 1
    assert entropy_bits([]) == 0


def test_too_rare_combinations_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count, "MOST_COMBINATIONS", 3)
    found = balance_of(count_balance(small_corpus(tmp_path / "c")))

    kept = sum(each.share for each in found.combinations) * found.steps
    assert found.uncounted > 0
    assert kept + found.uncounted == pytest.approx(found.steps)


def test_flat_weights_give_each_game_the_same_time_and_tell_their_cost(tmp_path: Path) -> None:
    counted = count_balance(two_games(tmp_path / "c"))
    made = weights_of(counted, "game")
    steps = counted.episodes["n_steps"].to_numpy()
    weight = dict(zip(counted.episodes["game"], made.of_episode * steps, strict=True))

    assert weight["maze"] == pytest.approx(weight["arena"])
    assert sum(weight.values()) == pytest.approx(steps.sum())
    w = np.repeat(made.of_episode, steps)
    assert made.effective_steps == pytest.approx(w.sum() ** 2 / (w**2).sum())
    assert made.kept == pytest.approx(made.effective_steps / steps.sum())
    assert 0.7 < made.kept < 0.8  # shares 3/4 and 1/4: 1 / (0.25 / 0.75 + 0.25 / 0.25)


def test_weights_follow_a_target_and_leave_the_rest_in_proportion(tmp_path: Path) -> None:
    counted = count_balance(two_games(tmp_path / "c"))
    (tmp_path / "t.toml").write_text('[game]\narena = 0.1\n[control]\n"x+" = 0.5\n')
    target = read_target(tmp_path / "t.toml", counted)
    made = weights_of(counted, "game", target)
    weighted = made.of_episode * counted.episodes["n_steps"].to_numpy()

    share = dict(zip(counted.episodes["game"], weighted / weighted.sum(), strict=True))
    assert share == {"arena": pytest.approx(0.1), "maze": pytest.approx(0.9)}


def test_weights_for_actions_bring_rare_controls_nearer_to_half(tmp_path: Path) -> None:
    counted = count_balance(small_corpus(tmp_path / "c"))
    made = weights_of(counted, "action")
    before = counted.active.sum(axis=0) / counted.episodes["n_steps"].sum()

    distance = np.abs(before - 0.5).mean(), np.abs([*made.shares.values()] - np.array(0.5)).mean()
    assert distance[1] < distance[0]


def test_the_weight_of_an_episode_is_the_mean_over_its_steps_and_controls(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    counted = count_balance(corpus)
    sets = {name: held_sets(corpus, name) for name in counted.episodes["episode"]}
    every = [each for of_episode in sets.values() for each in of_episode]
    share = {name: np.mean([name in each for each in every]) for name in counted.names}
    slow = [
        np.mean(
            [
                1 / (2 * share[name]) if name in each else 1 / (2 * (1 - share[name]))
                for each in of_episode
                for name in counted.names
            ]
        )
        for of_episode in sets.values()
    ]

    ratio = weights_of(counted, "action").of_episode / slow
    assert ratio == pytest.approx(np.full(len(slow), ratio[0]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[game]\nnone = 0.5\n", "has no game 'none'"),
        ("[game]\nmaze = 0.7\narena = 0.7\n", "more than 1"),
        ("[game]\nmaze = nan\n", "expected a share"),
        ("[weather]\nrain = 1\n", "weather"),
        ("game = 3\n", "expected a table"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    counted = count_balance(two_games(tmp_path / "c"))
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_target(tmp_path / "t.toml", counted)


def test_training_draws_windows_as_the_written_weights_say(tmp_path: Path) -> None:
    corpus = two_games(tmp_path / "c")
    counted = count_balance(corpus)
    path = tmp_path / "weights.parquet"
    pq.write_table(weights_table(counted, weights_of(counted, "game")), path)

    def share_of_arena(balance: Path | None) -> float:
        windows = wham_data.WindowDataset(
            corpus, length=2, fields=("actions",), unknown_actions="keep", balance=balance
        )
        drawn = np.array([int(each["window"]) for each in windows])
        shard, _ = windows.windows.locate(drawn)
        arena = sorted(corpus.episodes["shard"]).index(
            corpus.episodes.filter(game="arena")["shard"][0]
        )
        return float((shard == arena).mean())

    assert share_of_arena(None) == pytest.approx(0.25, abs=0.02)
    assert share_of_arena(path) == pytest.approx(0.5, abs=0.02)


def test_weights_that_lack_an_episode_are_refused_in_training(tmp_path: Path) -> None:
    corpus = two_games(tmp_path / "c")
    counted = count_balance(corpus)
    pq.write_table(weights_table(counted, weights_of(counted, "game")), tmp_path / "w.parquet")
    corpus.commit(add_shard(corpus, "new-0", game="maze"))
    with pytest.raises(UsageError, match="no weight for 1 episodes"):
        wham_data.WindowDataset(corpus, fields=("actions",), balance=tmp_path / "w.parquet")


def test_a_file_that_is_no_table_of_weights_is_refused(tmp_path: Path) -> None:
    counted = count_balance(two_games(tmp_path / "c"))
    table = weights_table(counted, weights_of(counted, "game"))
    (tmp_path / "no.parquet").write_bytes(b"not Parquet")
    pq.write_table(table.drop_columns(["weight"]), tmp_path / "lacks.parquet")
    bad = table.set_column(4, "weight", [[float("nan"), 1.0]])
    pq.write_table(bad, tmp_path / "nan.parquet")
    for name, message in (("no", "no table"), ("lacks", "no table"), ("nan", "expected 0 or more")):
        with pytest.raises(UsageError, match=message):
            read_weights(tmp_path / f"{name}.parquet")
