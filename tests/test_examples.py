"""What the loggers of `examples/` write is read without metadata. The hands and the clock are made up."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from makers.recordings import ingest_here
from makers.video_clips import write_clip

from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.readers import discover, open_recording
from wham_data.schemas.recording import ActionTrack

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports an example as a script finds its neighbours: by name, from its own folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for name in ("event_log", "log_pad", "log_keys"):
        sys.modules.pop(name, None)


@dataclass
class Clock:
    """Seconds; the loggers ask it for the time."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Pad:
    """A pad as SDL tells of it: sticks grow downwards, 16 bits."""

    buttons: set[int] = field(default_factory=set)
    axes: Mapping[int, int] = field(default_factory=dict)

    def get_button(self, number: int) -> bool:
        return number in self.buttons

    def get_axis(self, number: int) -> int:
        return self.axes.get(number, 0)


def track_of(folder: Path) -> ActionTrack:
    """The actions of the only recording of a folder, which has no metadata."""
    (recording,) = discover([folder]).recordings
    assert not list(folder.glob("*.toml"))
    track = open_recording(recording).actions
    assert track is not None
    return track


def at(track: ActionTrack, name: str, ms: float) -> float:
    """What a control was at a time of the video."""
    row = np.searchsorted(track.times_ns, round(ms * 1e6), side="right") - 1
    return float(track.values[row, track.space.index(name)])


def record(log: Any, folder: Path, seconds: float = 2.0) -> None:
    """OBS starts to record a clip of 10 frames per second."""
    write_clip(folder / "2026-11-30 12-00-00.mp4", range(0, round(seconds * 1000), 100))
    log.look()


@pytest.mark.parametrize(
    ("number", "name"), [(0, "a"), (3, "y"), (4, "back"), (9, "left_shoulder"), (14, "right")]
)
def test_a_button_of_a_pad_is_down_when_it_was(
    tmp_path: Path, example: Any, number: int, name: str
) -> None:
    clock, pad = Clock(), Pad()
    held = example("log_pad").held
    log = example("event_log").EventLog(tmp_path, now=clock)
    log.hold(held(pad))
    clock.seconds += 3
    record(log, tmp_path)
    for buttons, wait in (((number,), 0.5), ((), 0.25), ((), 1.5)):
        clock.seconds += wait
        log.hold(held(Pad(set(buttons))))
    log.close(left_x=0.0)

    track = track_of(tmp_path)
    assert track.space.name == "xinput"
    assert [at(track, name, ms) for ms in (499, 501, 749, 751)] == [0, 1, 1, 0]
    assert (track.times_ns[0], track.end_ns) == (-3_000_000_000, 2_250_000_000)


@pytest.mark.parametrize(
    ("number", "raw", "name", "value"),
    [
        (0, 32767, "left_x", 1), (0, -32768, "left_x", -1), (1, -32768, "left_y", 1),
        (3, 16384, "right_y", -0.5), (4, 32767, "left_trigger", 1), (5, 8192, "right_trigger", 0.25),
    ],
)  # fmt: skip
def test_sticks_and_triggers_are_on_the_scale_and_the_side_of_the_space(
    tmp_path: Path, example: Any, number: int, raw: int, name: str, value: float
) -> None:
    clock, held = Clock(), example("log_pad").held
    log = example("event_log").EventLog(tmp_path, now=clock)
    log.hold(held(Pad()))
    record(log, tmp_path)
    clock.seconds += 1
    log.hold(held(Pad(axes={number: raw})))
    clock.seconds += 1
    log.close(left_x=log.state["left_x"])

    assert at(track_of(tmp_path), name, 1500) == pytest.approx(value, abs=1e-3)


def test_keys_and_mouse_become_actions_of_a_corpus(tmp_path: Path, example: Any) -> None:
    clock, keys = Clock(), example("log_keys")
    log = example("event_log").EventLog(tmp_path, now=clock)
    pointer = keys.Pointer(log)
    clock.seconds += 0.7
    record(log, tmp_path)
    w, shift = SimpleNamespace(char="w"), SimpleNamespace(name="shift")
    for key, down, wait in ((w, 1, 0.3), (w, 1, 0.05), (shift, 1, 0.15), (w, 0, 0.1)):
        clock.seconds += wait
        log.hold({keys.key_name(key): down})
    for place in ((500, 300), (507, 296), (510, 296)):
        clock.seconds += 0.01
        pointer.move(*place)
    clock.seconds += 1.4
    log.close(mouse_dx=0)

    ingest_here(tmp_path, tmp_path / "corpus", IngestSettings(tokenizer=None))
    corpus = Corpus.open(tmp_path / "corpus")
    space = corpus.info.action_space
    actions = corpus.read_episode(corpus.episodes["episode"][0]).actions
    of = {name: actions[:10, space.index(name)].tolist() for name in space.names}
    assert space.name == "keyboard_mouse"
    assert of["key_w"] == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0]
    assert of["key_left_shift"] == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert (sum(of["mouse_dx"]), sum(of["mouse_dy"])) == (10, -4)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ({"char": "w"}, "key_w"), ({"char": "W"}, "key_w"), ({"char": "\x17"}, "key_w"),
        ({"char": "1"}, "key_1"), ({"char": "!"}, "key_1"), ({"name": "space"}, "key_space"),
        ({"name": "ctrl_l"}, "key_left_ctrl"), ({"name": "f5"}, "key_f5"),
        ({"name": "esc"}, "key_escape"), ({"char": "é"}, None), ({"char": "/"}, None),
        ({"name": "cmd"}, None), ({"char": None, "vk": 269025043}, None),
    ],
)  # fmt: skip
def test_keys_have_the_names_of_the_space_or_are_left_out(
    example: Any, key: dict[str, Any], name: str | None
) -> None:
    assert example("log_keys").key_name(SimpleNamespace(**key)) == name


@pytest.mark.parametrize("offset_ms", [-250.0, 0.0, 180.0])
def test_an_offset_moves_the_marker_and_nothing_else(
    tmp_path: Path, example: Any, offset_ms: float
) -> None:
    clock, held = Clock(), example("log_pad").held
    log = example("event_log").EventLog(tmp_path, offset_ms, now=clock)
    log.hold(held(Pad()))
    clock.seconds += 1
    record(log, tmp_path)
    clock.seconds += 0.5
    log.hold(held(Pad({0})))
    clock.seconds += 2
    log.close(left_x=0.0)

    track = track_of(tmp_path)
    (down,) = np.flatnonzero(np.diff(track.values[:, track.space.index("a")], prepend=0))
    assert track.times_ns[down] == 500_000_000 - offset_ms * 1e6


def test_a_log_keeps_its_own_name_where_no_video_came_or_one_of_that_name_is_there(
    tmp_path: Path, example: Any
) -> None:
    write_clip(tmp_path / "old.mp4", range(0, 500, 100))
    clock = Clock()
    log = example("event_log").EventLog(tmp_path, now=clock)
    log.look()
    log.close(left_x=0.0)
    assert [path.stem[:4] for path in tmp_path.glob("*.csv")] == ["log-"]
    log.path.unlink()

    log = example("event_log").EventLog(tmp_path, now=clock)
    (tmp_path / "2026-11-30 12-00-00.csv").write_text("mine")
    record(log, tmp_path)
    log.close(left_x=0.0)
    assert (tmp_path / "2026-11-30 12-00-00.csv").read_text() == "mine"
    assert log.path.exists()


@pytest.mark.parametrize(("script", "package"), [("log_pad", "pygame"), ("log_keys", "pynput")])
def test_a_missing_package_or_folder_is_named_in_one_line(
    tmp_path: Path, script: str, package: str
) -> None:
    hidden = tmp_path / package
    hidden.mkdir()
    (hidden / "__init__.py").write_text("raise ImportError('not here')")

    def run(folder: Path) -> str:
        words = [sys.executable, str(EXAMPLES / f"{script}.py"), str(folder)]
        environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
        return subprocess.run(words, env=environment, capture_output=True, text=True).stderr

    assert f"pip install {package}" in run(tmp_path)
    assert run(tmp_path / "no") == f"{tmp_path / 'no'}: no such folder\n"
    assert run(tmp_path).count("\n") == 1
    assert not list(tmp_path.glob("*.csv"))
