"""What only a person can say of a corpus: the answers in `card.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from wham_data.schemas.declarations import MOST_BYTES, known_keys
from wham_data.schemas.errors import UsageError

MOST_TEXT: Final = 20_000
MOST_ITEMS: Final = 200


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask.

    key    its name in card.toml
    title  its heading in README.md; "": it has no section there
    ask    the question
    rai    its property in the RAI vocabulary; "": none
    """

    key: str
    title: str
    ask: str
    rai: str = ""


QUESTIONS: Final = (
    Question("title", "", "The name of the data set, one line."),
    Question("summary", "", "What it is, in two or three sentences."),
    Question(
        "purpose",
        "Purpose",
        "What was it made for, and what should it be used for?",
        "dataUseCases",
    ),
    Question(
        "consent", "Consent", "Did the players agree to this use, how, and can they take it back?"
    ),
    Question("players", "The players", "Who played: adults, how skilled, paid or not?"),
    Question("collection", "Collection", "How, where and when was it recorded?", "dataCollection"),
    Question(
        "sensitive",
        "Personal and sensitive information",
        "What in it may tell who somebody is: names, chat, voices, faces?",
        "personalSensitiveInformation",
    ),
    Question("biases", "Biases", "What is in it too much, or too little?", "dataBiases"),
    Question("limitations", "Limits", "What must it not be used for?", "dataLimitations"),
    Question("impact", "Impact", "Whom may its use help, and whom harm?", "dataSocialImpact"),
    Question(
        "maintenance",
        "Maintenance",
        "Who keeps it, for how long, and whom to ask to be taken out?",
        "dataReleaseMaintenancePlan",
    ),
    Question("licence", "", "The licence of the whole, such as CC-BY-4.0, if you may give one."),
    Question("creator", "", "Who made it: a person or an organisation."),
    Question("url", "", "Where it is published."),
    Question("published", "", "When it was published, as 2027-01-31."),
    Question("citation", "Citation", "How to cite it."),
    Question("notes", "Notes", "Anything else, in Markdown."),
)
LISTS: Final = ("tags", "languages")
"""Keys whose value is a list of texts."""
OPTIONAL: Final = frozenset(
    {"title", "summary", "licence", "creator", "url", "published", "citation", "notes", *LISTS}
)
"""Keys that are not called missing when they are empty."""


@dataclass(frozen=True, slots=True)
class Words:
    """The answers.

    texts    key -> answer; no entry: not answered
    tags, languages  for the front matter
    """

    texts: Mapping[str, str]
    tags: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """The questions that a card should answer and that are not answered."""
        return tuple(
            each.key
            for each in QUESTIONS
            if each.key not in OPTIONAL and each.key not in self.texts
        )


def template() -> str:
    """The text of an empty card.toml."""
    lines = [
        "# What only a person can say of this corpus. Answer between the quotes, in Markdown if you",
        '# like; a text of several lines stands in """ three quotes """. Empty: not answered yet.',
        "# `wham-data card` reads this file and never changes it.",
        "",
    ]
    for each in QUESTIONS:
        lines += [f"# {each.ask}", f'{each.key} = ""', ""]
    lines += [
        "# Words to find it by, and languages that are heard or seen in it (en, de, ...).",
        "",
    ]
    return "\n".join([*lines[:-1], *(f"{name} = []" for name in LISTS)]) + "\n"


def read_words(content: bytes, where: str) -> Words:
    """The answers in a card.toml.

    Args:
        content: of the file; everything in it is checked.
        where: its path or URL, for messages.

    Raises:
        UsageError: it is not TOML, has a key that is not asked for, or a value that is no text.
    """
    if len(content) > MOST_BYTES:
        raise UsageError(f"{where}: {len(content)} bytes, expected at most {MOST_BYTES}")
    try:
        found = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not TOML: {str(error)[:200]}") from error
    answers = known_keys(found, (*(each.key for each in QUESTIONS), *LISTS), where)
    texts: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}
    for key, value in answers.items():
        if key in LISTS:
            lists[key] = _texts(value, f"{where}: {key}")
        elif not isinstance(value, str) or len(value) > MOST_TEXT:
            raise UsageError(f"{where}: {key}: expected a text of at most {MOST_TEXT} characters")
        elif value.strip():
            texts[key] = value.strip()
    _check_date(texts.get("published"), where)
    return Words(texts, **lists)


def _check_date(text: str | None, where: str) -> None:
    try:
        date.fromisoformat(text or "2000-01-01")
    except ValueError as error:
        raise UsageError(f"{where}: published: expected a date as 2027-01-31") from error


def _texts(value: object, what: str) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or len(value) > MOST_ITEMS
        or not all(isinstance(each, str) and 0 < len(each) <= 100 for each in value)
    ):
        raise UsageError(f"{what}: expected a list of texts of 1 to 100 characters")
    return tuple(value)
