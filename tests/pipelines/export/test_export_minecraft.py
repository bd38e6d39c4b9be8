"""Exports for Minecraft's world models: read back by our readers, and as their projects tell it."""

from __future__ import annotations

import csv
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from makers.exports import SIZE, actions_of, picture_corpus
from makers.readings import frames_of, recordings_in
from makers.recordings import ingest_here
from makers.video_clips import read_stamp
from numpy.typing import NDArray
from test_reader_gf_minecraft import entry, written

import wham_data
from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.writers.minecraft.micro_world import prompt_of
from wham_data.pipelines.writers.minecraft.scenes import entries_of
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import UsageError
from wham_data.schemas.recording import OpenRecording

MICRO, VPT, MATRIX = (load_space(name) for name in ("microworld9", "vpt", "matrixgame8"))
TWENTY = Fraction(20)
CLIPS = {"clip": "4"}


def stamps(opened: OpenRecording) -> list[int]:
    return [read_stamp(frame) for frame in frames_of(opened, SIZE)]


def frames_at(path: Path, first: int, last: int) -> list[int]:
    """The stamps of frames by their number, decoded in order, as video loaders do."""
    with av.open(str(path)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [read_stamp(frame) for frame in shown[first : last + 1]]


def kept_by_a_table(actions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Actions in `microworld9` without what a table cannot hold."""
    w, a, s, d, ctrl, shift, space = (actions[:, k] > 0 for k in range(7))
    kept = actions.copy()
    kept[w & s, 0] = kept[w & s, 2] = 0
    kept[a & d, 1] = kept[a & d, 3] = 0
    kept[shift & space, 5] = 0
    kept[(shift | space) & ctrl, 4] = 0
    return kept


def by_name(actions: NDArray[np.float32], *names: str) -> NDArray[np.float32]:
    """Columns of actions in `vpt`."""
    return actions[:, [VPT.index(name) for name in names]]


# --- gf-minecraft -----------------------------------------------------------------------------


def test_gf_minecraft_is_read_back_equal_but_for_what_a_table_cannot_hold(tmp_path: Path) -> None:
    episodes = {"a": {}, "b": {"split": "val"}}
    picture_corpus(tmp_path / "corpus", MICRO, episodes, rate=TWENTY, text=True)

    report = wham_data.export(tmp_path / "corpus", to="gf-minecraft", out=tmp_path / "out")

    found = recordings_in(tmp_path / "out")
    assert sorted(found) == ["train/video/a.mp4", "val/video/b.mp4"]
    dropped = 0
    for number, opened in enumerate(found[path] for path in sorted(found)):
        assert stamps(opened) == [100 * number + step for step in range(6)]
        wanted = actions_of(MICRO, number, 6)[:5]
        assert opened.actions is not None
        assert opened.actions.space == MICRO
        assert np.allclose(opened.actions.values[:5], kept_by_a_table(wanted), atol=1e-5)
        assert np.isnan(opened.actions.values[5]).all()
        assert list(opened.texts or ()) == ["task 0"] * 4 + ["task 1"] * 2
        dropped += int((wanted != kept_by_a_table(wanted)).sum())
    assert report.clamped == dropped > 0
    assert (report.left_out_steps, report.lost) == (0, ())


def test_an_entry_leads_to_its_frame_and_a_delta_is_15_degrees() -> None:
    actions = np.zeros((4, MICRO.size), np.float32)
    actions[0, [MICRO.index("w"), MICRO.index("a"), MICRO.index("ctrl")]] = 1
    actions[1, [MICRO.index("s"), MICRO.index("d"), MICRO.index("shift")]] = 1
    actions[1, [MICRO.index("camera_pitch"), MICRO.index("camera_yaw")]] = 30, -7.5
    actions[2, MICRO.index("space")] = 1

    entries, dropped = entries_of(actions)

    still = {"ws": 0, "ad": 0, "scs": 0, "yaw_delta": 0.0, "pitch_delta": 0.0}
    assert entries == [
        still,
        still | {"ws": 1, "ad": 1, "scs": 3},
        still | {"ws": 2, "ad": 2, "scs": 2, "yaw_delta": -0.5, "pitch_delta": 2.0},
        still | {"scs": 1},
    ]
    assert dropped == 0


def test_of_keys_against_each_other_none_is_told_and_of_jump_sneak_and_sprint_the_first() -> None:
    actions = np.zeros((2, MICRO.size), np.float32)
    actions[0, :7] = 1

    entries, dropped = entries_of(actions)

    assert (entries[1]["ws"], entries[1]["ad"], entries[1]["scs"]) == (0, 0, 1)
    assert dropped == 6


def test_what_a_table_tells_goes_through_a_corpus_and_back_with_its_last_frame(
    tmp_path: Path,
) -> None:
    written(tmp_path / "in", captions="seed_1_part_1.mp4,1,2,a hill\n")
    settings = IngestSettings(rate=None, size=SIZE, frames="png", tokenizer=None)
    ingest_here(tmp_path / "in", tmp_path / "corpus", settings)

    wham_data.export(tmp_path / "corpus", to="gf-minecraft", out=tmp_path / "out")

    (before,) = recordings_in(tmp_path / "in").values()
    (after,) = recordings_in(tmp_path / "out").values()
    assert stamps(after) == stamps(before) == [0, 1, 2, 3, 4]
    assert after.actions is not None
    assert before.actions is not None
    assert np.allclose(after.actions.values, before.actions.values, atol=1e-5, equal_nan=True)
    assert list(after.texts or ()) == [None, "a hill", "a hill", None, None]
    assert after.states is not None
    assert np.array_equal(after.states, before.states, equal_nan=True)  # type: ignore[arg-type]
    (table,) = (tmp_path / "out/train/metadata").iterdir()
    assert json.loads(table.read_text())["biome"] == "desert"


def test_vpt_goes_without_the_keys_that_a_table_does_not_have_and_that_is_said(
    tmp_path: Path,
) -> None:
    picture_corpus(tmp_path / "corpus", VPT, 1, rate=TWENTY)

    report = wham_data.export(tmp_path / "corpus", to="gf-minecraft", out=tmp_path / "out")

    (opened,) = recordings_in(tmp_path / "out").values()
    keys = ("forward", "left", "back", "right", "sprint", "sneak", "jump")
    wanted = by_name(actions_of(VPT, 0, 6), *keys, "camera_yaw", "camera_pitch")[:5]
    assert opened.actions is not None
    assert np.allclose(opened.actions.values[:5], kept_by_a_table(wanted), atol=1e-5)
    assert any("attack, use and pickItem are dropped" in note for note in report.notes)


@pytest.mark.parametrize("format", ["gf-minecraft", "micro-world", "matrix-game"])
def test_other_games_are_refused_with_the_way_out(tmp_path: Path, format: str) -> None:
    picture_corpus(tmp_path / "corpus", "keyboard_mouse", 1)

    with pytest.raises(UsageError, match=rf"{format} needs actions in vpt.*--mapping"):
        wham_data.export(tmp_path / "corpus", to=format, out=tmp_path / "out")


@pytest.mark.parametrize("space", ["oasis25", "microworld9", "matrixgame8"])
@pytest.mark.parametrize("format", ["gf-minecraft", "micro-world", "matrix-game"])
def test_every_variant_of_minecraft_is_taken(tmp_path: Path, format: str, space: str) -> None:
    picture_corpus(tmp_path / "corpus", space, 1, rate=TWENTY)
    options = {} if format == "gf-minecraft" else {"clip": "5"}

    report = wham_data.export(tmp_path / "corpus", to=format, out=tmp_path / "out", options=options)

    assert (report.written, report.exit_code) == (1, 0)


# --- micro-world ------------------------------------------------------------------------------


def clip_of(data: Path, row: dict[str, str]) -> dict[str, Any]:
    """A clip as Micro-World's training code takes it, by what the page of the format says of it."""
    first, last = int(row["start frame index"]), int(row["end frame index"])
    root = data / row["dir"]
    table = root / "metadata-detection" / row["original video name"].replace("mp4", "json")
    entries = json.loads(table.read_text())["actions"]
    keyboard, mouse = np.zeros((last - first + 1, 7)), np.zeros((last - first + 1, 2))
    for frame in range(first + 1, last + 1):
        told = entries[str(frame)]
        assert told["collision"] == told["jump_invalid"] == 0
        for code, columns in (("ws", (0, 1)), ("ad", (2, 3)), ("scs", (4, 5, 6))):
            if told[code]:
                keyboard[frame - first, columns[told[code] - 1]] = 1
        mouse[frame - first] = told["pitch_delta"] * 15, told["yaw_delta"] * 15
    pictures = frames_at(root / "video" / row["original video name"], first, last)
    return {"frames": pictures, "keyboard": keyboard, "mouse": mouse, "text": row["prompt"]}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_micro_worlds_training_finds_whole_clips_with_what_led_to_each_frame(
    tmp_path: Path,
) -> None:
    episodes = {"a": {"n_steps": 9}, "b": {"split": "val"}, "c": {"n_steps": 3}}
    picture_corpus(tmp_path / "corpus", MICRO, episodes, rate=TWENTY, text=True)

    report = wham_data.export(
        tmp_path / "corpus", to="micro-world", out=tmp_path / "out", options=CLIPS
    )

    assert (report.written, [each.reason for each in report.failed]) == (2, ["too_short"])
    train = rows_of(tmp_path / "out/train/video_captions_v0.csv")
    val = rows_of(tmp_path / "out/val/video_captions_v0.csv")
    assert [tuple(row.values()) for row in (*train, *val)] == [
        ("scene_0.mp4", "0", "3", "task 0", "train"),
        ("scene_0.mp4", "4", "7", "task 1", "train"),
        ("scene_1.mp4", "0", "3", "task 0", "val"),
    ]
    clip = clip_of(tmp_path / "out", train[1])
    assert clip["frames"] == [4, 5, 6, 7]
    led = kept_by_a_table(actions_of(MICRO, 0, 9))[4:7]
    order = [MICRO.index(key) for key in ("w", "s", "a", "d", "space", "shift", "ctrl")]
    assert not clip["keyboard"][0].any()
    assert (clip["keyboard"][1:] == led[:, order]).all()
    camera = [MICRO.index("camera_pitch"), MICRO.index("camera_yaw")]
    assert np.allclose(clip["mouse"][1:], led[:, camera], atol=1e-5)


def test_micro_world_is_read_back_by_its_reader_with_its_captions(tmp_path: Path) -> None:
    detected = {"format": "micro-world"}
    content = {"rate": TWENTY, "text": True, "state_size": 7}
    picture_corpus(tmp_path / "corpus", MICRO, {"a": detected}, n_steps=8, **content)

    wham_data.export(tmp_path / "corpus", to="micro-world", out=tmp_path / "out", options=CLIPS)

    (opened,) = recordings_in(tmp_path / "out", "micro-world").values()
    assert stamps(opened) == list(range(8))
    wanted = kept_by_a_table(actions_of(MICRO, 0, 8))[:7]
    assert opened.actions is not None
    assert np.allclose(opened.actions.values[:7], wanted, atol=1e-5)
    assert opened.states is not None
    assert opened.states[1:].tolist() == [[k] * 7 for k in range(1, 8)]
    assert list(opened.texts or ()) == ["task 0"] * 4 + ["task 1"] * 4


def test_a_clip_has_the_caption_of_most_of_its_frames() -> None:
    assert prompt_of(["a", None, "b", "b"]) == "b"
    assert prompt_of([None, None]) == ""


def test_captions_of_micro_worlds_own_file_are_read(tmp_path: Path) -> None:
    more = {"collision": 0, "jump_invalid": 0}
    entries = {str(k): entry(**more) for k in range(5)}
    written(tmp_path, entries, name="scene_3", folder="metadata-detection")
    (tmp_path / "video_captions_v0.csv").write_text(
        "original video name,start frame index,end frame index,prompt,dir\n"
        "scene_3.mp4,0,2,a lake,dataset\n"
    )

    (opened,) = recordings_in(tmp_path, "micro-world").values()

    assert list(opened.texts or ()) == ["a lake"] * 3 + [None] * 2


# --- matrix-game ------------------------------------------------------------------------------


def conditions_of(path: Path) -> dict[str, NDArray[np.float32]]:
    with np.load(path, allow_pickle=False) as found:
        return dict(found)


def test_matrix_games_conditions_are_what_led_to_each_frame(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", VPT, {"a": {"n_steps": 12}}, rate=Fraction(16))

    report = wham_data.export(
        tmp_path / "corpus", to="matrix-game", out=tmp_path / "out", options={"clip": "5"}
    )

    assert (report.written, report.steps, report.left_out_steps) == (2, 10, 2)
    actions = actions_of(VPT, 0, 12)
    keys = by_name(actions, "forward", "back", "left", "right", "jump", "attack")
    camera = by_name(actions, "camera_pitch", "camera_yaw") * np.float32([-0.01, 0.01])
    for clip, first in enumerate((0, 5)):
        path = tmp_path / f"out/train/000{clip}_recorded.mp4"
        found = conditions_of(path.with_suffix(".conditions.npz"))
        keyboard, mouse = found["keyboard_condition"], found["mouse_condition"]
        assert frames_at(path, 0, 4) == list(range(first, first + 5))
        assert (keyboard.shape, mouse.shape) == ((5, 6), (5, 2))
        assert (keyboard.dtype, mouse.dtype) == (np.float32, np.float32)
        assert (keyboard[1:] == keys[first : first + 4]).all()
        assert np.allclose(mouse[1:], camera[first : first + 4])
        before = np.zeros(8) if first == 0 else np.append(keys[4], camera[4])
        assert np.allclose(np.append(keyboard[0], mouse[0]), before)


def test_matrix_game_is_read_back_by_its_reader(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", MATRIX, {"a": {}}, rate=Fraction(16), unknown=(4,))

    wham_data.export(
        tmp_path / "corpus", to="matrix-game", out=tmp_path / "out", options={"clip": "5"}
    )

    (opened,) = recordings_in(tmp_path / "out", "matrix-game").values()
    assert stamps(opened) == [0, 1, 2, 3, 4]  # the action of the last is not known, and not needed
    assert opened.actions is not None
    assert opened.actions.space == MATRIX
    wanted = actions_of(MATRIX, 0, 6)[:4]
    assert np.allclose(opened.actions.values[:4], wanted, atol=1e-6)


def test_the_generator_takes_four_frames_at_a_time_and_one_before(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", MATRIX, 1)

    with pytest.raises(UsageError, match=r"clip=64: expected .* a multiple of 4 and one more"):
        wham_data.export(
            tmp_path / "corpus", to="matrix-game", out=tmp_path / "o", options={"clip": "64"}
        )


@pytest.mark.parametrize("format", ["gf-minecraft", "micro-world", "matrix-game"])
def test_the_same_corpus_gives_the_same_bytes(tmp_path: Path, format: str) -> None:
    picture_corpus(tmp_path / "corpus", VPT, 1, rate=TWENTY)
    options = {} if format == "gf-minecraft" else {"clip": "5"}
    files = []
    for out in (tmp_path / "one", tmp_path / "two"):
        wham_data.export(Corpus.open(tmp_path / "corpus"), to=format, out=out, options=options)
        paths = [path for path in out.rglob("*") if path.is_file()]
        files.append({path.relative_to(out): path.read_bytes() for path in paths})

    assert files[0] == files[1]
