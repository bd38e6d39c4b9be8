"""The same play in two recordings is found, and different play is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from makers.commands import Run
from makers.recordings import Cut, cut, ingest_here

from wham_data.pipelines.curate.same_play.hashes import Hashes, apart, difference_hashes
from wham_data.pipelines.curate.same_play.search import same_play
from wham_data.pipelines.curate.small import COLUMNS, ROWS
from wham_data.pipelines.ingest.settings import IngestSettings


def noise(n_steps: int, seed: int) -> Hashes:
    return np.random.default_rng(seed).integers(0, 1 << 64, n_steps, dtype=np.uint64)


def nearly(hashes: Hashes, bits: int, seed: int = 9) -> Hashes:
    """Each hash with some of its bits changed, as another encoder does."""
    rng = np.random.default_rng(seed)
    flips = [sum(1 << int(at) for at in rng.choice(64, bits, replace=False)) for _ in hashes]
    return hashes ^ np.array(flips, np.uint64)


def found(*episodes: Hashes, groups: tuple[str, ...] | None = None) -> list[tuple[int, ...]]:
    names = groups or tuple(map(str, range(len(episodes))))
    return [
        (each.first, each.second, each.start, each.stop, each.start_in_second)
        for each in same_play(episodes, 200, names)
    ]


def test_a_copy_by_another_encoder_is_found_as_a_whole() -> None:
    play = noise(600, 1)

    assert found(play, noise(900, 2), nearly(play, 4)) == [(0, 2, 0, 600, 0)]


def test_a_cut_is_found_with_both_its_ranges() -> None:
    play = noise(900, 1)
    cut_out = np.concatenate([noise(150, 3), nearly(play[300:700], 3), noise(80, 4)])

    ((first, second, start, stop, start_in_second),) = found(play, cut_out)

    assert (first, second, start_in_second - start) == (0, 1, -150)
    assert abs(start - 300) <= 10
    assert abs(stop - 700) <= 10


def test_two_recordings_that_overlap_are_found() -> None:
    play = noise(900, 1)

    assert found(play[:600], nearly(play[350:], 2)) == [(0, 1, 350, 600, 0)]


def test_a_short_stretch_still_pictures_and_parts_of_one_recording_are_not() -> None:
    play, still = noise(600, 1), np.full(600, 7, np.uint64)

    assert found(play, np.concatenate([noise(300, 2), play[100:280]])) == []
    assert found(still, still.copy()) == []
    assert found(play, play.copy(), groups=("a", "a")) == []
    assert found(play, noise(600, 5)) == []
    assert found() == []


def test_bits_are_counted() -> None:
    play = noise(50, 1)

    assert apart(play, nearly(play, 5)).tolist() == [5] * 50


def test_a_hash_lives_through_brightness_and_noise() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 200, (20, 9, 10, 3)).astype(np.uint8)
    small = coarse.repeat(ROWS // 9, axis=1).repeat(COLUMNS // 10, axis=2)
    other = np.clip(small * 0.9 + 12 + rng.normal(0, 4, small.shape), 0, 255).astype(np.uint8)

    assert np.median(apart(difference_hashes(small), difference_hashes(other))) <= 3
    assert np.median(apart(difference_hashes(small), difference_hashes(small[::-1]))) > 20


@pytest.fixture(scope="module")
def with_copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real play of three games, and a part of one of them encoded again, from later on."""
    folder = tmp_path_factory.mktemp("copies")
    for game in ("coinrun", "doom", "miniworld"):
        cut(folder / "in", game, Cut(game, 0.0, 11.0), player=game)
    cut(folder / "in", "again", Cut("doom", 2.4, 8.0), player="other")
    out = folder / "corpus"
    ingest_here(folder / "in", out, IngestSettings(tokenizer=None, frames="jpeg", size=(150, 90)))
    return out


def test_real_play_that_was_encoded_again_is_reported_with_both_ranges(
    with_copies: Path, cli: Run
) -> None:
    report = json.loads(cli("duplicates", with_copies, "--least", "5", "--json").stdout)

    (twice,) = report["twice"]
    ranges = sorted([(twice["start"], twice["stop"]), (twice["other_start"], twice["other_stop"])])
    assert ranges[0][0] <= 3
    assert abs(ranges[1][0] - ranges[0][0] - 24) <= 1
    assert twice["stop"] - twice["start"] >= 70


def test_a_person_reads_it_in_a_line_each(with_copies: Path, cli: Run) -> None:
    told = cli("duplicates", with_copies, "--least", "5").stdout

    assert "4 episodes (0.01 h) compared: 1 stretches" in told
    assert "0 stretches (0.00 h) are there twice" in cli("duplicates", with_copies).stdout
