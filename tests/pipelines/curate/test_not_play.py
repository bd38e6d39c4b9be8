"""What is not play: pauses, menus, loading screens, idle hands; each by step, and play is left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers.interrupted import (
    Made,
    interrupted,
    labels,
    precision_and_recall,
    rewritten,
)
from makers.recordings import DEMO, ingest_here
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.feed.dataset import WindowDataset
from wham_data.pipelines.curate.not_play.flags import Hands, flags_of
from wham_data.pipelines.curate.not_play.hands import at_work, rest_band
from wham_data.pipelines.curate.not_play.hud import Hud, NoHud, learn_hud
from wham_data.pipelines.curate.not_play.job import filter_corpus, undo_filter
from wham_data.pipelines.curate.not_play.motion import motion_of
from wham_data.pipelines.curate.not_play.rules import KINDS, Rules, read_rules
from wham_data.pipelines.curate.small import COLUMNS, ROWS, small_of
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.schemas.actions import ActionSpace, Dimension
from wham_data.schemas.errors import UsageError
from wham_data.schemas.steps import EpisodeSteps

PAD = ActionSpace(
    "pad",
    (
        Dimension("a", "button", 0, 1),
        Dimension("x", "axis", -1, 1),
        Dimension("pull", "trigger", 0, 1),
        Dimension("mouse", "delta", -1000, 1000, "count"),
    ),
)
BUNDLED = read_rules()
Small = NDArray[np.uint8]


def idle_pad(n_steps: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Nobody touches it: the stick trembles beside 0, the driver's trigger rests at its middle."""
    actions = np.zeros((n_steps, 4), np.float32)
    actions[:, 1] = 0.06 + rng.normal(0, 0.02, n_steps)
    actions[:, 2] = 0.5
    return actions


def scene(seed: int) -> NDArray[np.uint8]:
    """A wide random landscape; a window of it is a picture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (ROWS // 4, 400, 3)).astype(np.uint8)
    return coarse.repeat(4, axis=0).repeat(2, axis=1)


def walk(n_steps: int, seed: int = 0) -> Small:
    """Play: the window moves by a cell at each step."""
    wide = scene(seed)
    return np.stack([wide[:, step : step + COLUMNS] for step in range(n_steps)])


def busy(n_steps: int, **spans: tuple[int, int]) -> Hands:
    """Hands at work but in `rest`, and known but in `unknown`."""
    at_it, known = np.ones((2, n_steps), np.bool_)
    for name, (start, stop) in spans.items():
        (at_it if name == "rest" else known)[start:stop] = False
    return Hands(at_it & known, known)


def parts_of(small: Small, hands: Hands, hud: Hud | None = None) -> list[tuple[int, int, str]]:
    return [*flags_of(motion_of([small], hud or NoHud("few")), hands, 10.0, BUNDLED).parts]


def test_play_is_left_alone() -> None:
    assert parts_of(walk(200), busy(200)) == []


def test_a_still_picture_while_hands_are_at_work_is_a_pause() -> None:
    play = walk(200)
    play[80:110] = play[80]

    assert parts_of(play, busy(200)) == [(80, 110, "paused")]


def test_with_hands_at_rest_a_still_picture_is_a_pause_only_if_the_world_moves_by_itself() -> None:
    alive, waits = walk(300), walk(300)
    alive[200:230], waits[60:230] = alive[200], waits[60]
    hands = busy(300, rest=(60, 230))

    assert (200, 230, "paused") in parts_of(alive, hands)
    assert parts_of(waits, hands) == [(60, 230, "idle")]


def test_a_still_picture_without_a_log_is_frozen() -> None:
    play = walk(200)
    play[80:110] = play[80]

    assert (80, 110, "frozen") in parts_of(play, busy(200, unknown=(0, 200)))


def test_a_picture_of_one_colour_is_black_whatever_the_colour() -> None:
    play = walk(200)
    play[50:60], play[100:110] = 0, (200, 20, 20)

    assert parts_of(play, busy(200)) == [(50, 60, "black"), (100, 110, "black")]


def test_a_plain_screen_between_two_scenes_is_loading() -> None:
    play = np.concatenate([walk(80), np.full((20, ROWS, COLUMNS, 3), 20, np.uint8), walk(80, 1)])
    play[80:100, 16:20, 20:40] = 220
    for step in range(80, 100):
        play[step, 30, 50 + step % 4] = 220  # a spinner

    assert parts_of(play, busy(180)) == [(80, 100, "loading")]


def test_hands_that_rest_are_idle_from_the_limit_on() -> None:
    assert parts_of(walk(200), busy(200, rest=(20, 60))) == []
    assert parts_of(walk(200), busy(200, rest=(20, 80))) == [(20, 80, "idle")]


def test_unknown_hands_are_not_called_idle() -> None:
    flags = flags_of(None, busy(200, unknown=(0, 200)), 10.0, BUNDLED)

    assert flags.parts == ()
    assert flags.unjudged == KINDS


def test_without_pictures_only_hands_are_judged() -> None:
    flags = flags_of(None, busy(200, rest=(20, 80)), 10.0, BUNDLED)

    assert flags.parts == ((20, 80, "idle"),)
    assert "menu" in flags.unjudged
    assert "idle" not in flags.unjudged


def test_bars_that_come_and_go_are_told() -> None:
    play = np.maximum(walk(200), 40)
    play[50:90, :6], play[50:90, -6:] = 0, 0

    assert parts_of(play, busy(200)) == [(50, 90, "letterbox")]


def with_hud(n_steps: int, seed: int = 0) -> Small:
    play = walk(n_steps, seed)
    play[:, -6:, :40] = 30
    play[:, -5:-1, 2:38:4] = 230
    return play


@pytest.fixture(scope="module")
def hud() -> Hud:
    learnt = learn_hud(np.concatenate([with_hud(60, seed) for seed in range(8)]), 200)
    assert isinstance(learnt, Hud)
    return learnt


def test_the_hud_is_what_stays_in_its_place(hud: Hud) -> None:
    rows, columns = np.nonzero(hud.cells)

    assert rows.min() >= ROWS - 7
    assert columns.max() < 40


def test_a_hud_that_is_covered_is_a_menu(hud: Hud) -> None:
    play = with_hud(200, 20)
    play[70:100, 8:] = walk(30, 21)[:, 8:] // 4

    assert parts_of(play, busy(200), hud) == [(70, 100, "menu")]


def test_a_moving_picture_without_hud_and_hands_is_a_cutscene(hud: Hud) -> None:
    play = with_hud(200, 20)
    play[70:110] = walk(40, 22)

    assert parts_of(play, busy(200, rest=(70, 110)), hud) == [(70, 110, "cutscene")]


def test_a_mirrored_hud_is_told_from_a_menu(hud: Hud) -> None:
    play = with_hud(200, 20)
    play[70:100] = play[70:100, :, ::-1]

    assert parts_of(play, busy(200), hud) == [(70, 100, "mirrored")]


def test_no_hud_is_learnt_from_too_little_or_where_there_is_none() -> None:
    assert learn_hud(with_hud(100), 200) == NoHud("few")
    assert learn_hud(np.concatenate([walk(60, seed) for seed in range(8)]), 200) == NoHud("none")


def test_an_idle_pad_with_noise_is_at_rest() -> None:
    rng = np.random.default_rng(0)
    actions = idle_pad(1000, rng)
    actions[:300, 1] = rng.uniform(-1, 1, 300)

    assert at_work(actions, PAD)[300:].mean() == 0
    assert at_work(actions, PAD)[:300].mean() > 0.8


@pytest.mark.parametrize(("control", "value"), [(0, 1.0), (1, -0.6), (2, 0.9), (3, 25.0)])
def test_any_device_is_enough_to_be_at_work(control: int, value: float) -> None:
    actions = idle_pad(400, np.random.default_rng(0))
    actions[:, 2] = 0  # an ordinary trigger
    actions[::9, 3] = 1  # the mouse jitters
    actions[100:110, control] = value

    assert at_work(actions, PAD).nonzero()[0].tolist() == list(range(100, 110))


def test_a_stick_that_is_hardly_ever_at_rest_has_the_usual_band() -> None:
    band = rest_band(np.full(500, 0.9, np.float32), PAD.dimensions[1])

    assert (band.low, band.high, band.measured) == (-0.1, 0.1, False)


def test_a_small_picture_is_the_mean_of_its_parts() -> None:
    picture = np.arange(180 * 300 * 3, dtype=np.uint64).reshape(180, 300, 3) % 251
    slow = picture.reshape(ROWS, 5, COLUMNS, 5, 3).mean(axis=(1, 3))

    assert np.abs(small_of(picture.astype(np.uint8)) - slow).max() <= 0.5
    assert small_of(picture[:7, :11].astype(np.uint8)).shape == (ROWS, COLUMNS, 3)


def test_a_file_of_rules_changes_only_what_it_names(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text("hud_share = 0.4\n[idle]\nlonger_than_s = 20\n")

    rules = read_rules(file)

    idle = replace(BUNDLED.of["idle"], longer_than_s=20.0)
    assert rules == replace(BUNDLED, hud_share=0.4, of={**BUNDLED.of, "idle": idle})
    assert rules.hash != BUNDLED.hash


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[idel]\n", "idle"),
        ("[idle]\nlonger = 3\n", "longer_than_s"),
        ("[idle]\nlonger_than_s = -1\n", "from 0"),
        ("[idle]\nleave_out = 1\n", "true or false"),
        ("hud_share = 3\n", "0 to 1"),
        ("idle = 4\n", "table"),
    ],
)
def test_wrong_rules_are_refused_in_one_line(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(text)

    with pytest.raises(UsageError, match=named):
        read_rules(file)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The bundled recordings with JPEG pictures. Only to be read."""
    out = tmp_path_factory.mktemp("demo") / "corpus"
    ingest_here(DEMO, out, IngestSettings(tokenizer=None, frames="jpeg", size=(150, 90)))
    return Corpus.open(out)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> Rules:
    """The bundled rules, but a HUD may be learnt from the little there is."""
    monkeypatch.setattr("wham_data.pipelines.curate.not_play.job.FEWEST", 50)
    return replace(BUNDLED, hud_minutes=0.0)


def test_real_play_is_left_alone(demo: Corpus) -> None:
    report = filter_corpus(demo, BUNDLED)

    assert report.flagged == {}
    assert {game.why for game in report.games} == {"few"}
    assert set(report.unjudged) == {"menu", "cutscene", "mirrored"}


def test_what_is_put_into_real_play_is_found(demo: Corpus, tmp_path: Path, little: Rules) -> None:
    rng = np.random.default_rng(3)

    def change(steps: EpisodeSteps) -> Made:
        made = Made()
        for kind in ("paused", "loading", "black", "idle", "menu"):
            made.join(interrupted(steps, demo.info.action_space, [kind], rng, play=45))
        return made

    corpus, truth = rewritten(demo, tmp_path / "made", change, game="freedoom1")
    (episode,) = filter_corpus(corpus, little).episodes
    found = labels(episode["parts"], episode["n_steps"])

    assert episode["unjudged"] == ()
    for kind in ("paused", "loading", "black", "idle", "menu"):
        precision, recall = precision_and_recall(found, truth[episode["episode"]], kind)
        assert min(precision, recall) >= 0.95, (kind, precision, recall)


def test_it_is_left_out_of_training_and_put_back(demo: Corpus, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    corpus, _ = rewritten(
        demo,
        tmp_path / "made",
        lambda steps: interrupted(steps, demo.info.action_space, ["black"], rng),
    )
    before, version = corpus.episodes, corpus.version
    windows = len(WindowDataset(corpus, length=4, split=None, fields=("actions",)))

    report = filter_corpus(corpus, BUNDLED, apply=True)

    assert (report.version, report.changed) == (version + 1, 3)
    assert len(WindowDataset(corpus, length=4, split=None, fields=("actions",))) < windows
    assert Corpus.open(corpus.location, version).episodes.equals(before)
    assert corpus.verify().problems == ()
    assert filter_corpus(corpus, BUNDLED, apply=True).version == version + 1  # nothing new

    assert undo_filter(corpus) == 3
    assert corpus.episodes["keep"].to_list() == before["keep"].to_list()
