"""What the documentation promises is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
