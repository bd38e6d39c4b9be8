"""The identity of recordings: a hash of their bytes, read now or known from an earlier run."""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from wham_data.corpus.storage.sources import objects
from wham_data.corpus.storage.sources.at_hand import version_of
from wham_data.corpus.storage.sources.objects import about, changed
from wham_data.corpus.storage.sources.ranged import RangedObject
from wham_data.pipelines.ingest.intake.inputs import Found
from wham_data.pipelines.ingest.intake.known_inputs import RACY_NS, FileStamp, KnownInputs
from wham_data.pipelines.readers.kit.units import FoundInUnit
from wham_data.pipelines.run.errands import Errands
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.paths import is_in_store
from wham_data.schemas.recording import Recording

HASH_THREADS: Final = 4
HASH_BLOCK: Final = 1 << 20
PIECE_BYTES: Final = 1 << 12
MOST_AHEAD: Final = 64
"""So many recordings are hashed before the first of them is handed on."""
MOST_AHEAD_HELPED: Final = 4096
"""As `MOST_AHEAD`, while the nodes of a cluster help. A recording ahead takes about 3 KB."""
MOMENT_SECONDS: Final = 0.2
MOST_HASHED_AGAIN: Final = 256
MOST_REMEMBERED: Final = 1024
"""Files whose hash is kept for the next recordings, which may share them."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A recording of which a file cannot be read."""

    recording: Recording
    why: RefusedInput


@dataclass(frozen=True, slots=True)
class FileHash:
    """The hash of one file.

    sha256  of its bytes
    stamp   of the version that was read
    hashed  whether its bytes were read now
    racy    whether it may change without another stamp
    """

    sha256: bytes
    stamp: FileStamp
    hashed: bool = True
    racy: bool = False


Reading = Future[FileHash | RefusedInput] | FileHash | RefusedInput
"""The hash of a file, or what will have it."""


class Identities:
    """Gives recordings their identity, in their order; files are read some recordings ahead.

    Args:
        known: hashes that earlier runs have noted; new ones are noted there.

    errands: the hashing of files, for a runner that has nodes to do it
    by_pieces: files that are not known are told by their size and three pieces; nothing is noted
    """

    def __init__(self, known: KnownInputs) -> None:
        self.known = known
        self.by_pieces = False
        self.errands = Errands(self._read, hash_file, HASH_THREADS, "hashing of inputs")
        self._closed = False
        self._recent: OrderedDict[Path, Reading] = OrderedDict()

    def close(self) -> None:
        """Read nothing more."""
        self._closed = True
        self.errands.close()

    def of_all(
        self, found: Iterable[Recording | FoundInUnit]
    ) -> Iterator[Found | Unreadable | FoundInUnit]:
        """The recordings with their identities; what else is found in a unit passes through."""
        ahead: deque[tuple[Recording | FoundInUnit, list[Reading]]] = deque()
        for each in found:
            files = each.files if isinstance(each, Recording) else ()
            ahead.append((each, [self._begin(path) for path in files]))
            # The next may be long in coming. While few are read, the first is waited for a little.
            patience = MOMENT_SECONDS if len(ahead) <= HASH_THREADS else 0.0
            most = MOST_AHEAD_HELPED if self.errands.is_helped else MOST_AHEAD
            while ahead and (len(ahead) > most or _is_ready(ahead[0][1], patience)):
                yield self._finished(*ahead.popleft())
        while ahead:
            yield self._finished(*ahead.popleft())

    def bytes_to_read(self, found: Iterable[Recording | FoundInUnit]) -> int:
        """Bytes of the files that have to be read to identify recordings and what is refused."""
        paths: set[Path] = set()
        for each in found:
            paths.update(each.files if isinstance(each, Recording) else each.refused)
        return sum(_size(path) for path in paths if self._looked_up(path) is None)

    def of(self, recording: Recording) -> Found | Unreadable:
        """One recording with its identity."""
        return identified(recording, [self.file(path) for path in recording.files])

    def file(self, path: Path) -> FileHash | RefusedInput:
        """The hash of a file, or why it cannot be read."""
        return self._read_to_end(path, self._begin(path))

    def _finished(
        self, each: Recording | FoundInUnit, files: Sequence[Reading]
    ) -> Found | Unreadable | FoundInUnit:
        if not isinstance(each, Recording):
            return each
        return identified(each, list(map(self._read_to_end, each.files, files)))

    def _read_to_end(self, path: Path, reading: Reading) -> FileHash | RefusedInput:
        if not isinstance(reading, Future):
            return reading
        read = reading.result()
        if self._recent.get(path) is reading:
            self._recent[path] = read  # a future is many objects
        return read

    def _begin(self, path: Path) -> Reading:
        if path in self._recent:
            self._recent.move_to_end(path)
            return self._recent[path]
        reading = self._recent[path] = self._looked_up(path) or self._ask(path)
        if len(self._recent) > MOST_REMEMBERED:
            self._recent.popitem(last=False)
        return reading

    def _ask(self, path: Path) -> Future[FileHash | RefusedInput]:
        asked_ns = time.time_ns()
        asked = self.errands.ask(path)
        if not self.by_pieces:
            asked.add_done_callback(lambda read: self._note(path, read, asked_ns))
        return asked

    def _looked_up(self, path: Path) -> FileHash | None:
        if self.known.is_empty:
            return None
        try:
            stamp = _listed(path)
        except OSError:
            return None
        sha256 = self.known.hash_of(self.known.stamp(path, stamp))
        return None if sha256 is None else FileHash(sha256, stamp, hashed=False)

    def _read(self, path: Path) -> FileHash | RefusedInput:
        if self.by_pieces and _size(path) > 3 * PIECE_BYTES:
            return hash_pieces(path)
        return hash_file(path, lambda: self._closed)

    def _note(self, path: Path, reading: Future[FileHash | RefusedInput], asked_ns: int) -> None:
        """Note a hash that was read, if the file was old by the clock of this machine, too."""
        if reading.cancelled() or reading.exception() is not None:
            return
        read = reading.result()
        if isinstance(read, FileHash) and not read.racy and not read.stamp.is_racy(asked_ns):
            self.known.note(self.known.stamp(path, read.stamp), read.sha256)


def _is_ready(files: Sequence[Reading], patience_s: float) -> bool:
    """Whether all files of a recording are read, after so much time at most."""
    futures = [each for each in files if isinstance(each, Future)]
    return not futures or not wait(futures, patience_s).not_done


def identified(
    recording: Recording, hashes: Sequence[FileHash | RefusedInput]
) -> Found | Unreadable:
    """A recording with its identity.

    Args:
        recording: the recording.
        hashes: of each of its files.
    """
    files = []
    for read in hashes:
        if isinstance(read, RefusedInput):
            return Unreadable(recording, read)
        files.append(read)
    content = content_of(files)
    key = content
    if recording.part:
        text = f"{content}#{recording.part}".encode("utf-8", "surrogateescape")
        key = hashlib.sha256(text).hexdigest()
    return Found(
        recording,
        key,
        sum(each.stamp.n_bytes for each in files),
        content,
        tuple(each.stamp for each in files),
        any(each.hashed for each in files),
    )


def content_of(files: Sequence[FileHash]) -> str:
    """sha256 over the files' own, hex digits."""
    whole = hashlib.sha256()
    for each in files:
        whole.update(each.sha256)
    return whole.hexdigest()


def check_size(found: Found) -> None:
    """Make sure that the files of a recording have the size that they had when it was found.

    Raises:
        RefusedInput: CHANGED_WHILE_READ.
    """
    size = sum(map(_size, found.recording.files))
    if size != found.bytes:
        raise RefusedInput(
            Reason.CHANGED_WHILE_READ,
            f"had {found.bytes} bytes when it was found and has {size} now: is it still recorded?",
        )


def check_unchanged(found: Found) -> None:
    """Make sure that a recording still has the bytes of its identity.

    Its files must have the times that they had when they were hashed. If that was in an earlier run,
    they are hashed again.

    Raises:
        RefusedInput: CHANGED_WHILE_READ, or UNREADABLE.
    """
    files = found.recording.files
    for path, stamp in zip(files, found.stamps, strict=True):
        now = _stamp_of(path)
        if is_in_store(path) and now != stamp:
            raise changed(path)
        # File systems keep times to a tick of up to 2 s, and another machine may see another one.
        if abs(now.changed_ns - stamp.changed_ns) > RACY_NS:
            raise RefusedInput(
                Reason.CHANGED_WHILE_READ,
                f"{path.name} was written after it was found: is it still recorded?",
            )
    if not found.hashed:
        content = content_of([_hashed_again(path, _stamp_of(path)) for path in files])
        if content != found.content:
            raise RefusedInput(
                Reason.CHANGED_WHILE_READ,
                "its bytes are not those that an earlier run has hashed, though size and times are the "
                "same. --rehash makes a run hash it again",
            )


@lru_cache(MOST_HASHED_AGAIN)
def _hashed_again(path: Path, _: FileStamp) -> FileHash:
    """As `hash_file`. The parts of a file, which follow one another, read it once."""
    read = hash_file(path)
    if isinstance(read, RefusedInput):
        raise read
    return read


def hash_file(path: Path, stop: Callable[[], bool] = lambda: False) -> FileHash | RefusedInput:
    """The hash of a file; a file that cannot be read is a refusal.

    Args:
        path: of the file.
        stop: asked now and then; True: nobody wants to know any more.

    Raises:
        CancelledError: `stop` said so.
    """
    if is_in_store(path):
        return hash_object(path, stop)
    if not path.is_file():  # opening a FIFO would wait for ever
        return RefusedInput(Reason.UNREADABLE, "not a regular file")
    now_ns = time.time_ns()
    digest = hashlib.sha256()
    try:
        stamp = FileStamp.of(path)
        n_bytes = 0
        with path.open("rb") as file:
            while block := file.read(HASH_BLOCK):
                digest.update(block)
                n_bytes += len(block)
                if stop():
                    raise CancelledError
        racy = stamp.is_racy(now_ns) or FileStamp.of(path) != stamp
    except OSError as error:
        return _unreadable(error)
    return FileHash(digest.digest(), stamp._replace(n_bytes=n_bytes), racy=racy)


def hash_object(path: Path, stop: Callable[[], bool]) -> FileHash | RefusedInput:
    """As `hash_file`, of an object in a store; its version is told by the stamp."""
    try:
        version, sha256 = version_of(path)
        stamp = FileStamp(*version.stamp)
        if sha256 is not None:
            return FileHash(sha256, stamp)
        digest, there = hashlib.sha256(), RangedObject(path, version)
        for start in range(0, version.n_bytes, HASH_BLOCK):
            digest.update(there.read(start, min(start + HASH_BLOCK, version.n_bytes)))
            if stop():
                raise CancelledError
    except FileNotFoundError:
        return changed(path)
    except RefusedInput as why:
        return why
    return FileHash(digest.digest(), stamp, racy=not version.number)


def hash_pieces(path: Path) -> FileHash | RefusedInput:
    """A hash of the size, begin, middle and end of a file of more than three pieces."""
    try:
        if is_in_store(path):
            version = about(path)
            stamp = FileStamp(*version.stamp)
            pieces = [objects.read(path, version, *place) for place in _pieces(stamp.n_bytes)]
        else:
            stamp = FileStamp.of(path)
            with path.open("rb") as file:
                pieces = [
                    os.pread(file.fileno(), PIECE_BYTES, at) for at, _ in _pieces(stamp.n_bytes)
                ]
    except OSError as error:
        return _unreadable(error)
    except RefusedInput as why:
        return why
    digest = hashlib.sha256(b"%d" % stamp.n_bytes)
    for piece in pieces:
        digest.update(piece)
    return FileHash(digest.digest(), stamp)


def _listed(path: Path) -> FileStamp:
    """The stamp of a file as the search has just found it.

    Raises:
        OSError: there is none.
    """
    return FileStamp(*version_of(path)[0].stamp) if is_in_store(path) else FileStamp.of(path)


def _pieces(n_bytes: int) -> list[tuple[int, int]]:
    """Where the first, the middle and the last piece of a file start and stop."""
    starts = (0, n_bytes // 2, n_bytes - PIECE_BYTES)
    return [(start, start + PIECE_BYTES) for start in starts]


def _size(path: Path) -> int:
    """Bytes of a regular file; 0: it is none."""
    try:
        if is_in_store(path):
            return about(path).n_bytes
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def _unreadable(error: OSError) -> RefusedInput:
    return RefusedInput(Reason.UNREADABLE, f"cannot be read: {error.strerror or error}")


def _stamp_of(path: Path) -> FileStamp:
    try:
        return FileStamp.of(path)
    except OSError as error:
        raise _unreadable(error) from error
