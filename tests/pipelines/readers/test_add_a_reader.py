"""A reader, and a writer, added by following the pages to the letter work.

The reader touches three files.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/add-a-reader.md"
WRITER_PAGE = ROOT / "docs/add-a-writer.md"
FILES = (
    "wham_data/pipelines/readers/toy.py",
    "docs/formats/toy.md",
    "tests/pipelines/readers/test_reader_toy.py",
)


def files_of(page: str) -> dict[str, str]:
    """The files that a page shows: a line `PATH`: and a fenced block after it."""
    shown = re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return dict(shown)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the package, its pages and its tests, with what the page adds."""
    copy = tmp_path / "project"
    unwanted = shutil.ignore_patterns("__pycache__", "data", "node_modules")
    shutil.copytree(ROOT / "wham_data", copy / "wham_data", ignore=unwanted)
    shutil.copytree(ROOT / "docs", copy / "docs")
    (copy / "tests/pipelines/readers").mkdir(parents=True)
    shutil.copytree(ROOT / "tests/makers", copy / "tests/makers", ignore=unwanted)
    for name in ("tests/conftest.py", "tests/test_docs.py", "pyproject.toml"):
        shutil.copy(ROOT / name, copy / name)
    shown = files_of(PAGE.read_text()) | files_of(WRITER_PAGE.read_text())
    for name, text in shown.items():
        assert not (copy / name).exists(), f"{name} is there already"
        (copy / name).write_text(text)
    return copy


def run(project: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{project}:{project / 'tests'}"}
    done = subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wham_data(project: Path, *arguments: str) -> str:
    code = "import sys; from wham_data.cli.main import main; sys.exit(main())"
    return run(project, "-c", code, *arguments)


def test_the_page_shows_three_files() -> None:
    assert tuple(files_of(PAGE.read_text())) == FILES


def test_a_reader_and_a_writer_that_follow_the_pages_work(project: Path) -> None:
    run(
        project, "-m", "pytest", "-q", "-p", "no:cacheprovider", FILES[2], "tests/test_docs.py",
        "-k", "toy",
    )  # fmt: skip
    recordings = project / "recordings"
    recordings.mkdir()
    np.savez(
        recordings / "episode.npz",
        rgb=np.zeros((3, 48, 64, 3), np.uint8),
        moves=np.array([4, 0, 1]),
        score=np.ones(3, np.float32),
    )
    options = ("--tokenizer", "none", "--frames", "png", "--workers", "0")
    said = wham_data(
        project, "ingest", "recordings", "--out", "corpus", "--format", "toy", *options
    )
    wham_data(
        project, "export", "corpus", "--to", "toy", "--out", "tables",
        "--option", "separator=semicolon",
    )  # fmt: skip
    (table,) = (project / "tables").rglob("*.csv")

    assert "1 episode, 3 steps" in said
    assert table.read_text().splitlines()[1:] == [
        "0.0;0.0;0.0;0.0;1.0",
        "1.0;0.0;0.0;0.0;0.0",
        "0.0;1.0;0.0;0.0;0.0",
    ]
