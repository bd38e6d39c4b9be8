"""The real engines, where they are installed: a few seconds of each, recorded and read back."""

from __future__ import annotations

import importlib.util
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from wham_data.pipelines.collect.engine import EngineKind, Start, target_shares
from wham_data.pipelines.collect.engines import ENGINES, engine_named
from wham_data.pipelines.collect.run import CollectSettings, run_collect
from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.run.progress import Silent
from wham_data.schemas.errors import UsageError


def here(kind: EngineKind) -> EngineKind:
    """The engine, or the test is skipped."""
    if importlib.util.find_spec(kind.package) is None:
        pytest.skip(f"{kind.package} is not installed")
    if kind.name == "miniworld" and not os.environ.get("DISPLAY"):
        pytest.skip("MiniWorld needs a display")
    return kind


@pytest.mark.parametrize("kind", ENGINES, ids=lambda kind: kind.name)
def test_a_recording_of_each_engine_is_read_as_it_was_played(
    kind: EngineKind, tmp_path: Path
) -> None:
    settings = CollectSettings(here(kind).scenarios[0], Fraction(2), episode_s=Fraction(2))
    report = run_collect(kind, settings, tmp_path, parallel=1, watch=Silent())
    assert report.failed == ()
    (found,) = discover([tmp_path]).recordings
    recording = open_recording(found)
    assert recording.actions is not None
    assert len(recording.frame_times_ns) == report.frames > 0
    assert recording.actions.times_ns[:-1].tolist() == recording.frame_times_ns.tolist()
    names = {each.name for each in report.actions}
    assert names >= set(kind.script)
    assert (recording.actions.values[:-1] != 0).any()
    (frame, *_), *_ = recording.frames(np.array([0]), (96, 64), fit="stretch", batch=1, threads=1)
    assert frame.std() > 0


@pytest.mark.parametrize("kind", ENGINES, ids=lambda kind: kind.name)
def test_an_unknown_scenario_is_said_with_those_that_there_are(kind: EngineKind) -> None:
    with pytest.raises(UsageError, match="known: "):
        here(kind).start(Start("no-such-place", 0))


@pytest.mark.parametrize("engine", ["vizdoom", "procgen"])
def test_the_same_seed_and_actions_give_the_same_pictures(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = here(engine_named(engine))
    monkeypatch.chdir(tmp_path)  # engines leave files where they run
    shown = []
    for _ in range(2):
        game = kind.start(Start(kind.scenarios[0], 7))
        action = np.zeros(game.space.size, np.float32)
        action[0] = 1
        for _ in range(20):
            game.tic(action)
        shown.append(game.screen().copy())
        game.close()
    assert np.array_equal(*shown)


def test_turning_right_in_doom_moves_the_picture_to_the_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = here(engine_named("vizdoom"))
    monkeypatch.chdir(tmp_path)
    game = kind.start(Start("MAP01", 0, (320, 240)))
    turn = np.zeros(game.space.size, np.float32)
    turn[game.space.index("TURN_LEFT_RIGHT_DELTA")] = 5.0
    game.tic(0 * turn)
    before = game.screen()[60:140].astype(float).copy()
    game.tic(turn)
    game.tic(0 * turn)
    after = game.screen()[60:140].astype(float).copy()
    game.close()
    errors = {
        shift: np.abs(before[:, 60 + shift : 260 + shift] - after[:, 60:260]).mean()
        for shift in range(-40, 41)
    }
    assert min(errors, key=errors.__getitem__) > 5


@pytest.mark.parametrize("kind", ENGINES, ids=lambda kind: kind.name)
def test_a_script_asks_for_what_hands_can_do(
    kind: EngineKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(kind)
    monkeypatch.chdir(tmp_path)
    game = kind.start(Start(kind.scenarios[0], 0, scripted=True))
    target_shares(game.fingers, kind.script)
    assert set(game.reflex()) <= set(game.space.names)
    game.close()
