"""`README.md`: the card as Markdown, with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from wham_data.corpus.stats import Amount
from wham_data.pipelines.curate.card.croissant import summary_of
from wham_data.pipelines.curate.card.escape import plain, quoted
from wham_data.pipelines.curate.card.facts import Facts, hours_text
from wham_data.pipelines.curate.card.words import QUESTIONS, Words
from wham_data.schemas.errors import counted

FOLDER: Final = "card"
"""Folder of the pictures, beside README.md."""
MOST_ROWS: Final = 30
MOST_FILES: Final = 1_000
"""Data files of a split that the front matter names."""
BOUNDS: Final = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
"""Powers of ten, from 1,000 on, between the sizes that the hub knows."""
LICENCES: Final = re.compile(
    r"apache-2\.0|mit|cc0-1\.0|cc-by(-sa|-nc|-nd|-nc-sa|-nc-nd)?-4\.0|cc-by(-sa|-nc)?-3\.0|odc-by|odbl|pddl"
)
"""Licences that the hub knows by these names; another one is `other`, with its name."""


def readme(facts: Facts, words: Words, pictures: Iterable[str]) -> str:
    """The text of README.md. Equal inputs give equal text.

    Args:
        facts: what was measured.
        words: what a person said.
        pictures: names of the files in FOLDER.
    """
    title = plain(words.texts.get("title", facts.name))
    there = frozenset(pictures)
    sections = [
        _about(facts, words),
        *_by_a_person(words),
        _amounts(facts, there),
        _players(facts),
        _controls(facts, there),
        _licences(facts),
        _left_out(facts),
        _audit(facts),
        _reading(facts),
        *_missing(words),
    ]
    return "\n\n".join(["\n".join(_front_matter(facts, words)), f"# {title}", *sections]) + "\n"


def _front_matter(facts: Facts, words: Words) -> Iterator[str]:
    yield "---"
    yield f"pretty_name: {quoted(words.texts.get('title', facts.name))}"
    yield from _front_licence(facts, words)
    if words.languages:
        yield f"language: {quoted(words.languages)}"
    yield "task_categories: [reinforcement-learning]"
    yield f"tags: {quoted(['gameplay', 'world-model', 'croissant', *words.tags])}"
    yield f"size_categories: {quoted([size_category(facts.summary.steps)])}"
    yield "configs:"
    yield from _config("steps", facts.shards, default=True)
    yield from _config("episodes", {"all_episodes": facts.manifest}, default=False)
    yield "---"


def size_category(rows: int) -> str:
    """The hub's name for so many rows."""
    place = max(0, len(str(rows)) - 3)
    if place == 0:
        return f"n<{BOUNDS[0]}"
    return f"{BOUNDS[place - 1]}<n<{BOUNDS[place]}" if place < len(BOUNDS) else f"n>{BOUNDS[-1]}"


def _front_licence(facts: Facts, words: Words) -> Iterator[str]:
    stated = [each.name for each in facts.summary.by["license"]]
    one = words.texts.get("licence") or (stated[0] if len(stated) == 1 else None)
    if one is None:
        yield "license: other"
        yield 'license_name: "several, see below"'
    elif one == "":
        yield "license: unknown"
    elif LICENCES.fullmatch(one.lower()):
        yield f"license: {quoted(one.lower())}"
    else:
        yield "license: other"
        yield f"license_name: {quoted(one)}"


def _config(name: str, files: Any, *, default: bool) -> Iterator[str]:
    yield f"- config_name: {name}"
    if default:
        yield "  default: true"
    yield "  data_files:"
    many = sum(map(len, files.values())) > MOST_FILES
    for split, each in files.items() if not many else [("mixed", [])]:
        yield f"  - split: {split}"
        folder = "shards" if name == "steps" else "episodes"
        yield f"    path: {quoted([file.name for file in each] if not many else f'{folder}/*.parquet')}"


def _about(facts: Facts, words: Words) -> str:
    lines = [words.texts["summary"]] if "summary" in words.texts else []
    lines.append(f"{summary_of(facts)} This is version {facts.version} of it.")
    if words.missing:
        lines.append(
            f"> **Missing**: {len(words.missing)} answers that only a person can give; see the end."
        )
    return "\n\n".join(lines)


def _by_a_person(words: Words) -> Iterator[str]:
    for each in QUESTIONS:
        if each.title and each.key in words.texts:
            yield f"## {each.title}\n\n{words.texts[each.key]}"


def _missing(words: Words) -> Iterator[str]:
    if words.missing:
        lines = (f"- `{each.key}`: {each.ask}" for each in QUESTIONS if each.key in words.missing)
        about = "Nobody has stated this yet. The answers go into `card.toml`; then run `wham-data card` again."
        yield "\n".join(["## Missing", "", about, "", *lines])


def _amounts(facts: Facts, pictures: frozenset[str]) -> str:
    rows = [
        ("steps", f"{facts.summary.steps:,}"),
        ("hours", hours_text(facts.summary.hours)),
        ("episodes", f"{facts.summary.episodes:,}"),
        ("recordings", f"{facts.summary.recordings:,}"),
        ("pictures", f"{facts.info.size[0]}x{facts.info.size[1]}, stored: {facts.info.frames}"),
        ("tokens", _tokens(facts)),
        ("data", f"{facts.summary.shards:,} files, {facts.summary.n_bytes / 1e6:,.1f} MB"),
    ]
    parts = ["## What is in it", _table(("", ""), rows)]
    parts += [_amount_table("split", facts.summary.by["split"])]
    parts += [_picture("hours.png", "Hours per game and split", pictures)]
    parts += [_amount_table("game", facts.summary.by["game"])]
    return "\n\n".join(filter(None, parts))


def _tokens(facts: Facts) -> str:
    tokenizer = facts.info.tokenizer
    if tokenizer is None:
        return "none"
    rows, columns = tokenizer.grid
    return f"{rows}x{columns} of {tokenizer.vocab_size}, by {plain(tokenizer.name)}"


def _players(facts: Facts) -> str:
    players = facts.players
    if not players.count:
        return "## Players\n\nNo player is stated."
    if players.pseudonyms:
        how = "They are pseudonyms made with a secret key."
    elif players.amounts:
        how = "**These are names as the recordings state them**, shown on request."
    else:
        how = (
            "The data has their names as the recordings state them, not pseudonyms; they are not "
            "shown here."
        )
    table = _amount_table("player", players.amounts) if players.amounts else ""
    return "\n\n".join(
        filter(None, [f"## Players\n\n{counted(players.count, 'player')}. {how}", table])
    )


def _controls(facts: Facts, pictures: frozenset[str]) -> str:
    space, balance = facts.info.action_space, facts.balance
    held = (
        (
            f"`{each.name}`",
            f"{each.share:.1%}",
            f"{each.alone:.1%}",
            f"{each.holds:,}",
            _seconds(each),
        )
        for each in balance.controls[:MOST_ROWS]
    )
    parts = [
        f"## Actions\n\nThe action space is {plain(space.name)}, with {space.size} numbers per step. Shares are "
        f"of the {balance.steps:,} steps that are kept and whose action is known.",
        _picture("controls.png", "Share of the time of each control", pictures),
        _table(("control", "held", "alone", "holds", "median"), held),
        _more(len(balance.controls) - MOST_ROWS, "controls"),
        _picture("holds.png", "How long each control is held", pictures),
    ]
    if balance.combinations:
        rows = (
            (" ".join(f"`{name}`" for name in each.controls) or "nothing", f"{each.share:.1%}")
            for each in balance.combinations[:10]
        )
        parts.append(_table(("all that was held", "share"), rows))
    if (bits := balance.entropy_bits) is not None:
        parts.append(
            f"Entropy of what was held, per recording: {bits.lowest:.2f} to {bits.highest:.2f} bits, "
            f"median {bits.median:.2f}."
        )
    return "\n\n".join(filter(None, parts))


def _seconds(control: Any) -> str:
    return "" if control.median_hold_s is None else f"{control.median_hold_s:.2f} s"


def _licences(facts: Facts) -> str:
    return "\n\n".join(
        [
            "## Licences",
            "As the recordings state them.",
            _amount_table("license", facts.summary.by["license"]),
        ]
    )


def _left_out(facts: Facts) -> str:
    summary = facts.summary
    parts = [f"## Refused and filtered\n\n{summary.quarantined:,} inputs were refused."]
    if summary.reasons:
        reasons = ((plain(name), f"{count:,}") for name, count in summary.reasons.items())
        parts.append(_table(("reason", "inputs"), reasons))
    parts.append(
        f"{hours_text(facts.kept)} of {hours_text(summary.hours)} hours are marked for "
        f"training. The action is known in {facts.known:.2%} of the steps."
    )
    shares = {} if facts.audit is None else facts.audit.shares
    if shares:
        hours = ((name, hours_text(each)) for name, each in shares.items())
        parts.append(_table(("not play", "hours"), hours))
    else:
        parts.append("What is not play, such as menus and pauses: not measured.")
    return "\n\n".join(parts)


def _audit(facts: Facts) -> str:
    head, audit = "## Do the actions belong to the pictures?", facts.audit
    if audit is None:
        return f"{head}\n\nNot measured."
    rows = ((plain(name), f"{count:,}") for name, count in audit.verdicts.items())
    parts = [
        f"{head}\n\n{audit.episodes:,} of {facts.summary.episodes:,} episodes were measured.",
        _table(("verdict", "episodes"), rows),
    ]
    if audit.lag_ms is not None:
        low, quarter, median, more, high = audit.lag_ms
        parts.append(
            f"Lag of the log behind the picture in {audit.measured:,} episodes: median {median:.0f} ms, half of them "
            f"{quarter:.0f} to {more:.0f} ms, all {low:.0f} to {high:.0f} ms."
        )
    return "\n\n".join(parts)


def _reading(facts: Facts) -> str:
    columns = f"{facts.info.action_space.size}"
    return (
        "## Reading it\n\n`actions` are bytes of little-endian float32, `tokens` of uint16; `croissant.json` "
        'describes each column. With Hugging Face `datasets` do not use `with_format("numpy")`: it cuts bytes at '
        "zeros at their end.\n\n```python\nimport numpy as np\nfrom datasets import load_dataset\n\n"
        'steps = load_dataset(".", "steps")            # the folder of this file\n'
        "first = next(iter(steps.values()))[0]\n"
        f'actions = np.frombuffer(first["actions"], "<f4")    # {columns} numbers\n```'
    )


def _amount_table(kind: str, amounts: Sequence[Amount]) -> str:
    rows = (
        (
            plain(each.name) or "not stated",
            f"{each.episodes:,}",
            f"{each.steps:,}",
            hours_text(each.hours),
        )
        for each in amounts[:MOST_ROWS]
    )
    table = _table((kind, "episodes", "steps", "hours"), rows)
    return "\n\n".join(filter(None, [table, _more(len(amounts) - MOST_ROWS, f"{kind}s")]))


def _more(count: int, what: str) -> str:
    return f"And {count:,} more {what}." if count > 0 else ""


def _picture(name: str, told: str, there: frozenset[str]) -> str:
    return f"![{told}]({FOLDER}/{name})" if name in there else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    ends = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ends, *rows))
