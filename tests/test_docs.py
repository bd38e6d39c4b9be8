"""What the documentation promises is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import wham_data
from wham_data.cli.main import app
from wham_data.pipelines.readers import READERS, Reader
from wham_data.pipelines.readers.kit.options import options_of
from wham_data.schemas.actions import space_names
from wham_data.schemas.errors import Reason

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])


def test_every_quarantine_reason_is_documented() -> None:
    page = (ROOT / "docs/quarantine.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE))

    assert documented == {str(reason) for reason in Reason}


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_every_format_has_a_page_that_tells_what_is_lost_and_names_the_options(
    reader: Reader,
) -> None:
    page = (ROOT / f"docs/formats/{reader.name}.md").read_text()

    assert page.startswith(f"# `{reader.name}`\n")
    assert reader.about[1:] in " ".join(page.split())
    assert "\n## What is lost\n" in page
    assert "\n## Licence\n" in page
    assert [name for name in options_of(reader) if f"| `{name}` |" not in page] == []


def test_every_action_space_is_documented() -> None:
    page = (ROOT / "docs/action-spaces.md").read_text()

    assert [name for name in space_names() if f"`{name}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    listed = set(re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    added = {page.name for page in ROOT.glob("docs/add-a*.md")}  # by tools/docs/site.py

    assert {page.name for page in ROOT.glob("docs/*.md")} <= listed | added


def test_the_reference_of_the_commands_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools/docs"))
    import commands

    made = (ROOT / "docs/commands.md").read_text()

    assert made == commands.page(), "run python tools/docs/commands.py > docs/commands.md"


def test_every_command_is_on_a_page_that_somebody_wrote() -> None:
    text = "".join(page.read_text() for page in PAGES if page.name != "commands.md")
    names = [name for name, _ in _commands("wham-data", typer.main.get_command(app))]

    assert [name for name in names if name not in text] == []


def test_every_public_name_is_in_the_reference() -> None:
    listed = re.findall(r"^::: wham_data\.(\w+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)

    assert sorted(listed) == sorted(set(wham_data.__all__) - {"__version__"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_for_users_import_from_the_top_level_alone(page: Path) -> None:
    if page.name.startswith("add-a") or page.name in {"readers.md", "CHANGELOG.md"}:
        return  # for those who change the code

    assert re.findall(r"^\s*(?:from|import) wham_data\.\S+", page.read_text(), re.MULTILINE) == []


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
    for child, each in (below or {}).items():
        yield from _commands(f"{name} {child}", each)
