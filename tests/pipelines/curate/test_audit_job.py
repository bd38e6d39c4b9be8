"""`wham-data audit` on a bundled recording: judge it, correct it, and take the correction back."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from makers.commands import ROOT
from PIL import Image
from typer.testing import CliRunner

from wham_data.cli.main import app

DEMO = ROOT / "wham_data" / "pipelines" / "demo_recordings"


def copy(folder: Path, name: str, *, lag_ms: int = 0, invert: str | None = None) -> None:
    """The bundled Doom recording with its log changed."""
    (folder / f"{name}.mp4").write_bytes((DEMO / "doom.mp4").read_bytes())
    (folder / f"{name}.toml").write_bytes((DEMO / "doom.toml").read_bytes())
    with (DEMO / "doom.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    for row in rows:
        row[0] = str(int(row[0]) + lag_ms * 1_000_000)
        if invert is not None:
            at = head.index(invert)
            row[at] = str(-float(row[at]))
    with (folder / f"{name}.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


def audited(*arguments: str) -> dict[str, dict[str, object]]:
    run = CliRunner().invoke(app, ["audit", *arguments, "--json", "-q", "--workers", "0"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)["recordings"]
    return {Path(str(each["recording"])).stem: each for each in found}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy(tmp_path, "late", lag_ms=150)
    copy(tmp_path, "turned", invert="right_x")
    return tmp_path


def test_audit_apply_audit_undo(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    found = audited(str(folder), "--apply", "--plots", str(folder / "plots"))
    assert {name: each["verdict"] for name, each in found.items()} == {
        "late": "late",
        "turned": "inverted",
    }
    assert found["late"]["lag_ms"] == pytest.approx(150, abs=20)
    assert found["late"]["controls"]["right_x"] == {"sign": -1, "dead": False}  # type: ignore[index]
    assert found["late"]["controls"]["guide"]["dead"]  # type: ignore[index]
    pictures = sorted((folder / "plots").iterdir())
    assert len(pictures) == 3
    assert all(Image.open(picture).width == 900 for picture in pictures)

    again = audited(str(folder))
    assert {each["verdict"] for each in again.values()} == {"ok"}

    run = CliRunner().invoke(app, ["audit", str(folder), "--undo"])
    assert run.exit_code == 0
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["audit", str(tmp_path)])

    assert run.exit_code != 0
