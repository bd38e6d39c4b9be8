"""Dreams of a model of another kind, played in another action space than WHAM's."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.counting_model import FORWARD, VPT, CountingModel
from makers.dreams import make_corpus

from wham_data.pipelines.dream.actions import parse_actions, read_actions
from wham_data.pipelines.dream.job import run_dreams
from wham_data.pipelines.dream.overlay import Overlay
from wham_data.pipelines.dream.report import DreamReport
from wham_data.pipelines.dream.settings import DreamChoices
from wham_data.pipelines.dream.sources import open_dream_source
from wham_data.pipelines.video import encode_png
from wham_data.schemas.actions import ActionSpace, Dimension, load_space
from wham_data.schemas.errors import MismatchError, UsageError

MODEL = CountingModel()


def corpus_in(location: Path, space: str = "vpt") -> Path:
    return make_corpus(location, MODEL.tokenizer, "ann-0", "bob-0", space=load_space(space))


def run(source: Path, out: Path, *save: Any, **asked: Any) -> DreamReport:
    found = open_dream_source([source])
    settings = DreamChoices(**{"context": 2, "steps": 3, **asked}).settle(found, MODEL)
    return run_dreams(found, out, MODEL, settings, save=save or None)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_model_is_dreamt_with_in_its_own_space(tmp_path: Path) -> None:
    report = run(
        corpus_in(tmp_path / "corpus"),
        tmp_path / "out",
        *("csv", "mp4", "overlay"),
        actions="fixed:forward=1,camera_yaw=0.25",
    )

    assert (report.made, report.exit_code) == (2, 0)
    images = np.load(tmp_path / "out/bob-0/tokens.npy")
    actions = np.load(tmp_path / "out/bob-0/actions.npy")
    assert (images.shape, images.dtype) == ((5, 15), np.int32)
    assert (actions.shape, actions.dtype) == ((5, VPT.size), np.float32)
    lighter = (images[2:] - images[1]) % MODEL.spec.image_vocab
    assert lighter[:, 0].tolist() == [0, 1, 2]  # the context's last action was to rest
    rows = rows_of(tmp_path / "out/bob-0/actions.csv")
    assert list(rows[0]) == ["step", *VPT.names]
    assert [(row["forward"], row["camera_yaw"]) for row in rows] == [("1", "0.25")] * 3
    assert (tmp_path / "out/bob-0/overlay.mp4").is_file()
    told = json.loads((tmp_path / "out/bob-0/dream.json").read_text())
    assert told["model"]["action_space"] == told["context"]["action_space"] == "vpt"


def test_a_file_that_was_not_asked_for_before_is_made_of_the_saved_steps(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    at_once, later = tmp_path / "at once", tmp_path / "later"
    run(corpus, at_once, "csv", "gif", actions="random")
    run(corpus, later, "csv", actions="random")

    report = run(corpus, later, "csv", "gif", actions="random")

    assert (report.made, report.completed) == (0, 2)
    for name in ("ann-0.gif", "ann-0/actions.csv"):
        assert (later / name).read_bytes() == (at_once / name).read_bytes()
    (later / "bob-0/actions.npy").unlink()
    (later / "bob-0/actions.csv").unlink()
    assert run(corpus, later, "csv", actions="random").made == 1


def test_actions_of_one_dream_can_be_given_to_another(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    run(corpus, tmp_path / "one", "csv", actions="random")
    done = tmp_path / "one/ann-0/actions.csv"

    run(corpus, tmp_path / "two", "csv", actions=str(done))

    assert (tmp_path / "two/ann-0/actions.csv").read_text() == done.read_text()


@pytest.mark.parametrize(("mode", "start"), [("world", None), ("policy", 1), ("full", None)])
def test_every_mode_works_without_wham(tmp_path: Path, mode: str, start: int | None) -> None:
    report = run(corpus_in(tmp_path / "corpus"), tmp_path / "out", mode=mode, start=start)

    assert report.made == 2
    assert not (tmp_path / "out/ann-0.npz").exists()


def test_recorded_actions_are_converted_to_the_models_space_or_refused(tmp_path: Path) -> None:
    told = open_dream_source([corpus_in(tmp_path / "other", "matrixgame8")])
    [note] = told.check(MODEL.tokenizer, VPT)

    assert "its actions are converted from matrixgame8" in note
    assert run(tmp_path / "other", tmp_path / "out").made == 2
    assert np.load(tmp_path / "out/ann-0/actions.npy").shape == (5, VPT.size)
    with pytest.raises(MismatchError, match="are in wham16, but the model's are in vpt"):
        run(corpus_in(tmp_path / "wham", "wham16"), tmp_path / "none")


def test_pictures_start_at_rest(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(2):
        frame = np.full((18, 30, 3), 30 * number, np.uint8)
        (tmp_path / f"in/{number}.png").write_bytes(encode_png(frame))

    run(tmp_path / "in", tmp_path / "out", actions="fixed:jump=0", mode="world")

    images = np.load(tmp_path / "out/in/tokens.npy")
    assert images[:, 0].tolist() == [0, 10, 10, 10, 10]


def test_whams_own_file_is_refused_for_other_actions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--save npz: .* in wham16, .* counting are in vpt"):
        run(corpus_in(tmp_path / "corpus"), tmp_path / "out", "npz")


def test_a_delta_may_exceed_the_range_of_one_sample(tmp_path: Path) -> None:
    beyond = 5 * VPT.dimensions[VPT.index("camera_yaw")].high
    fixed = parse_actions(f"fixed:camera_yaw={beyond:g}", 0, VPT).future(1, 0)
    row = ",".join(f"{value:g}" for value in fixed[0])
    (tmp_path / "a.csv").write_text(f"{','.join(VPT.names)}\n{row}\n")

    assert np.array_equal(read_actions(tmp_path / "a.csv", VPT).actions, fixed)
    with pytest.raises(UsageError, match="expected a number"):
        parse_actions("fixed:camera_yaw=far", 0, VPT)


def test_random_actions_stay_in_their_ranges_and_need_some() -> None:
    actions = parse_actions("random", 3, VPT).future(400, 0)

    low, high = VPT.ranges().T
    assert ((actions >= low) & (actions <= high)).all()
    assert 0.05 < actions[:, FORWARD].mean() < 0.2
    with pytest.raises(UsageError, match="does not declare the ranges"):
        parse_actions("random", 3, load_space("numbers4"))


@pytest.mark.parametrize("space", ["vpt", "p2p", "procgen15", "xinput", "numbers9", "discrete4"])
def test_the_overlay_draws_any_space(space: str) -> None:
    declared = load_space(space)
    still = np.zeros((3, declared.size), np.float32)
    held = still.copy()
    held[1] = 1
    frame = np.zeros((18, 30, 3), np.uint8)

    before, after = (
        Overlay(actions, declared, "m", 1).sheet(1, frame, frame) for actions in (still, held)
    )

    assert before.shape == after.shape == (360, 640, 3)
    assert (before[210:] != after[210:]).any()


def test_the_overlay_counts_what_it_has_no_room_for() -> None:
    many = ActionSpace(
        "many",
        (
            *(Dimension(f"key_{number}", "button", 0, 1) for number in range(60)),
            *(Dimension(f"knob_{number}", "axis", -1, 1) for number in range(9)),
        ),
    )
    overlay = Overlay(np.zeros((1, 69), np.float32), many, "m", 1)

    assert overlay.left_out == (12, 5)
