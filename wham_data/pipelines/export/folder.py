"""The folder of an export, and the records of its finished parts.

    OUT/...                  the files of the format
    OUT/LICENCES.txt         each licence, and the sources under it
    OUT/episodes.jsonl       the files and the source of each episode
    OUT/export.json          the settings that all parts share
    OUT/.export/<part>.json  the record of a finished part; written last
    OUT/.export/making/...   unfinished files, a folder for each part; later renamed file by file

A part is finished when its record exists. A file under its final name is always complete.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from wham_data.corpus.storage.contract import one_line
from wham_data.corpus.storage.locations import open_storage
from wham_data.files.whole import differences, put_in_place, read_object
from wham_data.pipelines.run.progress import Failed
from wham_data.pipelines.writers.parts import Part, Place, Written
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
        self.root = root
        self._notes = root / RECORDS

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
        with one_line(self.root):
            self._notes.mkdir(parents=True, exist_ok=True)
            with (self._notes / "lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UsageError(f"{self.root}: another export is writing to it") from None
                shutil.rmtree(self._notes / MAKING, ignore_errors=True)
                self._agree(agreed)
                try:
                    yield
                finally:
                    shutil.rmtree(self._notes / MAKING, ignore_errors=True)

    def record_of(self, part: Part) -> PartRecord | None:
        """The record of a part from an earlier run; None if the part is not finished.

        Raises:
            MismatchError: the part was made from other episodes.
        """
        record = _record_of(read_object(self._notes / f"{part.name}.json", MOST_JSON_BYTES))
        if record is not None and record.identity != part.identity:
            raise MismatchError(
                f"{self.root}: {part.name} was made of other episodes than the corpus has now. "
                "Use another --out"
            )
        return record

    def check_only(self, parts: Iterable[Part]) -> None:
        """Check that the folder holds no parts other than these.

        Raises:
            MismatchError: there is another part, which the files that describe the export would omit.
        """
        there = {path.stem for path in self._notes.glob("*.json")}
        if others := sorted(there - {part.name for part in parts}):
            raise MismatchError(
                f"{self.root}: holds {others[0]}, which this run would leave out. Give --split and "
                "--episodes as before, or wider; or use another --out"
            )

    def staging(self, name: str) -> Path:
        """The folder in which the files of a part are written before they are published."""
        return self._notes / MAKING / name

    def publish(self, staged: Path) -> tuple[tuple[str, ...], int]:
        """Move the files of a folder to their final names; existing files are replaced.

        Returns:
            Their names, and their size in bytes.
        """
        files = sorted(path for path in staged.rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in files)
        with one_line(self.root):
            for path in files:
                put_in_place(path, self.root / path.relative_to(staged))
        names = tuple(str(path.relative_to(staged)) for path in files)
        shutil.rmtree(staged, ignore_errors=True)
        return names, size

    def note(self, record: PartRecord) -> None:
        """Write the record of a part whose files are in place."""
        text = json.dumps(asdict(record), ensure_ascii=False, allow_nan=False)
        name = f"{RECORDS}/{record.written.name}.json"
        open_storage(self.root).replace(name, text.encode("utf-8", "backslashreplace"))

    def describe(self, licences: str, episodes: Iterator[Mapping[str, object]]) -> None:
        """Write `LICENCES.txt` and `episodes.jsonl`."""
        storage = open_storage(self.root)
        storage.replace(LICENCES, licences.encode("utf-8", "backslashreplace"))
        lines = (json.dumps(dict(each), ensure_ascii=False) + "\n" for each in episodes)
        storage.replace(EPISODES, "".join(lines).encode("utf-8", "backslashreplace"))

    def _check_ours(self) -> None:
        if not self.root.exists():
            return
        if not self.root.is_dir():
            raise UsageError(f"--out {self.root}: a file, expected a folder")
        others = [path.name for path in self.root.iterdir() if path.name != RECORDS]
        if others and not (self.root / AGREED).is_file():
            raise UsageError(
                f"--out {self.root}: holds {printable(others[0])[:80]} and no export. "
                "Use an empty or new folder"
            )

    def _agree(self, agreed: Mapping[str, object]) -> None:
        if not (self.root / AGREED).is_file():
            text = json.dumps(agreed, indent=2, ensure_ascii=False) + "\n"
            open_storage(self.root).put_if_absent(AGREED, text.encode("utf-8", "backslashreplace"))
        noted = read_object(self.root / AGREED, MOST_JSON_BYTES)
        if noted is None:
            raise IntegrityError(f"{self.root / AGREED}: damaged. Use another --out")
        if changed := differences(noted, agreed):
            raise MismatchError(
                f"{self.root}: holds an export with other settings ({'; '.join(changed)[:600]}). "
                "Use the same settings, or another --out"
            )


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
