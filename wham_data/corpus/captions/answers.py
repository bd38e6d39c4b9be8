"""Answers of models about clips, kept in the folder `captions/` of a corpus as soon as they come.

    captions/<24 hex digits>-<random>.jsonl    answers under the settings with this hash, one per line

A file is complete or absent, so a killed run loses at most the answers that were under way, and the
next run asks only for those. The files serve as a memory: `texts.py` writes the answers into shards.
"""

from __future__ import annotations

import json
import threading
import unicodedata
import uuid
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from wham_data.corpus.storage.contract import Storage
from wham_data.schemas.corpus_info import parse_json
from wham_data.schemas.errors import IntegrityError, UsageError

FOLDER: Final = "captions"
MERGE_AT: Final = 256
"""As soon as there are this many files of one answer each, they become one file."""
SMALL_BYTES: Final = 1 << 15
MOST_FILE_BYTES: Final = 1 << 24
MOST_CHARACTERS: Final = 4_000
"""Most characters of a caption."""
_DROPPED: Final = frozenset(("Cc", "Cs", "Cn", "Co"))
_DIRECTIONS: Final = frozenset(
    "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


@dataclass(frozen=True, slots=True, order=True)
class Clip:
    """Steps [start, stop) of an episode, which get one text together.

    recording  hash of the recording that the episode is from
    """

    recording: str
    episode: str
    start: int
    stop: int

    @property
    def n_steps(self) -> int:
        """Count of its steps."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a server counted.

    asked, written  tokens of the requests, and of the answers
    unknown         count of answers for which the server gave no counts
    """

    asked: int = 0
    written: int = 0
    unknown: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.asked + other.asked, self.written + other.written, self.unknown + other.unknown
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote about a clip.

    text      on one line, see `plain_caption`
    received  when, UTC
    model     the name that the server gave; "": none
    usage     of all requests that this answer took
    """

    clip: Clip
    text: str
    received: datetime
    model: str = ""
    usage: Usage = field(default_factory=Usage)

    def to_line(self) -> bytes:
        """The answer as a line of JSON."""
        record = {**asdict(self), "received": self.received.isoformat()}
        return (json.dumps(record, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_line(cls, line: bytes) -> Answer:
        """The answer in a line. It may be from somebody else, so everything is checked.

        Raises:
            UsageError, TypeError, ValueError, KeyError: it is none.
        """
        found: Any = parse_json(line)
        clip, usage = Clip(**found["clip"]), Usage(**found["usage"])
        numbers = (clip.start, clip.stop, usage.asked, usage.written, usage.unknown)
        texts = (clip.recording, clip.episode, found["text"], found["model"])
        if not all(isinstance(text, str) for text in texts) or not all(
            type(number) is int and 0 <= number < 1 << 48 for number in numbers
        ):
            raise UsageError("expected texts and counts")
        text = plain_caption(found["text"])
        if clip.start >= clip.stop or not 0 < len(text) <= MOST_CHARACTERS:
            raise UsageError("expected steps and a text")
        received = datetime.fromisoformat(found["received"]).astimezone(UTC)
        return cls(clip, text, received, plain_caption(found["model"]), usage)


def plain_caption(text: str) -> str:
    """A text on one line, as it may be stored and shown.

    White space and line ends become single spaces. Control characters, marks that change the
    direction of writing, private and unassigned characters and halves of characters are left out.
    """
    plain = (
        " " if letter.isspace() else letter
        for letter in text
        if letter.isspace()
        or (unicodedata.category(letter) not in _DROPPED and letter not in _DIRECTIONS)
    )
    return " ".join("".join(plain).split())


class AnswerBook:
    """The answers of a corpus under one set of settings. Several threads may use it.

    Args:
        storage: the files of the corpus.
        settings: hash of all that shapes an answer, 24 hex digits.
    """

    def __init__(self, storage: Storage, settings: str) -> None:
        self._storage, self._settings = storage, settings
        self._lock = threading.Lock()
        self._single: dict[str, bytes] = {}

    def read(self) -> dict[Clip, Answer]:
        """All answers that are kept; of two for one clip, the one that came last.

        Raises:
            IntegrityError: a file is damaged.
        """
        found: dict[Clip, Answer] = {}
        for name in self._storage.list(FOLDER):
            if name.startswith(f"{self._settings}-"):
                for answer in _answers_in(self._storage, name):
                    before = found.get(answer.clip)
                    if before is None or before.received <= answer.received:
                        found[answer.clip] = answer
        return found

    def keep(self, answer: Answer) -> None:
        """Store an answer. It is durable on return."""
        line = answer.to_line()
        name = self._put(line)
        with self._lock:
            self._single[name] = line
            if len(self._single) < MERGE_AT:
                return
            merged, self._single = self._single, {}
        self._put(b"".join(merged.values()))
        for name in merged:
            self._storage.delete(f"{FOLDER}/{name}")

    def tidy(self) -> None:
        """Put the answers of small files into one file. Called when nothing is under way."""
        small = [
            entry.name
            for entry in self._storage.entries(FOLDER)
            if entry.name.startswith(f"{self._settings}-") and entry.n_bytes < SMALL_BYTES
        ][:MERGE_AT]
        if len(small) > 1:
            answers = [each for name in small for each in _answers_in(self._storage, name)]
            self._put(b"".join(each.to_line() for each in answers))
            for name in small:
                self._storage.delete(f"{FOLDER}/{name}")

    def _put(self, content: bytes) -> str:
        name = f"{self._settings}-{uuid.uuid4().hex}.jsonl"
        self._storage.put_if_absent(f"{FOLDER}/{name}", content)
        return name


def forget_answers(storage: Storage, recordings: Collection[str]) -> None:
    """Remove the answers about some recordings, under all settings.

    Raises:
        IntegrityError: a file is damaged, so it is not known what it holds.
    """
    for name in storage.list(FOLDER):
        answers = list(_answers_in(storage, name))
        left = [answer for answer in answers if answer.clip.recording not in recordings]
        if len(left) < len(answers):
            if left:
                content = b"".join(answer.to_line() for answer in left)
                kept = f"{name.partition('-')[0]}-{uuid.uuid4().hex}.jsonl"
                storage.put_if_absent(f"{FOLDER}/{kept}", content)
            storage.delete(f"{FOLDER}/{name}")


def _answers_in(storage: Storage, name: str) -> Iterator[Answer]:
    try:
        content = storage.read(f"{FOLDER}/{name}", MOST_FILE_BYTES)
    except FileNotFoundError:  # another run has just merged it
        return
    for number, line in enumerate(content.splitlines(), 1):
        try:
            yield Answer.from_line(line)
        except (UsageError, TypeError, ValueError, KeyError) as error:
            raise IntegrityError(
                f"{storage.where(f'{FOLDER}/{name}')}: damaged: line {number} is no answer "
                f"({str(error)[:100]}). Copy this file again, or delete it, and what it holds is "
                "asked again"
            ) from error
