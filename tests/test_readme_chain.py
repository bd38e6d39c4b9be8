"""The README's commands, in their order, lead from the bundled recordings to a dream.

Training is shortened, and what needs a file that nobody has here is left out; each is named below. The
command lines are the page's own: a new one that does not run fails here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from makers.recordings import Cut, cut, cuts
from PIL import Image
from test_docs_blocks import HERE, ROOT, blocks, typed, wham_data

from wham_data.corpus import Corpus
from wham_data.feed.held_out import training_windows

SHORT = "--steps 1 --layers 1 --heads 2 --width 32 --batch-size 1 --quiet"
LEFT_OUT = ("make ", "wham-data dream corpus --model WHAM_200M.ckpt")
"""What installs the package, and what needs a checkpoint of 3 GB."""


def chain() -> list[str]:
    """Every command of the README in order."""
    page = ROOT / "README.md"
    lines = [
        line.split(" #")[0].strip()
        for block in blocks(page)
        if block.language == "console"
        for line in typed(block.text)
    ]
    return [line for line in lines if not line.startswith(LEFT_OUT)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in HERE.items():
        monkeypatch.setenv(name, value)
    Image.fromarray(np.zeros((180, 300, 3), np.uint8)).save("picture.png")
    return tmp_path


def run(line: str) -> None:
    """Run a command of the chain, shortened where it would take long."""
    line = line.replace("--minutes 60", SHORT).replace("--steps 20", "--steps 2")
    if " dream " in line and "--steps" not in line:
        line += " --steps 1 --episodes 1"
    assert line.startswith("wham-data "), line
    wham_data(line.removeprefix("wham-data "))


def test_the_commands_of_the_readme_run_one_after_the_other(here: Path) -> None:
    """On stretches of the recordings of the package, by different players."""
    for name, piece in zip(("ann", "bob", "cem", "dan"), cuts(4, seconds=0.8), strict=True):
        cut(here / "recordings", name, piece, player=name)
    commands = chain()
    assert any("train world-model" in line for line in commands)

    for line in commands:
        run(line)

    splits = Corpus.open("pictures").episodes["split"]
    assert set(splits) == {"train", "val", "test"}
    assert all(Path(name).is_dir() for name in ("dreams", "turn"))


@pytest.mark.parametrize("player", ["me", "ann and bob"])
def test_a_model_is_trained_where_everything_is_of_one_player(player: str, here: Path) -> None:
    for number in range(2):
        cut(here / "recordings", f"play-{number}", Cut("coinrun", number, 1.6), player=player)
    for line in chain():
        if "train world-model" in line or line.endswith("recordings/ --out corpus"):
            run(line)

    corpus = Corpus.open("corpus")
    _, _, note = training_windows(corpus, 4)
    assert set(corpus.episodes["split"]) == {"train"}
    assert "stretches of train are held out" in str(note)
    assert Path("model").is_dir()


def test_a_tokenizer_is_trained_where_everything_is_of_one_player(here: Path) -> None:
    cut(here / "recordings", "play", Cut("coinrun", 0, 2.0), player="me")
    wham_data("ingest recordings --out p --tokenizer none --frames jpeg")

    wham_data("train tokenizer p --out mine --steps 1 --width 32 --layers 1 --vocab-size 64")

    assert Path("mine").is_dir()
