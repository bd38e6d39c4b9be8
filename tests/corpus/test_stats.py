"""The figures are those that a slow count over the episodes gives."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from makers.corpora import add_shard, info, small_corpus
from makers.exports import picture_corpus

from wham_data.corpus.corpus import Corpus
from wham_data.corpus.stats import BINS, Amount, corpus_stats, summarize
from wham_data.schemas.errors import Reason
from wham_data.schemas.manifest import QuarantineRow
from wham_data.schemas.recording import ClockAudit


def test_buttons_axes_and_tokens_are_counted_as_by_hand(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    corpus.commit(add_shard(corpus, "long-0", n_steps=5000))
    episodes = [corpus.read_episode(name) for name in corpus.episodes["episode"]]
    found = corpus_stats(corpus)
    known = [each.actions[each.action_known] for each in episodes]
    assert found.steps == 5080
    assert found.known_steps == sum(len(each) for each in known)
    for index, button in enumerate(found.buttons):
        down = [np.nan_to_num(each.actions[:, index]) > 0.5 for each in episodes]
        presses = sum(int((np.diff(np.r_[False, each].astype(int)) == 1).sum()) for each in down)
        assert button.presses == presses
        assert button.share == pytest.approx(sum(d.sum() for d in down) / found.known_steps)
        assert button.mean_hold_s == pytest.approx(sum(d.sum() for d in down) / presses / 10)
    values = np.concatenate(known)[:, 2]
    expected, _ = np.histogram(values, bins=BINS, range=(-1, 1))
    assert found.axes[0].counts == tuple(expected)
    assert found.axes[0].mean == pytest.approx(values.mean(), abs=1e-6)
    codes = np.concatenate([each.tokens for each in episodes if each.tokens is not None]).ravel()
    share = np.bincount(codes, minlength=64) / len(codes)
    entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
    assert found.tokens is not None
    assert (found.tokens.total, found.tokens.distinct) == (len(codes), len(np.unique(codes)))
    assert found.tokens.entropy_bits == pytest.approx(entropy)
    assert found.tokens.perplexity == pytest.approx(2**entropy)


@pytest.mark.parametrize("space", ["numbers3", "vector2"])
def test_numbers_without_limits_are_counted_over_what_they_reach(
    tmp_path: Path, space: str
) -> None:
    corpus = picture_corpus(tmp_path / "c", space, 2, frames="none", unknown=(1,))
    table = np.concatenate([corpus.read_episode(name).actions for name in ("e0", "e1")])

    for index, axis in enumerate(corpus_stats(corpus).axes):
        values = table[:, index][~np.isnan(table[:, index])]
        low, high = min(0, values.min()), max(0, values.max())
        assert (axis.low, axis.high) == ((-1, 1) if space == "vector2" else (low, high))
        counts, _ = np.histogram(np.float64(values), bins=BINS, range=(axis.low, axis.high))
        assert axis.counts == tuple(counts)
        assert axis.down is not None
        assert axis.down.share > 0


def test_a_button_held_from_one_episode_into_the_next_is_two_presses(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info(tokenizer=None))
    rows = add_shard(corpus, *(f"h{i}-0" for i in range(24)), n_steps=1)
    corpus.commit(rows)
    downs = [corpus.read_episode(row.episode).actions[0, 0] for row in rows]
    assert corpus_stats(corpus).buttons[0].presses == sum(downs)
    assert any(first and second for first, second in itertools.pairwise(downs))


def test_amounts_are_told_by_split_game_and_player(tmp_path: Path) -> None:
    found = corpus_stats(small_corpus(tmp_path / "c"))
    assert (found.episodes, found.recordings) == (4, 3)
    assert found.hours == pytest.approx(8 / 3600)
    assert found.by["split"] == (
        Amount("train", 2, 40, pytest.approx(4 / 3600)),
        Amount("val", 2, 40, pytest.approx(4 / 3600)),
    )
    assert [each.name for each in found.by["game"]] == ["", "maze"]
    assert [each.name for each in found.by["player"]] == ["ann", "bob"]


def test_hours_at_the_native_rate_follow_from_the_source(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c", rate="native")
    found = corpus_stats(corpus)
    assert found.hours == pytest.approx(80 / 60 / 3600)
    assert {button.mean_hold_s for button in found.buttons} == {None}


def test_clocks_are_summed_up(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info())
    clock = ClockAudit(
        variable_rate=True,
        gaps=2,
        duplicates=3,
        longest_interval_ns=250_000_000,
        frames_expected=100,
        frames_found=95,
    )
    corpus.commit(add_shard(corpus, "ann-0", clock=clock, clamped=4))
    corpus.commit(add_shard(corpus, "bob-0"))
    found = corpus_stats(corpus)
    assert (found.clock.variable_rate, found.clock.gaps, found.clock.duplicates) == (0.5, 2, 3)
    assert (found.clock.longest_interval_ms, found.clock.lost, found.clamped) == (250.0, 5, 4)


def test_an_empty_corpus_has_figures_too(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info())
    found = corpus_stats(corpus)
    assert (found.steps, found.hours, found.buttons[0].share, found.axes[0].mean) == (0, 0, 0, 0)
    assert summarize(corpus).episodes == 0


def test_a_summary_comes_from_the_manifest_alone(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    settings = corpus.info.settings_hash
    refused = [
        QuarantineRow(path, path * 64, "decode", reason, "m", settings)
        for path, reason in (("1", Reason.CORRUPT), ("2", Reason.NO_FRAMES), ("3", Reason.CORRUPT))
    ]
    corpus.commit([], refused)
    for path in Path(corpus.location, "shards").iterdir():
        path.write_bytes(b"12345")
    found = summarize(corpus)
    assert (found.steps, found.shards, found.n_bytes) == (80, 2, 10)
    assert [each.name for each in found.by["license"]] == ["", "CC0-1.0"]
    assert (found.quarantined, found.reasons) == (3, {"corrupt": 2, "no_frames": 1})
