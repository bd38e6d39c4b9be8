"""Licences of what is exported: which need a person's word, and the text that goes beside it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from wham_data.schemas.errors import UsageError, printable
from wham_data.schemas.manifest import EpisodeRow

NOT_STATED: Final = "not stated"
MOST_SOURCES: Final = 1_000
_RESTRICTED: Final = re.compile(
    r"\bnc\b|non[- ]?commercial|\bno commercial|\bresearch\b|\bpersonal\b|\bacademic\b|"
    r"\bevaluation\b|\bproprietary\b|\bconfidential\b|all rights reserved",
    re.IGNORECASE,
)


def is_restricted(license: str | None) -> bool:
    """Whether a licence allows less than any use: it is not commercial, or for research alone."""
    return license is not None and _RESTRICTED.search(license) is not None


def licences_of(rows: Sequence[EpisodeRow]) -> dict[str, int]:
    """How many episodes are under each licence, sorted by its text."""
    return dict(sorted(Counter(row.license or NOT_STATED for row in rows).items()))


def check_licences(rows: Sequence[EpisodeRow], *, acknowledged: bool) -> None:
    """Refuse to pass on what not everyone may use, unless somebody says that they know.

    Raises:
        UsageError: naming the licences.
    """
    restricted = [name for name in licences_of(rows) if is_restricted(name)]
    if restricted and not acknowledged:
        some = printable("; ".join(restricted[:3]))
        raise UsageError(
            f"{len(restricted)} licences of the sources restrict their use ({some[:300]}): read "
            "them, and say --acknowledge-licence if what you will do is within them"
        )


def attribution(rows: Sequence[EpisodeRow]) -> str:
    """What is written beside an export: each licence, and the sources that it holds for."""
    lines = [
        "What this data was made from, and under which licence each source was said to be.",
        "Whoever passes it on passes on these terms too.",
    ]
    for name in licences_of(rows):
        mine = [row for row in rows if (row.license or NOT_STATED) == name]
        sources = sorted({row.source for row in mine})
        note = " (restricted: not for every use)" if is_restricted(name) else ""
        lines += ["", f"Licence: {printable(name)}{note}", f"Episodes: {len(mine)}", "Sources:"]
        lines += [f"  {printable(source)}" for source in sources[:MOST_SOURCES]]
        if len(sources) > MOST_SOURCES:
            lines.append(f"  and {len(sources) - MOST_SOURCES} more: see episodes.jsonl")
    return "\n".join(lines) + "\n"
