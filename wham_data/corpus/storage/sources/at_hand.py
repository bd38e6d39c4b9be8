"""Files of an object store, laid out on this disk for as long as somebody works with them.

    with LaidOut([path, ...]):      small ones whole, the others as placeholders
        here(path)                  where each lies now
    there(place)                    and back

Readers open paths. So what they need of a store is put on the disk under its own name: a small file as
it is, a larger one as a placeholder (`files.elsewhere`), which takes no room and whose bytes come from
the store when they are read. A placeholder becomes the whole file if a reader needs that, or if the user
wants files whole.

Each process has a folder of its own in the user's cache folder, and keeps the last files that it laid out.
The next process removes the folders of those that are dead.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import os
import shutil
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from wham_data.corpus.storage.cache import FOLDER, Cache
from wham_data.corpus.storage.contract import one_line
from wham_data.corpus.storage.sources import objects
from wham_data.corpus.storage.sources.folders import is_file, walk
from wham_data.corpus.storage.sources.objects import About
from wham_data.corpus.storage.sources.ranged import (
    BLOCK,
    HEAD,
    REQUESTS_AT_ONCE,
    Pool,
    RangedObject,
)
from wham_data.files import elsewhere
from wham_data.files.marks import accounts_beside
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.paths import OBJECT_STORES, is_in_store, told
from wham_data.schemas.recording import Provenance, Recording

SMALL: Final = 1 << 18
"""A file of so many bytes is laid out whole."""
MANY: Final = 1024
"""Of more files at once, all are placeholders at first."""
MOST_WHOLE: Final = 1 << 30
"""A larger file is fetched as a whole only if the user wants it."""
KEPT_FILES: Final = 1024
KEPT_BYTES: Final = 4 << 30
"""So many files, and of files that were fetched so many bytes, are kept for whoever needs them next."""
FOLDERS: Final = "at-hand"
Stamp = tuple[int, int, int]
BUCKET_PARTS: Final = 3
"""Parts of the path of a bucket."""


class Placeholder:
    """See `elsewhere.Remote`."""

    def __init__(self, path: Path, place: Path, version: About, head: bytes) -> None:
        self._path, self._place, self._version = path, place, version
        self._ranged = RangedObject(path, version, head)
        self._turn = threading.Lock()
        self.is_whole = False

    @property
    def n_bytes(self) -> int:
        """Size of the real file."""
        return self._version.n_bytes

    def read(self, start: int, stop: int) -> bytes:
        """See `elsewhere.Remote.read`."""
        return self._ranged.read_some(start, stop)

    def read_head(self) -> None:
        """See `RangedObject.read_head`."""
        self._ranged.read_head()

    def fetch(self, most_bytes: int = MOST_WHOLE) -> None:
        """See `elsewhere.Remote.fetch`."""
        with self._turn:
            if self.is_whole:
                return
            if self.n_bytes > most_bytes:
                raise RefusedInput(
                    Reason.TOO_LARGE,
                    f"{self._path.name}: files of this format are read as a whole, and it has "
                    f"{self.n_bytes} bytes; more than {most_bytes} are fetched from a store with --stage",
                )
            place = self._place
            beside = place.with_name(f".{uuid.uuid4().hex}")
            with one_line(f"{place.parent} (the cache; {FOLDER} chooses another)"):
                try:
                    with beside.open("xb") as file:
                        for start in range(0, self.n_bytes, BLOCK):
                            file.write(self._ranged.read(start, min(start + BLOCK, self.n_bytes)))
                    os.utime(beside, ns=(self._version.changed_ns, self._version.changed_ns))
                    beside.replace(place)
                finally:
                    beside.unlink(missing_ok=True)
            self.is_whole = True


@dataclass(slots=True)
class _Laid:
    """A file that is laid out.

    users  so many leases have it
    """

    path: Path
    place: Path
    version: About
    placeholder: Placeholder | None
    sha256: bytes | None
    users: int = 1

    @property
    def n_bytes(self) -> int:
        """What it takes up on the disk."""
        here = self.placeholder is None or self.placeholder.is_whole
        return self.version.n_bytes if here else 0


class _Shelf:
    """The files that this process has laid out."""

    def __init__(self) -> None:
        self._turn = threading.RLock()
        self._laid: dict[Path, _Laid] = {}
        self._unused: OrderedDict[Path, int] = OrderedDict()
        self._root: Path | None = None
        self._lock = -1

    @property
    def root(self) -> Path:
        """The folder of this process."""
        with self._turn:
            if self._root is None:
                self._root = self._new_root()
            return self._root

    def _new_root(self) -> Path:
        above = Cache.of_user().folder / FOLDERS
        with one_line(f"{above} (the cache; {FOLDER} chooses another)"):
            above.mkdir(parents=True, exist_ok=True, mode=0o700)
            root = above / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
            with _without_the_dead(above):
                root.mkdir(mode=0o700)
                self._lock = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
        atexit.register(self.clear)
        return root

    def lay(self, path: Path, stamp: Stamp | None, *, ask: bool = True) -> _Laid:
        """Lay out a file, or have it once more.

        Args:
            path: of the object.
            stamp: of its present version, if that is known.
            ask: whether the store is asked for its first bytes; if not, the stamp must be known.

        Raises:
            FileNotFoundError: it is not there.
            RefusedInput, WhamDataError: it cannot be read.
        """
        if path in self._laid:
            now = stamp or objects.about(path).stamp
            with self._turn:
                if (laid := self._again(path, now)) is not None:
                    return laid
        if stamp is not None and not ask:
            with self._turn:
                return self._again(path, stamp) or self._new(path, About(*stamp), b"")
        most = SMALL if stamp is None or stamp[0] <= SMALL else HEAD
        version, data = objects.start_of(path, most)
        with self._turn:
            return self._again(path, version.stamp) or self._new(path, version, data)

    def _again(self, path: Path, stamp: Stamp) -> _Laid | None:
        """A file that is laid out already, in this version; None: it is not.

        Another version is removed. Whoever has it sees the same as when a file on a disk is replaced.
        """
        laid = self._laid.get(path)
        if laid is None:
            return None
        self._unused.pop(path, None)
        if laid.version.stamp != stamp:
            self._remove(path)
            return None
        laid.users += 1
        return laid

    def _new(self, path: Path, version: About, data: bytes) -> _Laid:
        place = self.here(path)
        is_whole = len(data) == version.n_bytes
        with one_line(f"{place} (the cache; {FOLDER} chooses another)"):
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as file:
                file.write(data) if is_whole else file.truncate(version.n_bytes)
            os.utime(place, ns=(version.changed_ns, version.changed_ns))
        placeholder = None
        if not is_whole:
            placeholder = Placeholder(path, place, version, data)
            elsewhere.put(place, placeholder)
        sha256 = hashlib.sha256(data).digest() if is_whole else None
        laid = self._laid[path] = _Laid(path, place, version, placeholder, sha256)
        return laid

    def give_back(self, files: Iterable[_Laid]) -> None:
        """One lease of each of these has ended."""
        with self._turn:
            for laid in files:
                laid.users -= 1
                if not laid.users and self._laid.get(laid.path) is laid:
                    self._unused[laid.path] = laid.n_bytes
            while len(self._unused) > KEPT_FILES or sum(self._unused.values()) > KEPT_BYTES:
                self._remove(self._unused.popitem(last=False)[0])

    def _remove(self, path: Path) -> None:
        laid = self._laid.pop(path)
        elsewhere.remove(laid.place)
        laid.place.unlink(missing_ok=True)
        with suppress(OSError):  # others lie there
            laid.place.parent.rmdir()

    def known(self, path: Path) -> _Laid | None:
        """A file that is laid out, or was a moment ago."""
        return self._laid.get(path)

    def has(self, place: Path) -> bool:
        """Whether a path is one of files that are laid out, or of their folders."""
        return self._root is not None and place.is_relative_to(self._root)

    def here(self, path: Path) -> Path:
        """Where a file of a store lies when it is laid out."""
        return self.root / path.relative_to("/")

    def clear(self) -> None:
        """Remove everything."""
        with self._turn:
            root, self._root = self._root, None
            for laid in self._laid.values():
                elsewhere.remove(laid.place)
            self._laid.clear()
            self._unused.clear()
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)
            os.close(self._lock)
            with suppress(OSError), _without_the_dead(root.parent):
                pass


_shelf = _Shelf()


def _after_fork() -> None:
    """The files belong to the process that was forked, which removes them."""
    global _shelf
    atexit.unregister(_shelf.clear)
    _shelf = _Shelf()


os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def _without_the_dead(above: Path) -> Iterator[None]:
    """Remove the folders of processes that have ended. In the block no other process does so.

    So nobody takes a folder for a dead one between the moment when it is made and that when it is locked.
    """
    turn = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        for root in above.iterdir():
            _remove_if_dead(root)
        yield
    finally:
        os.close(turn)


def _remove_if_dead(root: Path) -> None:
    """Remove the folder of a process that has ended."""
    with suppress(OSError):
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(root, ignore_errors=True)
        finally:
            os.close(lock)


class LaidOut:
    """Files that stay laid out until this is closed, or nobody has it any more.

    Of very many files, the first bytes are still got while this is used.

    Attributes:
        refused: those that cannot be had, with their reasons.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        stamps: Mapping[Path, Stamp] | None = None,
        optional: Iterable[Path] = (),
        *,
        whole: bool = False,
    ) -> None:
        """Lay out files.

        Args:
            paths: of objects.
            stamps: of the present versions of some of them.
            optional: others, which need not be there.
            whole: fetch all as a whole, whatever their size.

        Raises:
            WhamDataError: the store refuses, or did not answer in time; or the disk is full.
        """
        self.refused: dict[Path, RefusedInput] = {}
        self._shelf = _shelf
        self._held: list[_Laid] = []
        self._heads = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="heads")
        stamps = stamps or {}
        asked = dict.fromkeys((*paths, *optional))
        needed, ask = frozenset(paths), len(paths) <= MANY

        def lay(path: Path) -> RefusedInput | None:
            try:
                laid = self._shelf.lay(path, stamps.get(path), ask=ask)
            except FileNotFoundError:
                return objects.changed(path) if path in needed else None
            except RefusedInput as why:
                return why
            self._held.append(laid)
            return None

        try:
            for path, why in zip(asked, Pool.threads().map(lay, asked), strict=True):
                if why is not None:
                    self.refused[path] = why
            for laid in () if ask else self._held:
                if laid.placeholder is not None:
                    self._heads.submit(laid.placeholder.read_head)
            for laid in self._held if whole else ():
                if laid.placeholder is not None:
                    laid.placeholder.fetch(laid.version.n_bytes)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the files back."""
        self._heads.shutdown(wait=False, cancel_futures=True)
        held, self._held = self._held, []
        self._shelf.give_back(held)

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def here(path: Path) -> Path:
    """Where a file of a store lies while it is laid out."""
    return _shelf.here(path)


def there(path: Path) -> Path:
    """The path in the store of a file that is laid out."""
    return Path("/") / path.relative_to(_shelf.root)


def told_text(text: str) -> str:
    """A text with the names of objects in the place of where they are laid out."""
    root = str(_shelf.root)
    for scheme in OBJECT_STORES:
        text = text.replace(f"{root}/{scheme}:/", f"{scheme}://")
    return text.replace(root, "")


def told_refusal(why: RefusedInput) -> RefusedInput:
    """A refusal that speaks of the objects, not of where they are laid out."""
    counts = {"frames_expected": why.frames_expected, "frames_decoded": why.frames_decoded}
    notes = tuple(map(told_text, why.notes))
    return RefusedInput(why.reason, told_text(why.message), **counts, notes=notes)


def recording_here(recording: Recording) -> Recording:
    """A recording of a store, by the paths at which its files are laid out."""
    return _moved(recording, here)


def recording_there(recording: Recording) -> Recording:
    """The reverse of `recording_here`."""
    facts = asdict(recording.provenance)
    told_facts = {k: None if v is None else told_text(v) for k, v in facts.items()}
    return replace(_moved(recording, there), provenance=Provenance(**told_facts))


def _moved(recording: Recording, place: Callable[[Path], Path]) -> Recording:
    return replace(
        recording,
        path=place(recording.path),
        files=tuple(map(place, recording.files)),
        companions=tuple(map(place, recording.companions)),
        root=None if recording.root is None else place(recording.root),
    )


def at_hand(recording: Recording, *, whole: bool = False) -> tuple[Recording, LaidOut | None]:
    """A recording whose files can be opened: itself, or one of a store with its files laid out.

    Args:
        recording: a recording.
        whole: see `LaidOut`.

    Returns:
        The recording, and what has to live for as long as it is used.

    Raises:
        RefusedInput: a file is not there any more, or cannot be had.
        WhamDataError: as `LaidOut`.
    """
    if not is_in_store(recording.path):
        return recording, None
    beside = {path for file in recording.files for path in accounts_beside(file)}
    accounts = sorted(path for path in beside if len(path.parts) > BUCKET_PARTS)
    files = LaidOut(recording.files, optional=accounts, whole=whole)
    for why in files.refused.values():
        files.close()
        raise why
    return recording_here(recording), files


def all_at_hand(source: Path) -> tuple[Path, LaidOut | None]:
    """A file or folder that can be opened: itself, or one of a store with all that is below it.

    The files of a store are fetched whole, so other processes of this machine can open them too.

    Args:
        source: of `schemas.paths.source_path`.

    Returns:
        Where it is, and what has to live for as long as it is used.

    Raises:
        FileNotFoundError: there is nothing of this name in the store.
        RefusedInput, WhamDataError: as `at_hand`.
    """
    if not is_in_store(source):
        return source, None
    files = [source] if is_file(source) else [p for p, why in walk(source) if why is None]
    if not files:
        raise FileNotFoundError(told(source))
    laid_out = LaidOut(files, whole=True)
    for why in laid_out.refused.values():
        raise why
    return here(source), laid_out


def version_of(path: Path) -> tuple[About, bytes | None]:
    """The version of an object, as it was laid out a moment ago if it was, and SHA-256 if that is known.

    Raises:
        FileNotFoundError, WhamDataError: as `objects.about`.
    """
    laid = _shelf.known(path)
    return (objects.about(path), None) if laid is None else (laid.version, laid.sha256)


def name_of(path: Path) -> str:
    """How a path is told, also of a file that is laid out."""
    return told(there(path)) if _shelf.has(path) else told(path)
