"""What the documentation promises is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wham_data.pipelines.readers import READERS
from wham_data.schemas.actions import space_names
from wham_data.schemas.errors import Reason

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])


def test_every_quarantine_reason_is_documented() -> None:
    page = (ROOT / "docs/quarantine.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE))

    assert documented == {str(reason) for reason in Reason}


def test_every_reader_is_documented() -> None:
    page = (ROOT / "docs/readers.md").read_text()

    assert [reader.name for reader in READERS if reader.name not in page] == []


def test_every_action_space_is_documented() -> None:
    page = (ROOT / "docs/action-spaces.md").read_text()

    assert [name for name in space_names() if f"`{name}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []
