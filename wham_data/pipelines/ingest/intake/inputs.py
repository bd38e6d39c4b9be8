"""What an input turns out to be: a recording with its identity, a copy, one that was refused, ..."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from wham_data.corpus.tombstones import Kind
from wham_data.pipelines.ingest.intake.known_inputs import FileStamp
from wham_data.pipelines.run.progress import Event
from wham_data.schemas.errors import RefusedInput
from wham_data.schemas.recording import Recording


@dataclass(frozen=True, slots=True)
class Found:
    """A recording with its identity.

    key      sha256 over the bytes of its files, and its part if it is one, hex. Names do not count:
             a renamed copy is the same recording
    bytes    size of all its files
    content  sha256 over the bytes of its files alone, which its neighbours in them share
    stamps   of each of its files, when they were hashed
    hashed   whether the bytes of one of its files were read in this run; otherwise an earlier run knew
             them all by path, size and times
    """

    recording: Recording
    key: str
    bytes: int
    content: str
    stamps: tuple[FileStamp, ...]
    hashed: bool = True


@dataclass(frozen=True, slots=True)
class Copy:
    """A recording with the same bytes as one before it in the order of paths.

    source, player  its own
    key             of both
    original        source of the one before
    """

    source: str
    player: str | None
    key: str
    original: str

    @property
    def line(self) -> str:
        """What to say of it."""
        return f"{self.source}: duplicate of {self.original}"


Copies = Mapping[str, Sequence[Copy]]
"""Key of a recording -> its copies."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """A recording that an earlier run refused; it is not tried again."""

    source: str
    player: str | None
    key: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A recording that stays out, because it, its player or its match was forgotten."""

    source: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Refusal:
    """An input that is refused, with the identity under which quarantine keeps it.

    path   what it is called: a path, and `#part` where it is one of several in its files
    stage  "find", "ingest" or "split"
    player whose recording it is, by name
    """

    path: str
    key: str
    stage: str
    why: RefusedInput
    player: str | None = None

    @property
    def line(self) -> str:
        """The input and why it is refused, for a person."""
        return f"{self.path}: {self.why} [{self.why.reason}]"

    @property
    def event(self) -> Event:
        """The same for a program."""
        return Event(
            name="refused", item=self.path, reason=str(self.why.reason), notes=self.why.notes
        )

    def of_copy(self, copy: Copy) -> Refusal:
        """The refusal of a copy of the recording, which is no better."""
        return replace(self, path=copy.source, player=copy.player)

    def with_copies(self, copies: Copies) -> Iterator[Refusal]:
        """This refusal, and one for each copy of the recording."""
        yield self
        if self.stage != "find":
            yield from map(self.of_copy, copies.get(self.key, ()))


def refusal_of(found: Found, stage: str, why: RefusedInput) -> Refusal:
    """The refusal of a recording that was found."""
    recording = found.recording
    return Refusal(recording.source, found.key, stage, why, recording.provenance.player)


Sorted = Found | Copy | SetAside | LeftOut | Refusal
"""What an input turns out to be. A recording that is in the corpus is only counted."""
