"""The reader `retro-movie`: stable-retro's movies.

What replays one is skipped without stable-retro (`pip install stable-retro`, which brings the free game
Airstriker).
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from makers.commands import ROOT
from makers.readings import frames_of

from wham_data.pipelines.ingest.decoder_process import DecodeLimits, close_idle, open_isolated
from wham_data.pipelines.readers import discover
from wham_data.pipelines.readers.retro_movie.movie import HEADER, LOG, STATE, RetroMovie
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import OpenRecording

REAL = ROOT / "tests/data/retro_movie/buttons_of_airstriker.bk2"
"""A movie of stable-retro 1.0.1, without its saved state, which is the game's."""
HAS_RETRO = find_spec("stable_retro") is not None
needs_retro = pytest.mark.skipif(not HAS_RETRO, reason="stable-retro is not installed")
AIRSTRIKER = "Airstriker-Genesis-v0"
GENESIS = ["B", "A", "MODE", "START", "UP", "DOWN", "LEFT", "RIGHT", "C", "Y", "X", "Z"]
NAMES = "P1 A|P1 B|"
SOURCE_SIZE = (320, 224)
NS = 1_000_000_000


def movie(
    path: Path,
    log: str | bytes = f"[Input]\n{NAMES}\n|..|..|\n|..|A.|\n[/Input]\n",
    version: str = "Retro",
    game: str = AIRSTRIKER,
    state: bytes | None = None,
) -> Path:
    """Write a movie."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(HEADER, f"MovieVersion {version}\nGameName {game}\nPlatform GEN\n")
        archive.writestr(LOG, log)
        if state is not None:
            archive.writestr(STATE, state)
    return path


@pytest.fixture(autouse=True, scope="module")
def _no_decoder_is_left() -> Iterator[None]:
    yield
    close_idle()


def opened(path: Path, without_state: str = "switched_on") -> OpenRecording:
    """A movie of one player, open in a decoder process as in an ingest."""
    found = discover([path])
    if found.refused:
        raise found.refused[0][1]
    (recording,) = found.recordings
    options = (("without_state", without_state),)
    return open_isolated(recording, VideoLimits(), NS, options, (), DecodeLimits())


def refusal(path: Path, without_state: str = "switched_on") -> RefusedInput:
    with pytest.raises(RefusedInput) as refused:
        opened(path, without_state)
    return refused.value


# The file


def test_the_buttons_of_a_movie_that_stable_retro_wrote_are_read() -> None:
    read = RetroMovie.read(REAL)

    assert read.game == AIRSTRIKER
    assert read.state is None
    (names,), (down,) = read.players, read.down
    assert sorted(names) == sorted(GENESIS)
    assert down.shape == (91, 12)
    assert [names[i] for i in np.flatnonzero(down[8])] == ["LEFT"]
    assert not down[0].any()


def test_two_players_are_two_recordings_of_one_match(tmp_path: Path) -> None:
    log = "[Input]\nP1 A|P1 B|P2 A|P2 B|\n|..|..|..|\n|..|A.|.B|\n[/Input]\n"
    path = movie(tmp_path / "a.bk2", log)

    recordings = discover([tmp_path]).recordings

    assert [(each.part, each.provenance.subject) for each in recordings] == [
        ("player_1", "1"),
        ("player_2", "2"),
    ]
    assert {each.provenance.match for each in recordings} == {"a"}
    assert {each.provenance.game for each in recordings} == {AIRSTRIKER}
    first, second = RetroMovie.read(path).down
    assert first.tolist() == [[False, False], [True, False]]
    assert second.tolist() == [[False, False], [False, True]]


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", Reason.LOG_SYNTAX),
        ("[Input]\n", Reason.LOG_COLUMN),
        (f"[Input]\n{NAMES}\n[/Input]\n", Reason.LOG_EMPTY),
        (f"[Input]\n{NAMES}\n|..|..|\n", Reason.TRUNCATED),
        (f"[Input]\n{NAMES}\n|..|...|\n[/Input]\n", Reason.LOG_SYNTAX),
        (f"[Input]\n{NAMES}\n|..|..|..|\n[/Input]\n", Reason.LOG_SYNTAX),
        (f"[Input]\n{NAMES}\n|r.|..|\n[/Input]\n", Reason.LOG_SYNTAX),
        (f"[Input]\n{NAMES}\n|..|\xff.|\n[/Input]\n", Reason.LOG_SYNTAX),
        (f"[Input]\n{NAMES}\nnonsense\n[/Input]\n", Reason.LOG_SYNTAX),
        ("[Input]\nP1 A|P1 A|\n|..|..|\n[/Input]\n", Reason.LOG_COLUMN),
        ("[Input]\nP2 A|P2 B|\n|..|..|\n[/Input]\n", Reason.LOG_COLUMN),
        ("[Input]\nPower|P1 B|\n|..|..|\n[/Input]\n", Reason.LOG_COLUMN),
    ],
)
def test_a_log_that_is_none_is_refused(tmp_path: Path, log: str, reason: Reason) -> None:
    with pytest.raises(RefusedInput) as refused:
        RetroMovie.read(movie(tmp_path / "a.bk2", log.encode("latin-1")))

    assert refused.value.reason is reason


def test_movies_of_other_emulators_are_refused_because_they_would_drift(tmp_path: Path) -> None:
    why = refusal(movie(tmp_path / "a.bk2", version="BizHawk v2.0.0"))

    assert why.reason is Reason.FORMAT_NOT_ALLOWED
    assert "BizHawk v2.0.0" in why.message
    assert "record a video" in why.message


def test_a_damaged_movie_is_refused(tmp_path: Path) -> None:
    path = movie(tmp_path / "a.bk2")
    path.write_bytes(path.read_bytes()[:-40])
    assert refusal(path).reason is Reason.TRUNCATED
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert refusal(path).reason is Reason.METADATA


def test_what_stands_in_the_place_of_a_movie_is_named(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n"
    (tmp_path / "a.bk2").write_text(pointer)

    assert refusal(tmp_path / "a.bk2").reason is Reason.NOT_DOWNLOADED


def test_a_log_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    log = f"[Input]\n{NAMES}\n" + "|..|..|\n" * 5_000_000

    with pytest.raises(RefusedInput) as refused:
        RetroMovie.read(movie(tmp_path / "a.bk2", log))

    assert refused.value.reason is Reason.TOO_LARGE


def test_a_movie_that_does_not_say_where_it_begins_is_refused_unless_the_user_does() -> None:
    why = refusal(REAL, "refuse")

    assert why.reason is Reason.METADATA
    assert "--option without_state=switched_on" in why.message


@pytest.mark.skipif(HAS_RETRO, reason="stable-retro is installed")
def test_without_stable_retro_the_line_to_install_it_is_named() -> None:
    why = refusal(REAL)

    assert why.reason is Reason.MISSING_PART
    assert "stable-retro" in why.message
    assert "pip install" in why.message


# The replay

RECORD = """
import sys, numpy as np, stable_retro
folder, state = sys.argv[1], sys.argv[2] == "state"
default, none = stable_retro.State.DEFAULT, stable_retro.State.NONE
env = stable_retro.make("Airstriker-Genesis-v0", default if state else none, render_mode="rgb_array")
env.record_movie(folder + "/play.bk2")
frames = [env.reset()[0]]
rng, held = np.random.default_rng(1), np.zeros(12, np.int8)
actions = []
for k in range(150):
    if k % 7 == 0:
        held = (rng.random(12) < 0.4).astype(np.int8)
    actions.append(env.action_to_array(held)[0])
    frames.append(env.step(held)[0])
env.stop_record()
np.savez_compressed(folder + "/live.npz", frames=np.stack(frames), actions=np.stack(actions))
"""


def recorded(folder: Path, state: bool = True) -> Path:
    """Play Airstriker with stable-retro itself: `play.bk2`, and what was seen in `live.npz`."""
    how = "state" if state else "switched on"
    subprocess.run([sys.executable, "-c", RECORD, str(folder), how], check=True, timeout=60)
    return folder / "play.bk2"


@needs_retro
@pytest.mark.parametrize("state", [True, False], ids=["a saved state", "switched on"])
def test_a_replay_has_every_picture_and_action_of_the_play(tmp_path: Path, state: bool) -> None:
    path = recorded(tmp_path, state)
    live = np.load(tmp_path / "live.npz")

    replay = opened(path)

    assert replay.actions is not None
    assert list(replay.actions.space.names) == GENESIS
    assert replay.actions.space.name == "retro_genesis"
    assert (replay.actions.values[:150] == live["actions"]).all()
    assert np.isnan(replay.actions.values[150]).all(), "after the last picture"
    assert abs(float(replay.frame_end_ns) / 151 - NS / 59.922743) < 10
    assert (frames_of(replay, SOURCE_SIZE) == live["frames"]).all()
    assert (frames_of(replay, SOURCE_SIZE, [3, 3, 90]) == live["frames"][[3, 3, 90]]).all()


@needs_retro
def test_movies_are_replayed_one_after_the_other_in_one_process(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    other = tmp_path / "other.bk2"
    other.write_bytes(path.read_bytes())
    live = np.load(tmp_path / "live.npz")["frames"]

    for each in (path, other, path):
        assert (frames_of(opened(each), SOURCE_SIZE, [0, 40]) == live[[0, 40]]).all()


@needs_retro
def test_the_space_is_that_of_collect() -> None:
    from wham_data.pipelines.collect.engine import Start
    from wham_data.pipelines.collect.engines.retro import Retro
    from wham_data.pipelines.readers.retro_movie.replay import console_of

    console = console_of(RetroMovie.read(REAL))
    engine = Retro(Start(scenario="Airstriker", seed=1, size=None))
    try:
        assert engine.space == console.space
    finally:
        engine.close()


@needs_retro
@pytest.mark.parametrize("game", ["SonicTheHedgehog-Genesis-v0", "SuperMarioWorld-Snes"])
def test_without_the_rom_the_game_and_the_way_to_import_it_are_named(
    tmp_path: Path, game: str
) -> None:
    why = refusal(movie(tmp_path / "a.bk2", game=game))

    assert why.reason is Reason.MISSING_PART
    assert game in why.message
    assert "python -m stable_retro.import FOLDER" in why.message


@needs_retro
@pytest.mark.parametrize("game", ["", "../../../etc", "/etc", "Nothing-Genesis"])
def test_a_name_that_is_no_game_is_not_made_a_path(tmp_path: Path, game: str) -> None:
    assert refusal(movie(tmp_path / "a.bk2", game=game)).reason is Reason.METADATA


@needs_retro
@pytest.mark.parametrize("state", [b"", b"\xff" * 1000, b"\x00" * 1_036_288])
def test_a_state_of_another_emulator_is_refused(tmp_path: Path, state: bytes) -> None:
    log = (
        "[Input]\n" + "".join(f"P1 {name}|" for name in GENESIS) + f"\n|..|{'.' * 12}|\n[/Input]\n"
    )

    assert refusal(movie(tmp_path / "a.bk2", log, state=state)).reason is Reason.METADATA


@needs_retro
@pytest.mark.parametrize(
    ("names", "said"), [(GENESIS[:11], "has no button Z"), ([*GENESIS, "L"], "no button L")]
)
def test_buttons_that_are_not_those_of_the_console_are_refused(
    tmp_path: Path, names: list[str], said: str
) -> None:
    log = "[Input]\n" + "".join(f"P1 {name}|" for name in names)
    log += f"\n|..|{'.' * len(names)}|\n[/Input]\n"

    why = refusal(movie(tmp_path / "a.bk2", log))

    assert why.reason is Reason.LOG_COLUMN
    assert said in why.message


@needs_retro
def test_a_damaged_state_costs_its_own_movie_only(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    with zipfile.ZipFile(path) as archive:
        log, state = archive.read(LOG), bytearray(archive.read(STATE))
    rng = np.random.default_rng(3)
    for attempt in range(6):
        damaged = bytearray(state)
        for at in rng.integers(16, len(state), 4000):
            damaged[at] = int(rng.integers(256))
        broken = movie(tmp_path / f"{attempt}.bk2", log, state=bytes(damaged))
        try:
            frames_of(opened(broken), SOURCE_SIZE)
        except RefusedInput:
            continue
    assert len(frames_of(opened(path), SOURCE_SIZE)) == 151
