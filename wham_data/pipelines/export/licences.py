"""Licences of exported episodes: which restrict the use, and the text file about them."""

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
    """Whether a licence restricts the use, such as to non-commercial use or to research."""
    return license is not None and _RESTRICTED.search(license) is not None


def licences_of(rows: Sequence[EpisodeRow]) -> dict[str, int]:
    """Count of episodes for each licence, sorted by the licence's text."""
    return dict(sorted(Counter(row.license or NOT_STATED for row in rows).items()))


def check_licences(rows: Sequence[EpisodeRow], *, acknowledged: bool) -> None:
    """Refuse episodes with restrictive licences, unless the user has acknowledged them.

    Raises:
        UsageError: there are such licences, and they are not acknowledged; the message names them.
    """
    restricted = [name for name in licences_of(rows) if is_restricted(name)]
    if restricted and not acknowledged:
        some = printable("; ".join(restricted[:3]))
        raise UsageError(
            f"{len(restricted)} licences of the sources restrict their use ({some[:300]}): read "
            "them, and add --acknowledge-licence if they allow your use"
        )


def attribution(rows: Sequence[EpisodeRow]) -> str:
    """The text of the file about licences: each licence, and its sources."""
    lines = [
        "The sources of this data, and the licence stated for each of them.",
        "If you pass this data on, these licences still apply.",
    ]
    for name in licences_of(rows):
        licensed = [row for row in rows if (row.license or NOT_STATED) == name]
        sources = sorted({row.source for row in licensed})
        note = " (restricted use)" if is_restricted(name) else ""
        lines += ["", f"Licence: {printable(name)}{note}", f"Episodes: {len(licensed)}", "Sources:"]
        lines += [f"  {printable(source)}" for source in sources[:MOST_SOURCES]]
        if len(sources) > MOST_SOURCES:
            lines.append(f"  and {len(sources) - MOST_SOURCES} more: see episodes.jsonl")
    return "\n".join(lines) + "\n"
