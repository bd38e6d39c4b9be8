"""A tokenizer of one's own: from recordings to pictures, from pictures to weights, and back to ingest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from makers.commands import Run
from makers.recordings import cut, cuts

from wham_data.corpus import Corpus

SMALL = ("--width", "32", "--layers", "1", "--vocab-size", "64")
FEW = ("--limit", "3", "--split", "50,50,0", "--split-seed", "3")
"""Of the recordings below two to train on, one to judge by."""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of a second, by different players."""
    folder = tmp_path_factory.mktemp("short")
    for number, piece in enumerate(cuts(6, seconds=1.0)):
        cut(folder, f"play{number}", piece, match=f"play{number}", player=f"play{number}")
    return folder


@pytest.fixture(scope="module")
def pictures(cli: Run, recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with pictures, in both splits."""
    folder = tmp_path_factory.mktemp("pictures")
    made = cli(
        *("ingest", recordings, "--out", folder / "corpus", "--workers", "0"),
        *("--tokenizer", "none", "--frames", "jpeg", "--split", "50,50,0"),
        *("--split-seed", "1"),
    )
    assert made.returncode == 0, made.stderr
    assert set(Corpus.open(folder / "corpus").episodes["split"]) == {"train", "val"}
    return folder / "corpus"


def test_a_tokenizer_is_trained_resumed_and_used(
    cli: Run, pictures: Path, recordings: Path, tmp_path: Path
) -> None:
    train = ("train", "tokenizer", pictures, "--out", tmp_path / "mine", *SMALL)

    first = cli(*train, "--steps", "3", "--json")
    resumed = cli(*train, "--steps", "5", "--resume", "--json")
    used = cli(
        *("ingest", recordings, "--out", tmp_path / "corpus", "--workers", "0", *FEW),
        *("--tokenizer", tmp_path / "mine"),
    )

    assert json.loads(first.stdout)["steps"] == 3
    assert json.loads(resumed.stdout)["steps"] == 5
    assert used.returncode == 0, used.stderr
    tokenizer = Corpus.open(tmp_path / "corpus").info.tokenizer
    assert tokenizer is not None
    assert (tokenizer.name, tokenizer.vocab_size, tokenizer.grid) == ("mine", 64, (18, 30))


def test_a_corpus_without_pictures_is_no_use(
    cli: Run, six_recordings: Path, tmp_path: Path
) -> None:
    plain = ("--tokenizer", "none", "--workers", "0")
    cli("ingest", six_recordings, "--out", tmp_path / "corpus", *plain)

    told = cli("train", "tokenizer", tmp_path / "corpus", "--out", tmp_path / "x", "--steps", "1")

    assert told.returncode == 2
    assert "ingest with --frames png" in told.stderr


def test_the_taming_family_trains_too_on_square_frames(
    cli: Run, recordings: Path, pictures: Path, tmp_path: Path
) -> None:
    squares = ("--tokenizer", "none", "--frames", "jpeg", "--size", "64x64", "--workers", "0")
    cli("ingest", recordings, "--out", tmp_path / "corpus", *squares, *FEW)
    how = ("--family", "taming", "--vocab-size", "64", "--steps", "1", "--json")

    made = cli("train", "tokenizer", tmp_path / "corpus", "--out", tmp_path / "mine", *how)
    wide = cli("train", "tokenizer", pictures, "--out", tmp_path / "x", *how)

    assert json.loads(made.stdout)["steps"] == 1, made.stderr
    assert wide.returncode == 2
    assert "expected square ones" in wide.stderr


def test_how_long_must_be_said(cli: Run, pictures: Path, tmp_path: Path) -> None:
    told = cli("train", "tokenizer", pictures, "--out", tmp_path / "x")

    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert "either --minutes or --steps" in told.stderr


def test_a_world_model_is_trained_resumed_and_dreams(
    cli: Run, recordings: Path, tmp_path: Path
) -> None:
    corpus, model = tmp_path / "corpus", tmp_path / "model"
    made = cli(
        *("ingest", recordings, "--out", corpus, "--actions", "wham16", "--workers", "0", *FEW),
    )
    assert made.returncode == 0, made.stderr
    small = ("--window", "2", "--layers", "1", "--heads", "2", "--width", "32", "--batch-size", "1")
    train = ("train", "world-model", corpus, "--out", model, *small)

    first = cli(*train, "--steps", "1", "--json")
    resumed = cli(*train, "--steps", "2", "--resume", "--json")
    dreamt = cli(
        *("dream", corpus, "--model", model, "--out", tmp_path / "dreams", "--episodes", "1"),
        *("--context", "1", "--steps", "1", "--json"),
    )

    assert json.loads(first.stdout)["steps"] == 1, first.stderr
    report = json.loads(resumed.stdout)
    assert report["steps"] == 2
    assert report["baselines"]["copy"] < report["baselines"]["unigram"]
    assert dreamt.returncode == 0, dreamt.stderr
    assert json.loads(dreamt.stdout)["made"] == 1


def test_a_corpus_without_tokens_trains_no_world_model(
    cli: Run, pictures: Path, tmp_path: Path
) -> None:
    told = cli("train", "world-model", pictures, "--out", tmp_path / "x", "--steps", "1")

    assert told.returncode == 2
    assert "ingest with --tokenizer" in told.stderr
