"""What an export leaves on disk, and how it is known what of it is there.

    OUT/...                  what the format asks for
    OUT/LICENCES.txt         each licence, and the sources it holds for
    OUT/episodes.jsonl       where each episode lies and where it comes from
    OUT/export.json          what all of it agrees on
    OUT/.export/<part>.json  what became of a part; written last
    OUT/.export/making/...   what is being written, a folder for each part; renamed into place file by file

A part whose record is there is done. A file under its own name is whole.
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
from wham_data.files.whole import put_in_place, read_object
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
    """What became of a part.

    identity  of what went into it
    failed    its episodes that are not in it
    """

    identity: str
    written: Written
    failed: tuple[Failed, ...] = ()


class ExportFolder:
    """OUT, to which one process at a time writes.

    Attributes:
        root: its path; made when `opened` is entered.
    """

    def __init__(self, root: Path) -> None:
        """Look at a folder; nothing is made."""
        self.root = root
        self._notes = root / RECORDS

    @contextmanager
    def opened(self, agreed: Mapping[str, object]) -> Iterator[None]:
        """Have the folder to oneself; what a run that was killed left half-made is removed.

        Args:
            agreed: plain values that all that is written to it has to agree on.

        Raises:
            UsageError: another process is writing to it, or it holds something else.
            MismatchError: what is in it was made with other settings; the line lists them.
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
        """What an earlier run made of a part; None if it is not done.

        Raises:
            MismatchError: it was made of something else.
        """
        record = _record_of(read_object(self._notes / f"{part.name}.json", MOST_JSON_BYTES))
        if record is not None and record.identity != part.identity:
            raise MismatchError(
                f"{self.root}: {part.name} was made of other episodes than the corpus has now. "
                "Use another --out"
            )
        return record

    def check_only(self, parts: Iterable[Part]) -> None:
        """See that nothing is in the folder but what these parts become.

        Raises:
            MismatchError: something is, which the files that describe the export would not name.
        """
        there = {path.stem for path in self._notes.glob("*.json")}
        if others := sorted(there - {part.name for part in parts}):
            raise MismatchError(
                f"{self.root}: holds {others[0]}, which this run would leave out. Give --split and "
                "--episodes as before, or wider; or use another --out"
            )

    def staging(self, name: str) -> Path:
        """Where the files of a part are written before they are published; not made yet."""
        return self._notes / MAKING / name

    def publish(self, staged: Path) -> tuple[tuple[str, ...], int]:
        """Put the files of a folder in place; what is there gives way. Their names, and their bytes."""
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
        changed = [
            f"{name}: {noted.get(name)}, not {agreed.get(name)}"
            for name in sorted({*noted, *agreed})
            if noted.get(name) != agreed.get(name)
        ]
        if changed:
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
