"""`wham-data schema list|show|convert`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from wham_data.cli.schema import app
from wham_data.schemas.actions import ActionSpace, load_space, space_names
from wham_data.schemas.errors import UsageError

XINPUT = load_space("xinput")


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)
    if isinstance(result.exception, UsageError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def pad_log(**columns: list[Any]) -> pa.Table:
    """A log in xinput, at rest but for the given columns."""
    n = len(next(iter(columns.values())))
    return pa.table({name: [0] * n for name in XINPUT.names} | columns)


def test_list_names_every_space_and_what_it_converts_to() -> None:
    lines = run("list").splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(space_names())
    assert lines[-1].endswith("wham16, xinput")


def test_list_json_is_one_object() -> None:
    spaces = json.loads(run("list", "--json"))["spaces"]
    sizes = {space["name"]: space["size"] for space in spaces}
    assert sizes["wham16"] == sizes["xinput16"] == 16
    assert sizes["xinput"] == 21


def test_show_prints_one_aligned_row_per_dimension() -> None:
    lines = run("show", "wham16").splitlines()
    header = next(line for line in lines if line.startswith("index"))
    rows = lines[lines.index(header) + 1 :]
    assert len(rows) == 16
    assert rows[13].split() == ["13", "left_y", "axis", "-1", "to", "1", "fraction", "up"]
    assert {row.index("axis") for row in rows[12:]} == {header.index("kind")}


def test_show_json_is_the_space() -> None:
    assert ActionSpace.from_dict(json.loads(run("show", "vizdoom", "--json"))) == load_space(
        "vizdoom"
    )


def test_show_takes_a_file_and_prints_nothing_that_moves_the_cursor(tmp_path: Path) -> None:
    path = tmp_path / "pad.toml"
    path.write_text(
        'name = "pad"\ntitle = "a\\u001b[2Jb"\n[[dimensions]]\nnames = ["fire"]\nkind = "button"\n'
    )
    shown = run("show", path)
    assert "\x1b" not in shown
    assert "fire" in shown


def test_convert_explains_the_rules_and_the_loss() -> None:
    text = run("convert", "xinput", "xinput16")
    assert "left_stick_y   -left_y" in text
    assert "lost: start, back, left_thumb, right_thumb and guide are dropped." in text
    assert "note: skill_1 and skill_2" in text
    assert "button_6   left_trigger >= 0.5" in run("convert", "xinput", "wham16")


def test_convert_without_loss_says_so() -> None:
    text = run("convert", "wham16", "xinput")
    assert "lost: nothing" in text
    assert "guide           - (stays at rest)" in text


def test_convert_json_has_rules_loss_and_what_stays_empty() -> None:
    result = json.loads(run("convert", "wham16", "xinput", "--json"))
    assert result["lost"] == []
    assert "guide" in result["unfilled"]
    assert result["rules"][0] == {
        "target": "up",
        "sources": ["button_8"],
        "scales": [1.0],
        "combine": "max",
        "offset": 0.0,
        "pressed_at": None,
        "full_at": None,
    }


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_convert_writes_the_file_in_the_target_space(tmp_path: Path, ending: str) -> None:
    table = pad_log(
        time_ms=[0, 100, 200], left_y=[1.0, -0.5, 1.02], a=[0, 1, 0], left_trigger=[0, 0.3, 0.9]
    )
    log = tmp_path / f"pad.{ending}"
    if ending == "csv":
        pa.csv.write_csv(table, log)
    elif ending == "parquet":
        pa.parquet.write_table(table, log)
    else:
        log.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    done = json.loads(
        run("convert", "xinput", "wham16", "--in", log, "--out", tmp_path / "wham.csv", "--json")
    )["file"]
    assert (done["rows"], done["clamped"], done["missing"]) == (3, 1, 0)
    converted = pa.csv.read_csv(tmp_path / "wham.csv")
    assert converted.column_names == ["time_ms", *load_space("wham16").names]
    assert converted["time_ms"].to_pylist() == [0, 100, 200]
    assert converted["left_y"].to_pylist() == [1.0, -0.5, 1.0]
    assert converted["button_0"].to_pylist() == [0, 1, 0]
    assert converted["button_6"].to_pylist() == [0, 0, 1]
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_an_unknown_action_stays_unknown_in_the_converted_file(tmp_path: Path) -> None:
    pa.parquet.write_table(pad_log(left_x=[0.5, None, float("inf")]), tmp_path / "pad.parquet")
    text = run(
        "convert",
        "xinput",
        "wham16",
        "--in",
        tmp_path / "pad.parquet",
        "--out",
        tmp_path / "w.parquet",
    )
    assert "3 rows" in text
    assert "2 rows without a known action" in text
    converted = pa.parquet.read_table(tmp_path / "w.parquet")
    assert converted["left_x"].to_pylist() == [0.5, None, None]
    assert converted["button_0"].to_pylist() == [0.0, None, None]


def test_text_that_could_be_a_formula_is_left_out_of_the_converted_file(tmp_path: Path) -> None:
    pa.csv.write_csv(pad_log(a=[1], comment=["=1+1"]), tmp_path / "pad.csv")
    run("convert", "xinput", "wham16", "--in", tmp_path / "pad.csv", "--out", tmp_path / "w.csv")
    assert "=1+1" not in (tmp_path / "w.csv").read_text()


def test_convert_takes_a_mapping_file(tmp_path: Path) -> None:
    mapping = tmp_path / "keys.toml"
    mapping.write_text(
        'source = "keyboard_mouse"\ntarget = "wham16"\n[rules]\nbutton_0 = "key_space"\n'
    )
    text = run("convert", "keyboard_mouse", "wham16", "--mapping", mapping)
    assert "button_0   key_space" in text
    with pytest.raises(UsageError, match="converts keyboard_mouse to wham16, not xinput to wham16"):
        run("convert", "xinput", "wham16", "--mapping", mapping)


def test_convert_refuses_what_no_one_declared() -> None:
    with pytest.raises(UsageError, match="no conversion from vizdoom to wham16 is declared"):
        run("convert", "vizdoom", "wham16")


def refusal(tmp_path: Path, log: Path, out: str = "out.csv") -> str:
    with pytest.raises(UsageError) as refused:
        run("convert", "xinput", "wham16", "--in", log, "--out", tmp_path / out)
    assert not (tmp_path / out).exists()
    return str(refused.value)


def test_a_file_that_cannot_be_converted_is_refused_with_the_reason(tmp_path: Path) -> None:
    log = tmp_path / "pad.csv"
    assert "pad.csv" in refusal(tmp_path, log)
    log.write_bytes(b"")
    assert "pad.csv" in refusal(tmp_path, log)
    pa.csv.write_csv(pad_log(a=[1]).drop_columns(["guide"]), log)
    assert "no column guide" in refusal(tmp_path, log)
    pa.csv.write_csv(pad_log(a=["yes"]), log)
    assert "column a holds string, expected numbers" in refusal(tmp_path, log)
    pa.csv.write_csv(pad_log(left_x=[0, 20000]), log)
    assert "left_x is 20000 in row 1" in refusal(tmp_path, log)
    pa.csv.write_csv(pad_log(button_0=[1]), log)
    assert "already has columns button_0" in refusal(tmp_path, log)
    pa.csv.write_csv(pad_log(a=[1]), log)
    assert "ends in .csv, .parquet" in refusal(tmp_path, log, out="out.xlsx")
    assert "ends in .csv, .jsonl, .parquet" in refusal(tmp_path, tmp_path / "pad.mp4")


def test_in_and_out_go_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="go together"):
        run("convert", "xinput", "wham16", "--out", tmp_path / "w.csv")


def test_every_command_shows_an_example_in_its_help() -> None:
    for command in ("list", "show", "convert"):
        assert f"wham-data schema {command}" in run(command, "--help")
