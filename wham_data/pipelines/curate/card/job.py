"""The whole job: read the numbers and the answers, write the card.

    card.toml       what a person says; made with the questions where it is missing, never changed
    README.md       for people, and for the Hugging Face hub
    croissant.json  for programs
    card/*.png      the pictures of README.md

The last line of README.md has hashes of both texts. A README.md or croissant.json without them, or
changed since, is somebody's work: it is not replaced unless that is asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wham_data.corpus import Corpus
from wham_data.corpus.storage.contract import Storage
from wham_data.corpus.storage.locations import open_storage
from wham_data.pipelines.curate.card.croissant import croissant
from wham_data.pipelines.curate.card.facts import Facts, read_facts
from wham_data.pipelines.curate.card.plots import plots
from wham_data.pipelines.curate.card.readme import FOLDER, readme
from wham_data.pipelines.curate.card.words import Words, read_words, template
from wham_data.schemas.errors import UsageError

README: Final = "README.md"
CROISSANT: Final = "croissant.json"
WORDS: Final = "card.toml"
MOST_BYTES: Final = 100_000_000
_MARK: Final = re.compile(
    r"<!-- wham-data card: (?P<readme>[0-9a-f]{64}) croissant\.json (?P<croissant>[0-9a-f]{64}) -->\n\Z"
)


@dataclass(frozen=True, slots=True)
class CardReport:
    """What was written.

    location  folder or URL of the card
    version   version of the corpus that it describes
    files     names of the files, in the folder
    missing   keys of card.toml that a person should answer
    asked     card.toml was made
    players   "pseudonyms", "names shown", "names hidden" or "none"
    """

    location: str
    version: int
    files: tuple[str, ...]
    missing: tuple[str, ...]
    asked: bool
    players: str


def write_card(
    location: str | Path,
    out: str | Path | None = None,
    *,
    version: int | None = None,
    show_players: bool = False,
    force: bool = False,
) -> CardReport:
    """Write the card of a corpus.

    Args:
        location: the corpus, a path or URL.
        out: folder or URL to write to. Default: the corpus. Elsewhere, croissant.json describes
            files that are not beside it.
        version: of the corpus; None: the newest.
        show_players: show players by name where the corpus has their names.
        force: replace a README.md or croissant.json that a person wrote or changed.

    Raises:
        UsageError: there is no corpus, card.toml makes no sense, or a person's file would be lost.
        NoInputsError: the corpus has no episode.
    """
    corpus = Corpus.open(location, version)
    target = corpus.storage if out is None else open_storage(out)
    mark = _check_readme(target, force=force)
    asked = not target.exists(WORDS)
    words = Words({}) if asked else read_words(target.read(WORDS, MOST_BYTES), target.where(WORDS))
    facts = read_facts(corpus, show_players=show_players)
    pictures = plots(facts)
    described = json.dumps(croissant(facts, words), indent=1, ensure_ascii=False).encode() + b"\n"
    text = readme(facts, words, pictures)
    if not force:
        _check_croissant(target, mark, described)
    if asked:
        target.put_if_absent(WORDS, template().encode())
    for name, content in pictures.items():
        target.replace(f"{FOLDER}/{name}", content)
    target.replace(CROISSANT, described)
    target.replace(README, f"{text}\n{_mark(text, described)}".encode())
    return CardReport(
        location=target.location,
        version=corpus.version,
        files=(README, CROISSANT, WORDS, *(f"{FOLDER}/{name}" for name in pictures)),
        missing=words.missing,
        asked=asked,
        players=_players(facts),
    )


def _mark(text: str, described: bytes) -> str:
    return f"<!-- wham-data card: {_hash(text.encode())} {CROISSANT} {_hash(described)} -->\n"


def _check_readme(target: Storage, *, force: bool) -> re.Match[str] | None:
    """The mark of the README.md that is there; refuse one that is not as a card left it."""
    if (content := _read(target, README)) is None:
        return None
    text = content.decode("utf-8", "replace")
    mark = _MARK.search(text)
    whole = text[: mark.start() - 1] if mark else text
    if not force and (mark is None or _hash(whole.encode()) != mark["readme"]):
        raise _of_a_person(target, README)
    return mark


def _check_croissant(target: Storage, mark: re.Match[str] | None, described: bytes) -> None:
    """Refuse to replace a croissant.json that neither the last card nor an interrupted one left."""
    left = {described, *([] if mark is None else [mark["croissant"]])}
    found = _read(target, CROISSANT)
    if found is not None and found not in left and _hash(found) not in left:
        raise _of_a_person(target, CROISSANT)


def _of_a_person(target: Storage, name: str) -> UsageError:
    return UsageError(
        f"{target.where(name)}: a person wrote or changed this file. Move what it says to {WORDS} "
        "(`notes` takes Markdown), or let --force replace it"
    )


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(target: Storage, name: str) -> bytes | None:
    return target.read(name, MOST_BYTES) if target.exists(name) else None


def _players(facts: Facts) -> str:
    if not facts.players.count:
        return "none"
    if facts.players.pseudonyms:
        return "pseudonyms"
    return "names shown" if facts.players.amounts else "names hidden"
