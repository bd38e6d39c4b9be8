"""What the pages tell people to type works as it stands.

A block marked `console` or `python` is run, in a folder with small recordings and corpora, unless the line before it
is `<!-- not run: why -->`. Blocks of one page share their folder and their names.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from makers.recordings import Cut, cut
from typer.testing import CliRunner

from wham_data.cli.console import write_log_as
from wham_data.cli.main import app

ROOT = Path(__file__).parent.parent
TESTED_ELSEWHERE = {
    "feeding.md",
    "readers.md",
    "add-a-reader.md",
    "add-a-writer.md",
    "add-a-world-model.md",
}
PAGES = [
    page
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
    if page.name not in TESTED_ELSEWHERE
]
FINE = (0, 3)
"""Exit codes of a command that did its job: 3 as one recording is bad on purpose."""

HERE = {f"WHAM_DATA_{name}_WORKERS": "0" for name in ("INGEST", "TOKENIZE", "QUARANTINE_RETRY")}
"""In this process, without Ray: nothing else differs from what a person types."""

LOG = "time_s,coin,start,gas,wheel,brake,ball\n0.0,0,0,1,45,0,3\n0.1,0,1,1,-90,0.5,0\n"


@dataclass(frozen=True)
class Block:
    """A block of a page: its language, its text, and why it is not run."""

    line: int
    language: str
    text: str
    not_run: str | None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    pattern = r"(?:^<!-- not run: ([^\n]+) -->\n)?^```(\w+)\n(.*?)^```$"
    for found in re.finditer(pattern, text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, found.start(2)) + 1
        yield Block(line, found[2], found[3], found[1])


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings, one of them bad, the corpus that `ingest` makes of them, and one with pictures."""
    folder = tmp_path_factory.mktemp("docs")
    cut(folder / "recordings", "play-1", Cut("coinrun", 0, 1.5), player="ann")
    cut(folder / "recordings", "play-2", Cut("doom", 0, 1.5), player="bob")
    broken = cut(folder / "recordings", "session-7", Cut("doom", 2, 1.5))
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    (folder / "log.csv").write_text(LOG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in HERE.items():
            patch.setenv(name, value)
        wham_data("ingest recordings --out corpus")
        wham_data("ingest recordings --out pictures --tokenizer none --frames png")
    return folder


def wham_data(arguments: str, log: str = "") -> str:
    """Run a command in this process; what it printed. `log` is the file for its stderr."""
    result = CliRunner().invoke(app, shlex.split(arguments, comments=True))
    code = getattr(result.exception, "exit_code", result.exit_code)
    assert code in FINE, f"wham-data {arguments}: exit {code}: {result.exception} {result.stderr}"
    if log:
        Path(log).write_text(result.stderr)
        write_log_as("text")
    return result.stdout


def typed(text: str) -> Iterator[str]:
    """The commands of a block, without the prompts and what is printed between them."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            yield line.removeprefix("$ ")


def run_console(text: str) -> None:
    for line in typed(text):
        command, _, log = line.partition(" 2> ")
        command, _, target = command.partition(" > ")
        program, _, arguments = command.partition(" ")
        assert program == "wham-data", f"{line}: only wham-data is run; mark the block as not run"
        printed = wham_data(arguments, log)
        if target:
            Path(target.split("#")[0].strip()).write_text(printed)


def write_file(text: str) -> None:
    """A TOML block that begins with its name is that file."""
    if named := re.match(r"# ([\w-]+\.toml)", text):
        Path(named[1]).write_text(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_a_page_works(
    page: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_run = [each for each in blocks(page) if each.not_run is None]
    if not any(each.language in ("console", "python") for each in to_run):
        return
    here = shutil.copytree(small, tmp_path / "here")
    monkeypatch.chdir(here)
    for name, value in HERE.items():
        monkeypatch.setenv(name, value)
    names: dict[str, object] = {"__name__": page.stem}
    for block in to_run:
        if block.language == "toml":
            write_file(block.text)
        elif block.language == "console":
            run_console(block.text)
        elif block.language == "python":
            exec(compile(block.text, f"{page}:{block.line}", "exec"), names)


IN_JAVASCRIPT = [page for page in PAGES if "\n```javascript\n" in page.read_text()]


@pytest.mark.parametrize("page", IN_JAVASCRIPT, ids=lambda page: page.name)
def test_every_block_of_javascript_works(
    page: Path, small: Path, node_modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = shutil.copytree(small, tmp_path / "here")
    monkeypatch.chdir(here)
    (here / "node_modules").symlink_to(node_modules)
    for block in blocks(page):
        if block.language == "console" and block.not_run is None:
            run_console(block.text)
        elif block.language == "javascript":
            Path("block.mjs").write_text(block.text)
            subprocess.run(["node", "block.mjs"], check=True)


def test_blocks_that_are_not_run_say_why() -> None:
    reasons = [each.not_run for page in PAGES for each in blocks(page) if each.not_run]

    assert all(len(reason) > 8 for reason in reasons)
    assert "<!-- not run -->" not in "".join(page.read_text() for page in PAGES)


def test_no_page_or_message_installs_the_package_from_a_registry_that_does_not_have_it() -> None:
    files = [*PAGES, *ROOT.glob("docs/*.md"), *ROOT.glob("wham_data/**/*.py")]

    assert [path.name for path in files if "wham-data[" in path.read_text()] == []
