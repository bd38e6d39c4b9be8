"""The folder of an export, and the records of its finished parts.

    OUT/...                  the files of the format
    OUT/LICENCES.txt         each licence, and the sources under it
    OUT/episodes.jsonl       the files and the source of each episode
    OUT/export.json          the settings that all parts share
    OUT/.export/<part>.json  the record of a finished part; written last
    OUT/.export/making/...   unfinished files, a folder for each part; later renamed file by file

A part is finished when its record exists. A file under its final name is always complete. OUT may be
on an object store: then unfinished files are in a temporary folder on this machine.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from wham_data.corpus.storage.contract import hash_file, one_line
from wham_data.corpus.storage.locations import open_storage
from wham_data.corpus.storage.object_store import ObjectStorage
from wham_data.files.whole import differences, put_in_place
from wham_data.pipelines.run.progress import Failed
from wham_data.pipelines.writers.parts import Part, Place, Written
from wham_data.schemas.corpus_info import parse_json
from wham_data.schemas.errors import IntegrityError, MismatchError, UsageError, printable

AGREED: Final = "export.json"
LICENCES: Final = "LICENCES.txt"
EPISODES: Final = "episodes.jsonl"
RECORDS: Final = ".export"
MAKING: Final = "making"
MOST_JSON_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class PartRecord:
    """The record of a finished part.

    identity  the identity of its content, see `Part.identity`
    failed    its episodes that could not be written
    """

    identity: str
    written: Written
    failed: tuple[Failed, ...] = ()


class ExportFolder:
    """The folder OUT. Only one process at a time writes to it.

    Attributes:
        root: its path; made when `opened` is entered.
    """

    def __init__(self, root: Path) -> None:
        """Use a folder. Nothing is written yet."""
        self.root: Path | str = root
        self._storage = open_storage(root)
        self._making = root / RECORDS / MAKING

    @contextmanager
    def opened(self, agreed: Mapping[str, object]) -> Iterator[None]:
        """Lock the folder for this process, and remove unfinished files of a run that was killed.

        Args:
            agreed: the settings that all parts in the folder must share, as plain values.

        Raises:
            UsageError: another process is writing to it, or it holds other files.
            MismatchError: its export was made with other settings. The message lists them.
        """
        self._check_ours()
        with self._locked():
            shutil.rmtree(self._making, ignore_errors=True)
            self._agree(agreed)
            try:
                yield
            finally:
                shutil.rmtree(self._making, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        notes = self._making.parent
        with one_line(self._making):
            notes.mkdir(parents=True, exist_ok=True)
            with (notes / "lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UsageError(f"{self.root}: another export is writing to it") from None
                yield

    def record_of(self, part: Part) -> PartRecord | None:
        """The record of a part from an earlier run; None if the part is not finished.

        Raises:
            MismatchError: the part was made from other episodes.
        """
        record = _record_of(self._read(f"{RECORDS}/{part.name}.json"))
        if record is not None and record.identity != part.identity:
            raise MismatchError(
                f"{self.root}: {part.name} was made of other episodes or captions than the corpus has now. "
                "Use another --out"
            )
        return record

    def check_only(self, parts: Iterable[Part]) -> None:
        """Check that the folder holds no parts other than these.

        Raises:
            MismatchError: there is another part, which the files that describe the export would omit.
        """
        names = self._storage.list(RECORDS)
        there = {name.removesuffix(".json") for name in names if name.endswith(".json")}
        if others := sorted(there - {part.name for part in parts}):
            raise MismatchError(
                f"{self.root}: holds {others[0]}, which this run would leave out. Give --split and "
                "--episodes as before, or wider; or use another --out"
            )

    def staging(self, name: str) -> Path:
        """The folder in which the files of a part are written before they are published."""
        return self._making / name

    def publish(self, staged: Path) -> tuple[tuple[str, ...], int]:
        """Move the files of a folder to their final names; existing files are replaced.

        Returns:
            Their names, and their size in bytes.
        """
        files = sorted(path for path in staged.rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in files)
        names = tuple(str(path.relative_to(staged)) for path in files)
        for path, name in zip(files, names, strict=True):
            self._put(path, name)
        shutil.rmtree(staged, ignore_errors=True)
        return names, size

    def note(self, record: PartRecord) -> None:
        """Write the record of a part whose files are in place."""
        text = json.dumps(asdict(record), ensure_ascii=False, allow_nan=False)
        name = f"{RECORDS}/{record.written.name}.json"
        self._storage.replace(name, text.encode("utf-8", "backslashreplace"))

    def describe(self, licences: str, episodes: Iterator[Mapping[str, object]]) -> None:
        """Write `LICENCES.txt` and `episodes.jsonl`."""
        self._storage.replace(LICENCES, licences.encode("utf-8", "backslashreplace"))
        lines = (json.dumps(dict(each), ensure_ascii=False) + "\n" for each in episodes)
        self._storage.replace(EPISODES, "".join(lines).encode("utf-8", "backslashreplace"))

    def _put(self, path: Path, name: str) -> None:
        """Move a complete file to its final name; an existing file is replaced."""
        with one_line(str(self.root)):
            put_in_place(path, Path(self.root) / name)

    def _read(self, name: str) -> dict[str, Any] | None:
        """The JSON object in a file; None if the file is missing, damaged or holds no object."""
        try:
            found = parse_json(self._storage.read(name, MOST_JSON_BYTES))
        except (FileNotFoundError, IntegrityError, UsageError):
            return None
        return found if isinstance(found, dict) else None

    def _names(self) -> list[str]:
        """The names of files and folders in OUT."""
        root = Path(self.root)
        if root.exists() and not root.is_dir():
            raise UsageError(f"--out {root}: a file, expected a folder")
        return [path.name for path in root.iterdir()] if root.exists() else []

    def _check_ours(self) -> None:
        names = self._names()
        others = [name for name in names if name != RECORDS]
        if others and AGREED not in names:
            raise UsageError(
                f"--out {self.root}: holds {printable(others[0])[:80]} and no export. "
                "Use an empty or new folder"
            )

    def _agree(self, agreed: Mapping[str, object]) -> None:
        if not self._storage.exists(AGREED):
            text = json.dumps(agreed, indent=2, ensure_ascii=False) + "\n"
            self._storage.put_if_absent(AGREED, text.encode("utf-8", "backslashreplace"))
        noted = self._read(AGREED)
        if noted is None:
            raise IntegrityError(f"{self._storage.where(AGREED)}: damaged. Use another --out")
        if changed := differences(noted, agreed):
            raise MismatchError(
                f"{self.root}: holds an export with other settings ({'; '.join(changed)[:600]}). "
                "Use the same settings, or another --out"
            )


class ExportStore(ExportFolder):
    """OUT on an object store.

    No lock keeps two runs apart. They do no harm: the first one writes `export.json`, a run with other
    settings is refused, and runs with the same settings write the same bytes.
    """

    def __init__(self, store: ObjectStorage, folder: Path) -> None:
        """Use a place on a store. Nothing is written yet.

        Args:
            store: the place.
            folder: for unfinished files, on this machine.
        """
        self._store = store
        self._storage = store
        self.root = store.location
        self._making = folder / MAKING

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._store.exists(AGREED):
            self._store.probe()
        yield

    def _names(self) -> list[str]:
        return [*self._store.list(""), *self._store.folders("")]

    def _put(self, path: Path, name: str) -> None:
        if not path.stat().st_size:
            self._storage.replace(name, b"")
            return
        while not self._storage.publish(path, name):
            if self._storage.sha256(name) == hash_file(path):
                return
            self._storage.delete(name)


@contextmanager
def export_folder(out: str) -> Iterator[ExportFolder]:
    """The folder OUT, or its place on an object store."""
    storage = open_storage(out)
    if not isinstance(storage, ObjectStorage):
        yield ExportFolder(Path(storage.location))
        return
    with tempfile.TemporaryDirectory(prefix="wham-data-") as folder:
        yield ExportStore(storage, Path(folder))


def _record_of(found: Mapping[str, Any] | None) -> PartRecord | None:
    """The record that `note` wrote; None for anything else."""
    try:
        if found is None:
            return None
        written = dict(found["written"])
        for name in ("episodes", "steps", "files"):
            written[name] = tuple(written[name])
        place = Place(**written.pop("place"))
        failed = tuple(Failed(**each) for each in found["failed"])
        return PartRecord(found["identity"], Written(place=place, **written), failed)
    except (KeyError, TypeError, ValueError):
        return None
