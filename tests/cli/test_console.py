"""A run that ends early says what is kept and which command goes on."""

from __future__ import annotations

import sys

import pytest

from wham_data.cli.console import resumable
from wham_data.schemas.errors import StalledError, UsageError


@pytest.mark.parametrize(
    ("error", "why"), [(KeyboardInterrupt(), "interrupted"), (StalledError("no node"), "stopped")]
)
def test_the_command_that_goes_on_is_printed(
    error: BaseException,
    why: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["wham-data", "ingest", "my recordings", "--out", "corpus"])

    with pytest.raises(type(error)), resumable("what was done is kept"):
        raise error

    assert capsys.readouterr().err.splitlines() == [
        f"wham-data: {why}; what was done is kept. To go on, run the same command again:",
        "  wham-data ingest 'my recordings' --out corpus",
    ]


def test_after_wrong_usage_it_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError), resumable("what was done is kept"):
        raise UsageError("wrong")

    assert capsys.readouterr().err == ""
    assert StalledError.exit_code == 1
