"""The reader `demonstrator`, dreams from its folders, and the writer of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.exports import picture_corpus
from makers.readings import frames_of, recordings_in, the_recording

import wham_data
from wham_data.inference.world_model import load_world_model
from wham_data.pipelines.dream.job import run_dreams
from wham_data.pipelines.dream.settings import DreamChoices
from wham_data.pipelines.dream.sources import open_dream_source
from wham_data.pipelines.readers import discover
from wham_data.pipelines.video import encode_png
from wham_data.schemas.errors import NoInputsError, Reason, RefusedInput

REST = [0.0] * 16
LEFT = [1.0, *[0.0] * 11, -0.8500000238418579, 0.15000000596046448, 0.0, 1.0]


def folder(path: Path, rows: dict[str, Any], pictures: list[str] | None = None) -> Path:
    """A folder of grey pictures: the k-th has the grey 20 * k."""
    path.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(rows if pictures is None else pictures):
        (path / name).write_bytes(encode_png(np.full((18, 30, 3), 20 * k, np.uint8)))
    (path / "actions.json").write_text(json.dumps(rows))
    return path


def named(count: int, form: str = "image{}.png") -> dict[str, Any]:
    return {form.format(k): [float(k % 2), *REST[1:]] for k in range(count)}


def refusal(path: Path) -> RefusedInput:
    found = discover([path])
    if found.refused:
        return found.refused[0][1]
    with pytest.raises(RefusedInput) as refused:
        the_recording(path)
    return refused.value


@pytest.mark.parametrize("form", ["image{}.png", "frame_{}.png", "{:04d}.png"])
def test_pictures_are_steps_in_the_order_of_their_numbers(tmp_path: Path, form: str) -> None:
    rows = dict(reversed(named(12, form).items()))
    opened = the_recording(folder(tmp_path / "a", rows, sorted(rows, key=lambda n: (len(n), n))))

    assert frames_of(opened)[:, 0, 0, 0].tolist() == [20 * k for k in range(12)]
    assert opened.actions is not None
    assert opened.actions.space.name == "wham16"
    assert opened.actions.values[:, 0].tolist() == [0, 1] * 6
    assert opened.frame_times_ns[:3].tolist() == [0, 10**8, 2 * 10**8]


def test_sticks_are_values(tmp_path: Path) -> None:
    opened = the_recording(folder(tmp_path, {"image0.png": LEFT, "image1.png": REST}))

    assert opened.actions is not None
    assert opened.actions.values[0].tolist() == pytest.approx(LEFT)


@pytest.mark.parametrize("rows", [{"image0.png": LEFT}, {"image0.png": LEFT, "image1.png": None}])
def test_a_picture_without_an_action_has_an_unknown_one(
    tmp_path: Path, rows: dict[str, Any]
) -> None:
    opened = the_recording(folder(tmp_path, rows, ["image0.png", "image1.png"]))

    assert opened.actions is not None
    assert np.isnan(opened.actions.values).all(axis=1).tolist() == [False, True]
    assert any("no action" in note for note in opened.notes)


def test_other_pictures_are_no_steps(tmp_path: Path) -> None:
    opened = the_recording(folder(tmp_path, named(2), ["image0.png", "image1.png", "preview.png"]))

    assert len(opened.frame_times_ns) == 2


@pytest.mark.parametrize(
    ("rows", "pictures", "reason", "told"),
    [
        ({"image0.png": REST, "image2.png": REST}, None, Reason.LOG_COVERAGE, "picture 1"),
        (named(3), ["image0.png", "image1.png"], Reason.LOG_COVERAGE, "image2.png"),
        (named(1), ["image0.png", "image00.png"], Reason.LOG_COVERAGE, "two pictures"),
        ({"image0.png": [*REST[:12], 5, 5, 5, 5]}, None, Reason.LOG_RANGE, "not as bins"),
        ({"image0.png": [0.5, *REST[1:]]}, None, Reason.LOG_RANGE, "buttons"),
        ({"image0.png": REST[:15]}, None, Reason.LOG_TYPE, "16 numbers"),
        ({"image0.png": ["up"] * 16}, None, Reason.LOG_TYPE, "16 numbers"),
        ({"image0.png": [True, *REST[1:]]}, None, Reason.LOG_TYPE, "16 numbers"),
        ({"../image0.png": REST}, ["image0.png"], Reason.UNSAFE_PATH, "out of the folder"),
        ({"/etc/image0.png": REST}, ["image0.png"], Reason.UNSAFE_PATH, "out of the folder"),
        ({"first.png": REST, "second.png": REST}, None, Reason.LOG_SYNTAX, "numbered"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, rows: dict[str, Any], pictures: list[str] | None, reason: Reason, told: str
) -> None:
    why = refusal(folder(tmp_path, rows, pictures))

    assert why.reason == reason
    assert told in why.message


def test_a_picture_that_is_a_pointer_refuses_the_folder(tmp_path: Path) -> None:
    folder(tmp_path, named(3))
    (tmp_path / "image1.png").write_text("version https://git-lfs.github.com/spec/v1\n")

    assert "image1.png: a Git LFS pointer" in refusal(tmp_path).message


@pytest.mark.parametrize("text", ['{"fps": 10}', '[{"a": 1}]', "{}", '{"a.mp4": [0]}'])
def test_other_files_of_that_name_are_not_taken(tmp_path: Path, text: str) -> None:
    folder(tmp_path, named(1))
    (tmp_path / "actions.json").write_text(text)

    assert not any(each.format == "demonstrator" for each in discover([tmp_path]).recordings)


def test_each_folder_is_a_recording(tmp_path: Path) -> None:
    folder(tmp_path / "a", named(2))
    folder(tmp_path / "b" / "c", named(3))

    assert list(recordings_in(tmp_path)) == ["a/actions.json", "b/c/actions.json"]


def dreamt(source: Path, out: Path, **choices: Any) -> Any:
    model = load_world_model("wham-tiny", "cpu")
    opened = open_dream_source([source])
    settings = DreamChoices(steps=1, **choices).settle(opened, model)
    return run_dreams(opened, out, model, settings, save=("npz",))


def test_a_dream_takes_the_newest_pictures_with_their_actions(tmp_path: Path) -> None:
    rows = named(3)
    rows["image2.png"] = LEFT
    folder(tmp_path / "in" / "run.1", rows)
    folder(tmp_path / "in" / "run.2", named(5))

    report = dreamt(tmp_path / "in", tmp_path / "out", context=2)

    assert list(report.dreams) == ["run.1", "run.2"]
    with np.load(tmp_path / "out" / "run.1.npz") as saved:
        assert saved["all_actions"][:2, 0].tolist() == [1, 1]


def test_a_dream_from_a_picture_without_an_action_is_at_rest(tmp_path: Path) -> None:
    folder(tmp_path / "in", {"image0.png": LEFT}, ["image0.png", "image1.png"])

    assert dreamt(tmp_path / "in", tmp_path / "out").made == 1


def test_a_damaged_folder_of_demonstrator_is_no_folder_of_pictures(tmp_path: Path) -> None:
    folder(tmp_path / "in", {"image0.png": REST, "image2.png": REST})

    (failed,) = dreamt(tmp_path / "in", tmp_path / "out").failed

    assert "picture 1 is missing" in failed.message


def test_a_damaged_folder_leaves_the_contexts_of_the_others_as_they_are(tmp_path: Path) -> None:
    folder(tmp_path / "a", {"image0.png": REST, "image2.png": REST})
    folder(tmp_path / "b", named(3))

    assert open_dream_source([tmp_path]).pictures == 3
    assert open_dream_source([tmp_path / "a"]).pictures == 1  # refused when it is dreamt


@pytest.mark.parametrize(("n_steps", "steps", "folders"), [(4, 10, 1), (25, 10, 3), (6, 4, 2)])
def test_an_export_is_read_back_equal(
    tmp_path: Path, n_steps: int, steps: int, folders: int
) -> None:
    corpus = picture_corpus(tmp_path / "corpus", episodes=1, n_steps=n_steps)

    wham_data.export(
        corpus.location, to="demonstrator", out=tmp_path / "out", options={"steps": str(steps)}
    )

    found = recordings_in(tmp_path / "out")
    assert len(found) == folders
    assert sum(len(each.frame_times_ns) for each in found.values()) == n_steps
    written = json.loads(next((tmp_path / "out").rglob("actions.json")).read_text())
    sticks = np.array(list(written.values()))[:, 12:]
    middles = [0, 0.15, 0.375, 0.625, 0.85, 1]
    assert np.isin(np.abs(sticks).round(4), middles).all()


def test_nothing_to_dream_from_is_said(tmp_path: Path) -> None:
    (tmp_path / "actions.json").write_text("{}")

    with pytest.raises(NoInputsError):
        open_dream_source([tmp_path])


def test_a_pointer_beside_pictures_does_not_hide_them(tmp_path: Path) -> None:
    folder(tmp_path, named(2))
    (tmp_path / "movie.mp4").write_text("version https://git-lfs.github.com/spec/v1\n")

    assert open_dream_source([tmp_path]).kind == "demonstrator"
    (tmp_path / "actions.json").unlink()
    assert open_dream_source([tmp_path]).kind == "pictures"
    (tmp_path / "episode.npz").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert open_dream_source([tmp_path]).kind == "wham-npz"
