"""What a dream can start from, and where in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.corpora import PAD
from makers.dreams import (
    GREEDY,
    REST,
    WHAM16,
    arrays_of,
    dream,
    make_corpus,
    small_checkpoint,
    wham_episode,
)
from makers.wham_checkpoints import VIT

from wham_data.corpus import Corpus
from wham_data.inference.gpt.world_model import GPTWorldModel
from wham_data.inference.world_model import load_world_model
from wham_data.pipelines.dream.sources import safe_name
from wham_data.pipelines.dream.window import Need, place
from wham_data.pipelines.video import encode_png
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import RefusedInput


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> GPTWorldModel:
    return load_world_model(checkpoint, "cpu")


MakeCorpus = Callable[..., Path]


@pytest.fixture
def corpus_of(tmp_path: Path, model: GPTWorldModel) -> MakeCorpus:
    """Makes a corpus of these episodes, in the model's own tokens unless said."""
    assert model.tokenizer is not None
    own = model.tokenizer

    def make(*episodes: str, name: str = "corpus", **changes: Any) -> Path:
        return make_corpus(tmp_path / name, own, *episodes, **changes)

    return make


def test_a_corpus_in_the_models_tokens_is_dreamt_from_as_it_is(
    corpus_of: MakeCorpus, checkpoint: Path, model: GPTWorldModel, tmp_path: Path
) -> None:
    corpus = corpus_of("ann-0", "bob-0")

    run = dream(corpus, "--model", checkpoint, "--out", tmp_path / "out", *GREEDY, "--save", "npz")

    assert run.code == 0, run.error
    stored = Corpus.open(corpus).read_episode("bob-0").tokens
    assert stored is not None
    tokens = np.load(tmp_path / "out/bob-0/tokens.npy")
    assert tokens.shape == (5, VIT.tokens + 16)
    assert np.array_equal(tokens[:3, : VIT.tokens], stored[:3])
    assert model.tokenizer is not None
    shown = arrays_of(tmp_path / "out/bob-0.npz")["raw_context"]
    assert np.array_equal(shown, model.tokenizer.decode(stored[:3]).transpose(0, 3, 1, 2))


def test_a_corpus_in_other_tokens_is_refused_with_the_way_out(
    corpus_of: MakeCorpus, checkpoint: Path, model: GPTWorldModel, tmp_path: Path
) -> None:
    assert model.tokenizer is not None
    other = replace(model.tokenizer.info, fingerprint="0" * 64, name="other")
    for name, tokenizer in (("other", other), ("none", None)):
        corpus = corpus_of("ann-0", name=name, tokenizer=tokenizer)
        run = dream(corpus, "--model", checkpoint, "--out", tmp_path / "out")
        assert run.code == 4
        assert "--tokenizer" in run.error
        assert "--frames" in run.error
        assert not (tmp_path / "out").exists()


def test_a_corpus_of_pictures_is_encoded_with_the_models_own_tokenizer(
    corpus_of: MakeCorpus, checkpoint: Path, tmp_path: Path
) -> None:
    own = corpus_of("ann-0", name="own")
    pictures = corpus_of("ann-0", name="pictures", tokenizer=None, frames="png")

    for corpus in (own, pictures):
        run = dream(
            corpus, "--model", checkpoint, "--out", tmp_path / f"{corpus.name}-out", *GREEDY
        )
        assert run.code == 0, run.error
    same, too = (np.load(tmp_path / f"{name}-out/ann-0/tokens.npy") for name in ("own", "pictures"))
    assert np.array_equal(same, too)


def test_actions_of_another_space_are_converted_or_refused(
    corpus_of: MakeCorpus, checkpoint: Path, tmp_path: Path
) -> None:
    xinput = corpus_of("ann-0", name="xinput", space=load_space("xinput"))
    pad = corpus_of("ann-0", name="pad", space=PAD)

    converted = dream(xinput, "--model", checkpoint, "--out", tmp_path / "a", *GREEDY)
    refused = dream(pad, "--model", checkpoint, "--out", tmp_path / "b", *GREEDY)

    assert converted.code == 0, converted.error
    assert "its actions are converted from xinput" in converted.said
    assert refused.code == 4
    assert "its actions are in pad, but the model's are in wham16" in refused.error


def test_a_dream_starts_where_every_action_is_known_and_the_steps_are_to_be_used(
    corpus_of: MakeCorpus, checkpoint: Path, tmp_path: Path
) -> None:
    known = np.arange(8) != 1
    gap = corpus_of("ann-0", name="gap", known=known)
    kept = corpus_of("ann-0", name="kept", keep=((0, 4), (5, 8)))

    def start(corpus: Path, *more: object) -> int:
        out = tmp_path / f"{corpus.name}-{len(more)}"
        run = dream(
            corpus, "--model", checkpoint, "--out", out, "--context", 2, "--steps", 1, *more
        )
        assert run.code == 0, run.error
        return int(json.loads((out / "ann-0/dream.json").read_text())["context"]["start"])

    assert start(gap) == 2
    assert start(gap, "--start", 5) == 5
    assert start(kept) == 0
    assert start(kept, "--start", 5) == 5
    for corpus in (gap, kept):
        run = dream(
            corpus, "--model", checkpoint, "--out", tmp_path / f"{corpus.name}-bad", "--context", 2,
            "--steps", 1, "--start", {"gap": 0, "kept": 3}[corpus.name], "--json",
        )  # fmt: skip
        assert run.code == 6
        assert run.report["failed"][0]["reason"] == "log_coverage"


def test_the_first_place_that_will_do_is_found() -> None:
    good = np.array([1, 0, 1, 1, 1, 0, 1, 1, 1, 1], np.bool_)

    assert place(good, Need(2, 3)) == 2
    assert place(good, Need(3, 1, actions=True)) == 6
    assert place(good, Need(1, 9, frames=True)) == 0
    with pytest.raises(RefusedInput, match=r"5 steps in a row .* has 4"):
        place(good, Need(4, 1, actions=True))
    with pytest.raises(RefusedInput, match="recorded actions run out: the episode has 10 steps"):
        place(good, Need(8, 3, actions=True))
    with pytest.raises(RefusedInput, match="step 5: its action is not known"):
        place(good, Need(2, 1, start=4))


def test_hostile_names_stay_in_the_folder_and_apart(
    corpus_of: MakeCorpus, checkpoint: Path, tmp_path: Path
) -> None:
    names = ("../../etc/passwd", "a\nb", "..", "-rf", ".hidden", "x" * 300, "e.npz", "e", "frames")
    corpus = corpus_of(*names)

    run = dream(corpus, "--model", checkpoint, "--out", tmp_path / "out/in", *GREEDY, "--json")

    assert run.code == 0, run.error
    assert len(run.report["dreams"]) == len(set(run.report["dreams"])) == len(names)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["in"]
    assert all((tmp_path / "out/in" / f"{name}.npz").is_file() for name in run.report["dreams"])


@pytest.mark.parametrize("name", ["match_007", "FB1_9Movie.pb_step-33_tick-1_data", "日本 ü (2)"])
def test_a_harmless_name_is_kept(name: str) -> None:
    assert safe_name(("sub", name)) == f"sub/{name}"


def test_a_name_that_had_to_change_carries_its_hash() -> None:
    assert safe_name(("a/b",)) != safe_name(("a:b",)) != safe_name(("a_b",)) == "a_b"
    assert safe_name((os.fsdecode(b"caf\xe9"),)).startswith("caf_-")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures, the last one by number not by letter."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    images = wham_episode(3)["images"].transpose(0, 2, 3, 1)
    for number, image in zip((1, 2, 10), images, strict=True):
        (folder / f"frame{number}.png").write_bytes(encode_png(np.ascontiguousarray(image)))
    return folder


def test_from_nothing_but_a_picture_the_model_makes_frames_and_actions(
    pictures: Path, checkpoint: Path, tmp_path: Path
) -> None:
    run = dream(
        pictures / "frame10.png", "--model", checkpoint, "--out", tmp_path / "out", "--steps", 3,
        "--save", "npz,overlay", "--json",
    )  # fmt: skip

    assert (run.code, run.report["mode"]) == (0, "full"), run.error
    assert "taken as at rest" in run.said
    found = arrays_of(tmp_path / "out/frame10.npz")
    assert found["raw_context"].shape == found["encoded_decoded_ground_truth_images"].shape
    assert found["all_actions"].shape == (4, 16)


def test_a_picture_is_acted_on_as_the_file_says(
    pictures: Path, checkpoint: Path, tmp_path: Path
) -> None:
    turned = REST[:-3] + "1,0"
    rows = "".join(f"{step},{row}\n" for step, row in ((-1, turned), (0, REST), (1, turned)))
    (tmp_path / "moves.csv").write_text(f"step,{WHAM16}\n{rows}")

    run = dream(
        pictures / "frame1.png", "--model", checkpoint, "--out", tmp_path / "out", "--steps", 2,
        "--actions", tmp_path / "moves.csv", "--save", "npz",
    )  # fmt: skip

    assert run.code == 0, run.error
    assert arrays_of(tmp_path / "out/frame1.npz")["all_actions"][:, 14].tolist() == [10, 5, 10]


def test_between_pictures_the_model_finds_the_actions(
    pictures: Path, checkpoint: Path, model: GPTWorldModel, tmp_path: Path
) -> None:
    run = dream(
        pictures, "--model", checkpoint, "--out", tmp_path / "out", "--mode", "policy", "--json"
    )

    assert (run.code, run.report["frames"]) == (0, 2), run.error
    images = wham_episode(3)["images"]
    found = arrays_of(tmp_path / "out/pictures.npz")
    assert np.array_equal(found["raw_context"], images[:1])
    assert model.tokenizer is not None
    later = model.tokenizer.encode(np.ascontiguousarray(images[1:].transpose(0, 2, 3, 1)))
    assert np.array_equal(
        found["dreamt_images"], model.tokenizer.decode(later).transpose(0, 3, 1, 2)
    )


def test_pictures_of_another_size_are_brought_to_the_models_and_that_is_said(
    checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "large.png").write_bytes(encode_png(np.zeros((36, 60, 3), np.uint8)))

    run = dream(
        tmp_path / "large.png", "--model", checkpoint, "--out", tmp_path / "out", "--steps", 1
    )

    assert run.code == 0, run.error
    assert "pictures of 60x36 are brought to 30x18" in run.said


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--mode", "world"), "pictures have no actions"),
        (("--actions", "recorded"), "pictures have no actions"),
        (("--mode", "full", "--actions", "random"), "needs --mode world"),
        (("--start", 1), "--start is a step of a recording"),
        (("--split", "val"), "only a corpus has splits"),
        (("--mode", "sleep"), "expected world"),
        (("--context", 5), "this model holds 4 steps"),
        (("--steps", 0), "expected at least 1"),
        (("--mode", "policy", "--context", 3), "at least 4 are needed, 3 were given"),
        (("--save", "avi"), "expected some of csv"),
        (("--interpolate", 25), "multiple of 10"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_is_made(
    pictures: Path, checkpoint: Path, tmp_path: Path, more: tuple[object, ...], told: str
) -> None:
    run = dream(pictures, "--model", checkpoint, "--out", tmp_path / "out", *more)

    assert run.code == 2
    assert told in run.error
    assert not (tmp_path / "out").exists()
