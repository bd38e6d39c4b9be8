"""Claims: several commands work into one folder, and each piece of work is done by one of them.

A claim is a small file in that folder, `.claim-KEY`, made only if there is none. It names the process
that holds it, and it is removed when the piece is done. While it is held its time of change is
renewed every `BEAT_SECONDS`.

A holder that was killed leaves its claim. That it is dead is known

    on the same machine   for certain: no process has its number, or one that started at another time
    elsewhere             by its silence: whoever waits has seen the time of change stay the same for
                          `SILENT_SECONDS` of its own clock. Clocks of machines are not compared

The dead holder's claim is not removed but followed by another one, whose name ends in the hash of the
first: only one process can make that file. So nobody removes a claim that somebody has just made.

A process elsewhere that was suspended for longer than `SILENT_SECONDS` may go on after its claim was taken
over. So the work must be such that doing it twice gives the same files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from wham_data.corpus.storage.locations import open_storage
from wham_data.schemas.corpus_info import parse_json
from wham_data.schemas.errors import UsageError

PREFIX: Final = ".claim-"
BEAT_SECONDS: Final = 10.0
SILENT_SECONDS: Final = 150.0
"""More than a file system on a network keeps a file's times, which is a minute at most by default."""
MOST_BYTES: Final = 4096
MOST_FOLLOWERS: Final = 1000
WHOLE: Final = "."
ENDED: Final = ("Z", "X")
STATE, BEGUN = 0, 19
"""Columns of /proc/PID/stat after the name; see `man proc_pid_stat`."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds claims.

    machine  the boot of the machine and the namespace of `pid`; "": not known
    host     its name, for messages
    begun    when the process started, in ticks since the boot; "": not known
    """

    machine: str
    host: str
    pid: int
    begun: str

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        return cls(_machine(), socket.gethostname(), os.getpid(), _column(os.getpid(), BEGUN))

    @property
    def is_near(self) -> bool:
        """Whether it is a process of this machine."""
        return bool(self.machine) and self.machine == _machine()

    @property
    def is_dead(self) -> bool:
        """Whether it is known to have ended, which can be known only on its own machine."""
        if not self.is_near:
            return False
        if self.pid < 1:
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass  # it belongs to somebody else
        begun, state = _column(self.pid, BEGUN), _column(self.pid, STATE)
        return state in ENDED or bool(begun and self.begun and begun != self.begun)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


UNREADABLE: Final = Holder("", "an unknown machine", 0, "")


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim as it is on the disk.

    mark     hash of its content, which no other claim has
    renewed  its time of change, nanoseconds
    """

    path: Path
    mark: str
    holder: Holder
    renewed: int


class Claims:
    """The claims on the pieces of work in a folder.

    Args:
        folder: where all commands work. It is made when the first claim is.
        dead: marks of claims whose holders have been found dead by their silence.
        beat_seconds: between two signs of life.
        silent_seconds: after how long a holder elsewhere counts as dead.
        clock: seconds, from any beginning.
    """

    def __init__(
        self,
        folder: Path,
        dead: Iterable[str] = (),
        *,
        beat_seconds: float = BEAT_SECONDS,
        silent_seconds: float = SILENT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._beat_seconds = beat_seconds
        self._silent_seconds = silent_seconds
        self._clock = clock
        self._dead = set(dead)
        self._seen: dict[str, tuple[int, float]] = {}

    @property
    def dead(self) -> frozenset[str]:
        """Marks of claims whose holders have been found dead by their silence, for other processes."""
        return frozenset(self._dead)

    def holder(self, name: str) -> Holder | None:
        """Who holds the claim on a piece; None: nobody who is alive.

        To find out whether a holder elsewhere is alive, call this again and again.
        """
        chain = self._chain(name)
        return None if not chain or self._is_dead(chain[-1]) else chain[-1].holder

    def files(self, name: str) -> list[Path]:
        """The files of the claims on a piece; the last one counts."""
        return [claim.path for claim in self._chain(name)] or [self._first(name)]

    @contextlib.contextmanager
    def taken(self, names: Iterable[str]) -> Iterator[frozenset[str]]:
        """Hold claims on these pieces in the block.

        Yields:
            The names of those that could be claimed. Whether such a piece is done already must be
            looked at in the block, for somebody may have had the claim a moment ago.
        """
        held: dict[str, list[Claim]] = {}
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self._beat_seconds):
                for chain in held.values():
                    with contextlib.suppress(OSError):
                        os.utime(chain[-1].path)

        beats = threading.Thread(target=beat, name="claims", daemon=True)
        try:
            for name in names:
                if chain := self._take(name):
                    held[name] = chain
            beats.start()
            yield frozenset(held)
        finally:
            over.set()
            for name, chain in held.items():
                self._release(name, chain)

    def _take(self, name: str) -> list[Claim]:
        """Claim a piece. Returns the claims on it, the new one last; none: somebody else holds it."""
        chain = self._chain(name)
        if chain and not self._is_dead(chain[-1]):
            return []
        place = _follower(chain[-1]) if chain else self._first(name)
        about = {**asdict(Holder.here()), "piece": name[:200], "nonce": uuid.uuid4().hex}
        content = json.dumps(about).encode()
        if not open_storage(self._folder).put_if_absent(place.name, content):
            return []
        return [*chain, Claim(place, _mark(content), Holder.here(), 0)]

    def _release(self, name: str, chain: list[Claim]) -> None:
        """Remove the claims on a piece, unless somebody has taken it over from this process."""
        now = self._chain(name)
        if now and now[-1].mark == chain[-1].mark:
            for claim in now:
                claim.path.unlink(missing_ok=True)

    def _first(self, name: str) -> Path:
        key = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self._folder / f"{PREFIX}{key}"

    def _chain(self, name: str) -> list[Claim]:
        """The claims on a piece: the first, and those that followed dead ones. The last one counts."""
        chain: list[Claim] = []
        path = self._first(name)
        while len(chain) < MOST_FOLLOWERS and (claim := _read(path)) is not None:
            chain.append(claim)
            path = _follower(claim)
        return chain

    def _is_dead(self, claim: Claim) -> bool:
        if claim.mark in self._dead or claim.holder.is_dead:
            return True
        if claim.holder.is_near:
            return False
        now = self._clock()
        renewed, since = self._seen.get(claim.mark, (claim.renewed, now))
        if renewed != claim.renewed:
            since = now
        self._seen[claim.mark] = claim.renewed, since
        if now - since < self._silent_seconds:
            return False
        self._dead.add(claim.mark)
        return True


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a whole folder in the block, for work that cannot be shared.

    Raises:
        UsageError: another process holds it, or one elsewhere did and it is not known whether it lives.
    """
    claims = Claims(folder)
    with claims.taken([WHOLE]) as held:
        if not held:
            *_, last = claims.files(WHOLE)
            raise UsageError(
                f"{folder}: another command works into this folder ({claims.holder(WHOLE)}). Use another "
                f"--out, or wait for its end. If it was killed on another machine, remove {last}"
            )
        yield


def _read(path: Path) -> Claim | None:
    """The claim in a file; None if there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES)
            renewed = os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
    holder = UNREADABLE
    with contextlib.suppress(UsageError):
        match parse_json(content):
            case {
                "machine": str(machine),
                "host": str(host),
                "pid": int(pid),
                "begun": str(begun),
            }:
                holder = Holder(machine, host, pid, begun)
    return Claim(path, _mark(content), holder, renewed)


def _mark(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _follower(claim: Claim) -> Path:
    """The claim that takes over from a dead one."""
    first = claim.path.name[: len(PREFIX) + 32]
    return claim.path.with_name(f"{first}-{claim.mark}")


def _machine() -> str:
    """The boot of this machine, and the namespace in which process numbers are meant."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _column(pid: int, column: int) -> str:
    """A column of /proc/PID/stat; "" if it cannot be read."""
    try:
        row = Path(f"/proc/{pid}/stat").read_text("latin-1")
        return row.rpartition(")")[2].split()[column]
    except (OSError, IndexError):
        return ""
