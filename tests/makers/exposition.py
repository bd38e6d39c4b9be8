"""A strict reader of Prometheus' text format 0.0.4, written from its description."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|$)')

Labels = tuple[tuple[str, str], ...]


@dataclass
class Family:
    """One metric: its help, its type, and its samples by labels."""

    help: str
    kind: str = ""
    samples: dict[Labels, float] = field(default_factory=dict)


def parsed(page: str) -> dict[str, Family]:
    """The metrics of a page by name.

    Raises:
        AssertionError: a line is wrong, comes twice, or lacks its HELP and TYPE before it.
    """
    assert page.endswith("\n")
    families: dict[str, Family] = {}
    last = ""
    for line in page[:-1].split("\n"):
        if line.startswith("# HELP "):
            last, help = line[7:].split(" ", 1)
            assert last not in families, line
            assert re.fullmatch(NAME, last), line
            assert re.fullmatch(r"(?:[^\\]|\\\\|\\n)+", help), line
            families[last] = Family(help)
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert (name, families[name].kind) == (last, ""), line
            assert kind in ("counter", "gauge"), line
            assert name.endswith("_total") == (kind == "counter"), line
            families[name].kind = kind
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            name, labels = found[1], labels_of(found[2] or "")
            assert name == last, line
            assert families[name].kind, line
            assert labels not in families[name].samples, line
            families[name].samples[labels] = float(found[3])
    return families


def labels_of(text: str) -> Labels:
    """The labels between the braces, without their escapes."""
    pairs, at = [], 0
    while at < len(text):
        found = LABEL.match(text, at)
        assert found, text
        plain = re.sub(r"\\(.)", lambda one: {"n": "\n"}.get(one[1], one[1]), found[2])
        pairs.append((found[1], plain))
        at = found.end()
    assert len({name for name, _ in pairs}) == len(pairs), text
    return tuple(pairs)
