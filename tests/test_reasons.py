"""Every reason for which an input is refused is given by some code and expected by some test."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from wham_data.schemas.errors import Reason

ROOT = Path(__file__).parents[1]


def text_of(files: Iterable[Path]) -> str:
    return "\n".join(path.read_text() for path in files if path != Path(__file__))


def test_every_reason_is_given_by_some_code() -> None:
    used = set(re.findall(r"\bReason\.([A-Z_]+)", text_of((ROOT / "wham_data").rglob("*.py"))))

    assert [each.name for each in Reason if each.name not in used] == []


def test_every_reason_is_expected_by_some_test() -> None:
    text = text_of((ROOT / "tests").rglob("*.py"))

    names = (rf"\bReason\.{each.name}\b|[\"']{each}[\"']" for each in Reason)
    assert [name for name in names if not re.search(name, text)] == []


def test_every_test_that_the_page_of_faults_names_is_there() -> None:
    page = (ROOT / "docs/faults.md").read_text()

    named = set(re.findall(r"`((?:faults/)?\w+\.py)`", page))
    assert [name for name in sorted(named) if not any((ROOT / "tests").rglob(name))] == []
