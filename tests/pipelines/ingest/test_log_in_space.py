"""Keys and mouse as a pad: mapping files, and sticks made of motion."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from makers.minecraft_clips import clip
from makers.recordings import ingest_here
from typer.testing import CliRunner

from wham_data.cli.main import app
from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.log_in_space import ProjectedLog, moved, project
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.schemas.actions import ActionSpace, Dimension, load_space
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.conversion import Conversion, Rule, load_conversion
from wham_data.schemas.declarations import bundled_names, bundled_text
from wham_data.schemas.errors import MismatchError, RefusedInput, UsageError
from wham_data.schemas.recording import ActionTrack

MOUSE = ActionSpace(
    "mouse",
    (
        Dimension("key", "button", 0.0, 1.0),
        Dimension("dx", "delta", -1e4, 1e4, "count", "right"),
        Dimension("dy", "delta", -1e4, 1e4, "count", "down"),
    ),
)
WHAM16 = load_space("wham16")
STICK = Conversion(
    MOUSE,
    WHAM16,
    (
        Rule("button_0", ("key",), (1.0,)),
        Rule("right_x", ("dx",), (1.0,), full_at=1000.0),
        Rule("right_y", ("dy",), (-1.0,), full_at=1000.0),
    ),
)


def template(name: str, folder: Path) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(bundled_text("mappings", name))
    return path


def track(times_ms: list[float], rows: list[tuple[float, ...]], end_ms: float) -> ActionTrack:
    times_ns = np.array([round(time * 1e6) for time in times_ms], np.int64)
    return ActionTrack(MOUSE, times_ns, np.array(rows, np.float64), round(end_ms * 1e6))


def edges(steps: int) -> np.ndarray:
    return np.arange(steps + 1, dtype=np.int64) * 100_000_000


# --- rules -------------------------------------------------------------------------------------


def test_a_speed_tilts_the_stick_and_is_cut_where_it_ends() -> None:
    values = np.array([[1.0, 50, 25], [0, -500, 0], [0, np.nan, 0]])
    made = STICK.apply(values, np.array([0.1, 0.1, 0.1]))

    assert made[:, [0, 14, 15]].tolist()[:2] == [[1, 0.5, -0.25], [0, -1, 0]]
    assert np.isnan(made[2]).all()


def test_a_speed_needs_to_know_how_long_a_row_lasts() -> None:
    with pytest.raises(UsageError, match="right_x is computed from a speed"):
        STICK.apply(np.zeros((1, 3)))
    assert STICK.without_speeds.apply(np.array([[1.0, 50, 25]])).tolist()[0][:1] == [1]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule("right_x", ("key",), (1.0,), full_at=1.0), "of the speed of deltas"),
        (Rule("button_0", ("dx",), (1.0,), full_at=1.0), "of the speed of deltas"),
        (Rule("right_x", ("dx", "key"), (1.0, 1.0), "sum", full_at=1.0), "of the speed of deltas"),
        (Rule("right_x", ("dx",), (1.0,), full_at=0.0), "above 0"),
        (Rule("right_x", ("dx",), (1.0,), full_at=float("inf")), "above 0"),
        (Rule("right_x", ("dx", "dy"), (1.0, 1.0), full_at=1.0), "add up"),
        (Rule("right_x", ("dx",), (1.0,)), "full_at"),
    ],
)
def test_a_speed_that_makes_no_sense_is_refused(rule: Rule, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Conversion(MOUSE, WHAM16, (rule,))


def test_what_is_lost_names_the_speed() -> None:
    assert "dx keeps only the mean speed over a step, up to 1000 count/s, as right_x." in STICK.lost


# --- steps -------------------------------------------------------------------------------------


def test_rows_that_are_no_multiple_of_a_step_give_a_steady_stick() -> None:
    log = track([62.5 * k for k in range(16)], [(0, 62.5, 0)] * 16, 1000)
    assert moved(log, edges(10))[:, 1].tolist() == pytest.approx([100] * 10)


def test_a_burst_counts_where_it_was_and_not_until_the_next_one() -> None:
    log = track([0, 100, 900], [(0, 0, 0), (0, 80, 0), (0, 0, 0)], 1000)
    assert moved(log, edges(10))[:, 1].tolist() == pytest.approx([0, 80, *[0] * 8])


def test_a_tap_survives_beside_a_stick_made_of_motion() -> None:
    rows = [(0.0, 50.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 50.0)]
    log = ProjectedLog(
        ActionTrack(
            WHAM16,
            np.array([0, 50, 60]) * 1_000_000,
            STICK.without_speeds.apply(np.array(rows)),
            200_000_000,
        ),
        track([0, 50, 60], rows, 200),
        STICK,
    )
    steps = log.over_steps(edges(3), "mean")

    assert steps.values[:2, [0, 14, 15]].tolist() == pytest.approx(
        np.array([[1, 0.5, -0.2], [0, 0, -0.3]])
    )
    assert steps.known.tolist() == [True, True, False]
    assert np.isnan(steps.values[2]).all()


def test_all_that_moved_is_in_some_step() -> None:
    rng = np.random.default_rng(0)
    times = np.sort(rng.choice(1900, 200, replace=False)).astype(float)
    far = rng.normal(size=200) * 100
    log = track(times.tolist(), [(0, value, 0) for value in far], 2000)

    assert moved(log, edges(20))[:, 1].sum() == pytest.approx(far.sum())


# --- ingest ------------------------------------------------------------------------------------


def minecraft(root: Path) -> Path:
    """Two seconds of walking while turning by 9 degrees a frame, 16 frames a second."""
    clip(root / "video/seed_1_part_1.mp4", 32, 16)
    entry = {"ws": 1, "ad": 0, "scs": 1, "yaw_delta": 0.6, "pitch_delta": -0.3}
    (root / "metadata").mkdir()
    told = {"actions": {str(number): entry for number in range(32)}}
    (root / "metadata/seed_1_part_1.json").write_text(json.dumps(told))
    return root


def test_a_dialect_of_minecraft_becomes_a_pad_by_way_of_vpt(tmp_path: Path) -> None:
    mapping = load_conversion(template("vpt-to-wham16", tmp_path))
    source, out = minecraft(tmp_path / "in"), tmp_path / "corpus"
    settings = IngestSettings(tokenizer=None, size=(96, 64), mapping=mapping)

    ingest_here(source, out, settings)

    corpus = Corpus.open(out)
    first = dict(zip(WHAM16.names, corpus.scan().collect()["actions"][0], strict=True))
    assert {name: round(value, 5) for name, value in first.items() if value} == {
        "button_0": 1.0,
        "left_y": 1.0,
        "right_x": 0.8,
        "right_y": 0.4,
    }
    said = json.loads(str(corpus.info.settings["mapping"]))
    assert (said["source"], said["target"]) == ("vpt", "wham16")
    with pytest.raises(MismatchError):
        ingest_here(source, out, IngestSettings(tokenizer=None, size=(96, 64), actions="wham16"))


def test_without_a_mapping_the_actions_stay_as_they_are_and_no_pad_is_made_up(
    tmp_path: Path,
) -> None:
    source = minecraft(tmp_path / "in")
    plain = IngestSettings(tokenizer=None, size=(96, 64))
    ingest_here(source, tmp_path / "native", plain)
    assert Corpus.open(tmp_path / "native").info.action_space.name == "microworld9"

    log = ActionTrack(load_space("vpt"), np.zeros(1, np.int64), np.zeros((1, 25)), SECOND_NS)
    asked = IngestSettings(tokenizer=None, actions="wham16")
    with pytest.raises(RefusedInput, match=r"take it with --mapping vpt-to-wham16\.toml"):
        project(log, WHAM16, asked)


def test_a_mapping_and_another_space_do_not_go_together(tmp_path: Path) -> None:
    mapping = load_conversion(template("vpt-to-wham16", tmp_path))
    with pytest.raises(UsageError, match="the mapping converts to wham16, not to xinput"):
        IngestSettings(actions="xinput", mapping=mapping)


# --- templates and commands ---------------------------------------------------------------------


@pytest.mark.parametrize("name", bundled_names("mappings"))
def test_every_template_loads_says_that_it_is_a_choice_and_what_is_lost(
    name: str, tmp_path: Path
) -> None:
    conversion = load_conversion(template(name, tmp_path))

    assert f"{conversion.source.name}-to-{conversion.target.name}" == name
    assert any("choice of ours" in note for note in conversion.notes)
    assert conversion.lost
    rest = conversion.apply(conversion.source.null()[None], 0.1)
    assert rest[0].tolist() == conversion.target.null().tolist()


def test_the_commands_print_a_template_explain_it_and_use_it(tmp_path: Path) -> None:
    runner = CliRunner()
    assert "vpt-to-wham16\n" in runner.invoke(app, ["schema", "mapping"]).output
    pad = tmp_path / "pad.toml"
    pad.write_text(runner.invoke(app, ["schema", "mapping", "vpt-to-wham16"]).output)
    source = minecraft(tmp_path / "in")

    told = runner.invoke(app, ["schema", "convert", "vpt", "wham16", "--mapping", str(pad)]).output
    flags = ["--tokenizer", "none", "--workers", "0", "--size", "96x64", "--quiet"]
    where = ["--out", str(tmp_path / "corpus"), "--mapping", str(pad)]
    done = runner.invoke(app, ["ingest", str(source), *where, *flags])

    assert "right_x speed of camera_yaw, 180 a second is all the way" in " ".join(told.split())
    assert "lost: forward and back cannot be told apart" in told
    assert done.exit_code == 0, done.output
    assert Corpus.open(tmp_path / "corpus").info.action_space.name == "wham16"


def test_a_file_of_rows_is_converted_at_its_rate(tmp_path: Path) -> None:
    pad = template("vpt-to-wham16", tmp_path)
    names = load_space("vpt").names
    row = ["9" if name == "camera_yaw" else "0" for name in names]
    (tmp_path / "in.csv").write_text(f"{','.join(names)}\n{','.join(row)}\n")
    command = ["schema", "convert", "vpt", "wham16", "--mapping", str(pad)]
    command += ["--in", str(tmp_path / "in.csv"), "--out", str(tmp_path / "out.csv")]

    runner = CliRunner()
    assert isinstance(runner.invoke(app, command).exception, UsageError | SystemExit)
    assert runner.invoke(app, [*command, "--rate", "20"]).exit_code == 0

    header, values = (tmp_path / "out.csv").read_text().replace('"', "").splitlines()
    assert dict(zip(header.split(","), values.split(","), strict=True))["right_x"] == "1"
