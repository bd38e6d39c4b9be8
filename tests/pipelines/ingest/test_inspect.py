"""`wham-data inspect`: the pictures and, below them, what the hands did at that time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from makers.recordings import Cut, cut, ingest_here
from makers.video_clips import write_clip
from numpy.typing import NDArray
from typer.testing import CliRunner

from wham_data.cli.main import app
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.ingest.shown.inspect import (
    CAPTION_HEIGHT,
    PICTURE,
    SCALE,
    Stretch,
    inspect,
)
from wham_data.pipelines.media.canvas import Canvas
from wham_data.pipelines.media.controls import HEIGHT, LAMP, LAMPS, WIDTH, Controls
from wham_data.pipelines.media.picture import LIT, PAPER
from wham_data.pipelines.video import decode_frames, index_video
from wham_data.schemas.actions import ActionSpace, Dimension, load_space
from wham_data.schemas.errors import NoInputsError, RefusedInput, UsageError, WhamDataError
from wham_data.schemas.recording import Frames

PLAIN = IngestSettings(tokenizer=None)
BUTTON = ActionSpace("one", (Dimension("fire", "button", 0, 1), Dimension("turn", "axis", -1, 1)))


def flashing(folder: Path, times_ms: Sequence[int], lit_ms: tuple[int, int], late_ms: int) -> Path:
    """A clip that is white for a while, and a log of a button held then; the log is late."""
    frames = (
        np.full((112, 192, 3), 235 if lit_ms[0] <= time < lit_ms[1] else 20, np.uint8)
        for time in times_ms
    )
    write_clip(folder / "a.mp4", times_ms, frames=frames)
    down, up = (time + late_ms for time in lit_ms)
    rows = [(late_ms, 0), (down, 1), (up, 0), (times_ms[-1] + 100 + late_ms, 0)]
    lines = [f"{time},button_A,{value}" for time, value in rows]
    (folder / "a.csv").write_text("\n".join(["time_ms,control,value", *lines]) + "\n")
    (folder / "a.toml").write_text('actions = "xinput16"\n')
    return folder / "a.mp4"


def watched(path: Path) -> Frames:
    index = index_video(path)
    picks = np.arange(len(index.times_ns))
    return np.concatenate(list(decode_frames(index, picks, index.picture.display_size)))


def lamps(film: Frames) -> list[bool]:
    """In which pictures the first lamp of xinput16 is lit."""
    x, y = LAMPS[0] + 4, CAPTION_HEIGHT + LAMPS[1] + LAMP[1] // 2
    corner = film[:, PICTURE[1] + y * SCALE, x * SCALE].astype(int)
    return [bool(close) for close in np.abs(corner - LIT).max(axis=1) < 60]


EVEN_25 = range(0, 800, 40)
EVEN_50 = range(0, 400, 20)
EVEN_10 = range(0, 2000, 100)


@pytest.mark.parametrize(
    ("times_ms", "lit_ms", "late_ms"),
    [(EVEN_25, (400, 720), 0), (EVEN_50, (140, 320), 60), (EVEN_10, (600, 1400), -200)],
)
def test_a_lamp_is_lit_while_its_effect_is_on_screen_if_the_offset_is_right(
    tmp_path: Path, times_ms: Sequence[int], lit_ms: tuple[int, int], late_ms: int
) -> None:
    clip = flashing(tmp_path, times_ms, lit_ms, late_ms)
    right, wrong = Stretch(offset_ns=late_ms * 1_000_000), Stretch(offset_ns=-120_000_000)
    report = inspect([clip], tmp_path / "o.mp4", PLAIN, right)

    film = watched(tmp_path / "o.mp4")
    white = film[:, 200:400, 400:800].mean(axis=(1, 2, 3)) > 128
    assert lamps(film) == white.tolist()
    assert (report.steps, report.unknown, report.space) == (len(film), 0, "xinput16")

    inspect([clip], tmp_path / "o.mp4", PLAIN, wrong)
    assert lamps(watched(tmp_path / "o.mp4")) != white.tolist()


def test_a_stretch_begins_and_ends_where_it_is_asked_to(tmp_path: Path) -> None:
    clip = flashing(tmp_path, EVEN_25, (400, 720), 0)
    stretch = Stretch(start=Fraction("0.32"), seconds=Fraction("0.4"), rate=Fraction(50))

    report = inspect([clip], tmp_path / "o.mp4", PLAIN, stretch)

    assert (report.steps, report.rate, report.seconds, report.start_s) == (20, "50", 0.4, 0.32)
    assert lamps(watched(tmp_path / "o.mp4")) == [False] * 4 + [True] * 16


@pytest.mark.parametrize("name", ["xinput16", "keyboard_mouse", "vizdoom"])
def test_what_is_not_known_never_looks_like_rest(name: str) -> None:
    space = load_space(name)
    rest = np.zeros((30, space.size), np.float32)
    unknown = rest.copy()
    unknown[10:20] = np.nan

    assert not np.array_equal(drawn(rest, space, 15), drawn(unknown, space, 15))
    lamp, lane = np.s_[19:49, 451:636], np.s_[19:131, 70:432]
    for part in (lamp, lane) if len(space.of_kind("axis", "delta")) else (lamp,):
        assert not np.array_equal(drawn(rest, space, 15)[part], drawn(unknown, space, 15)[part])
    assert np.array_equal(drawn(rest, space, 5)[lamp], drawn(unknown, space, 5)[lamp])


def drawn(actions: NDArray[np.float32], space: ActionSpace, step: int) -> Frames:
    canvas = Canvas(WIDTH, HEIGHT, 1, PAPER)
    Controls(actions, space).draw(canvas, step)
    return canvas.pixels()


@pytest.mark.parametrize("key", ["key_w", "mouse_left", "mouse_forward"])
def test_what_is_in_use_has_room_before_what_is_not(key: str) -> None:
    space = load_space("keyboard_mouse")
    actions = np.zeros((2, space.size), np.float32)
    actions[1, space.index(key)] = 1

    lit = (np.abs(drawn(actions, space, 1).astype(int) - LIT).max(axis=2) < 30)[:, 445:]

    assert lit.sum() > 50


def test_an_episode_of_a_corpus_is_drawn_as_it_is_stored(tmp_path: Path) -> None:
    flashing(tmp_path, EVEN_10, (400, 800), 0)
    ingest_here(tmp_path, tmp_path / "corpus", IngestSettings(tokenizer=None, frames="png"))

    report = inspect([tmp_path / "corpus"], tmp_path / "o.mp4", PLAIN, Stretch())

    film = watched(tmp_path / "o.mp4")
    white = film[:, 200:400, 400:800].mean(axis=(1, 2, 3)) > 128
    assert (len(film), report.steps, report.rate) == (20, 20, "10")
    assert lamps(film) == white.tolist() == [4 <= step < 8 for step in range(20)]


def test_pictures_are_made_of_tokens_where_none_are_stored(tmp_path: Path) -> None:
    clip = cut(tmp_path / "r", "play", Cut("doom", 1, 0.6))
    ingest_here(tmp_path / "r", tmp_path / "corpus", IngestSettings())

    stretch = Stretch(seconds=Fraction("0.3"))
    stored = inspect([tmp_path / "corpus"], tmp_path / "o.mp4", PLAIN, stretch)
    inspect([clip], tmp_path / "r.mp4", PLAIN, stretch)

    assert "decoded from tokens" in stored.notes[0]
    made, recorded = (watched(tmp_path / name)[0, :720].astype(int) for name in ("o.mp4", "r.mp4"))
    assert np.abs(made - recorded).mean() < 30


def test_one_of_several_is_chosen_by_name_or_number(tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        (tmp_path / name).mkdir()
        flashing(tmp_path / name, EVEN_25, (400, 800), 0).rename(tmp_path / name / f"{name}.mp4")
        for ending in (".csv", ".toml"):
            (tmp_path / name / f"a{ending}").rename(tmp_path / name / f"{name}{ending}")
    short = {"seconds": Fraction("0.1")}

    for wanted, found in ((None, "ann"), ("2", "bob"), ("bob", "bob"), ("ann.mp4", "ann")):
        report = inspect([tmp_path], tmp_path / "o.mp4", PLAIN, Stretch(episode=wanted, **short))
        assert (Path(report.source).stem, report.others) == (found, 1)
        (tmp_path / "o.mp4").unlink()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (["a.mp4", "--out", "o.gif"], UsageError, "ends in .mp4"),
        (["a.mp4", "--out", "a.mp4"], UsageError, "is a file of a recording"),
        ([".", "--out", "../{here}/a.mp4"], UsageError, "is a file of a recording"),
        (["a.mp4", "--out", "o.mp4", "--start", "-1"], UsageError, "0 or more"),
        (["a.mp4", "--out", "o.mp4", "--seconds", "99999"], UsageError, "up to 3600"),
        (["a.mp4", "--out", "o.mp4", "--rate", "1000"], UsageError, "1 to 240"),
        (["a.mp4", "--out", "no/o.mp4"], UsageError, "folder that exists"),
        (["a.mp4", "--out", "o.mp4", "--start", "9"], UsageError, "0.800 s long"),
        (["a.mp4", "--out", "o.mp4", "--seconds", "nan"], UsageError, "--seconds nan"),
        (["a.mp4", "--out", "o.mp4", "--episode", "carl"], UsageError, "such as a.mp4"),
        (["a.mp4", "--out", "o.mp4", "--actions", "vizdoom"], RefusedInput, "a.mp4: "),
        (["empty", "--out", "o.mp4"], NoInputsError, "no recording"),
        (["corpus", "--out", "o.mp4", "--offset-ms", "3"], UsageError, "of recordings only"),
        (["corpus", "--out", "o.mp4"], UsageError, "neither pictures nor tokens"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    error: type[WhamDataError],
    said: str,
) -> None:
    flashing(tmp_path, EVEN_25, (400, 800), 0)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    if "corpus" in options:
        ingest_here(tmp_path, tmp_path / "corpus")

    before = (tmp_path / "a.mp4").read_bytes()
    words = [word.replace("{here}", tmp_path.name) for word in options]
    result = CliRunner().invoke(app, ["inspect", *words])

    assert (tmp_path / "a.mp4").read_bytes() == before
    assert isinstance(result.exception, error)
    assert said in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "o.mp4").exists()


def test_a_video_that_turns_out_to_be_damaged_is_named_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    clip = cut(tmp_path, "play", Cut("doom", 1, 1.0))
    data = bytearray(clip.read_bytes())
    media = data.index(b"mdat")
    data[media + 6000 : media + 9000] = bytes(3000)
    clip.write_bytes(data)

    with pytest.raises(RefusedInput, match=r"play\.mp4: "):
        inspect([clip], tmp_path / "o.mp4", PLAIN, Stretch())
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".mp4", ".toml"]


def test_the_command_says_what_it_drew(tmp_path: Path) -> None:
    clip = flashing(tmp_path, EVEN_25, (400, 800), 0)
    words = ["inspect", str(clip), "--out", str(tmp_path / "o.mp4"), "--seconds", "0.4", "-q"]

    text = CliRunner().invoke(app, words).stdout
    report = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)

    assert "0.4 s in xinput16" in text
    assert "10 pictures, of which 0 without a known action" in text
    assert (report["steps"], report["unknown"], report["left_out"]) == (10, 0, [0, 0])
