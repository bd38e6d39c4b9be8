"""The inputs of a run: searched, hashed and sorted in a thread, while those found first are ingested.

    search     folder by folder         readers/kit/units.py
    identify   hash, or look up         identity.py, known_inputs.py
    sort       new, known, a copy, ...  sorting.py
    wait       until a worker is free   backlog.py

The search is not held up by the work: the splits of players need to know every recording. What waits is
packed, and of what the corpus has, only its hash and its name are kept.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from wham_data.pipelines.ingest.intake.backlog import Backlog
from wham_data.pipelines.ingest.intake.counts import Counts
from wham_data.pipelines.ingest.intake.identity import FileHash, Identities
from wham_data.pipelines.ingest.intake.inputs import Found, Sorted
from wham_data.pipelines.ingest.intake.known_inputs import KnownInputs
from wham_data.pipelines.ingest.intake.known_units import KnownUnits
from wham_data.pipelines.ingest.intake.sorting import Against, Sorting
from wham_data.pipelines.readers.kit.units import FoundInUnit
from wham_data.pipelines.run.errands import Errands
from wham_data.schemas.errors import RefusedInput
from wham_data.schemas.recording import Recording

SETTLED_SECONDS: Final = 0.3
"""So long a run waits before it starts, for then most small ones know all of their inputs."""
LAST_SECONDS: Final = 1.0
"""So long a run that breaks off goes on searching, to tell how much it has not reached."""
LONGEST_END_SECONDS: Final = 5.0
"""So long it is waited for a search that has to end; it looks up between two units."""
POLL_SECONDS: Final = 0.5


class Intake:
    """The inputs of a run. Iterating gives those that are to be ingested, in the order of their paths.

    Attributes:
        sorting: what was found so far.
    """

    def __init__(
        self,
        found: Iterable[Recording | FoundInUnit],
        against: Against,
        known: KnownInputs,
        units: KnownUnits | None,
    ) -> None:
        """Begin to search.

        Args:
            found: the search.
            against: what inputs are seen against.
            known: hashes that earlier runs have noted. Those of this run are noted, and saved.
            units: see `Sorting`.
        """
        self._found = found
        self._known = known
        self._identities = Identities(known)
        self.sorting = Sorting(self._identities, against, units)
        self._backlog = Backlog()
        self._events: deque[Sorted] = deque()
        self._given = 0
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._first = threading.Event()
        self.heed: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._search, name="search", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> Counts:
        """How many inputs of each kind were found so far."""
        return self.sorting.counts

    @property
    def ended(self) -> bool:
        """Whether every input is found, and everything about them was handed out by `events`."""
        return self._ended.is_set() and not self._events and self._error is None

    def events(self) -> Iterator[Sorted]:
        """What came of inputs that are not to be ingested, since the last call."""
        while self._events:
            yield self._events.popleft()

    def settle(self) -> bool:
        """Wait for the first input, and then a little for the last.

        Returns:
            Whether there is any input.
        """
        while not (self._first.wait(POLL_SECONDS) or self._ended.is_set()):
            pass
        self._ended.wait(SETTLED_SECONDS)
        if self._error is not None:
            raise self._error
        return self.counts.found > 0

    def __iter__(self) -> Iterator[Found]:
        """The recordings to ingest. `heed` is called while there is none yet."""
        while True:
            found = self._backlog.take(POLL_SECONDS)
            if found is not None:
                self._given += 1
                yield found
            elif self._error is not None:
                raise self._error
            elif self._stopped.is_set() or (self._ended.is_set() and self._backlog.is_empty):
                return
            self.heed()

    @property
    def left(self) -> int:
        """See `Growing`."""
        return self.counts.to_do - self._given

    @property
    def all_known(self) -> bool:
        """See `Growing`."""
        return self._ended.is_set()

    @property
    def errands(self) -> Errands[Path, FileHash | RefusedInput]:
        """See `Growing`."""
        return self._identities.errands

    def first_files(self) -> list[Path]:
        """The files of the first recordings that wait."""
        return [path for found in self._backlog.first() for path in found.recording.files]

    def close(self, *, broken_off: bool) -> None:
        """Search no more, and save what is known of the inputs.

        Args:
            broken_off: the run ends early. The search then goes on for a moment.
        """
        self._ended.wait(LAST_SECONDS if broken_off else None)
        self._stopped.set()
        self._identities.close()
        self._thread.join(LONGEST_END_SECONDS)
        self._known.save()

    def _search(self) -> None:
        try:
            for each in self.sorting.run(self._until_stopped()):
                if isinstance(each, Found):
                    self._backlog.put(each)
                else:
                    self._events.append(each)
                self._first.set()
                self._known.save_if_due()
        except BaseException as error:
            if not self._stopped.is_set():
                self._error = error
        finally:
            if not self._stopped.is_set():
                self._ended.set()
            self._backlog.end()
            self._first.set()

    def _until_stopped(self) -> Iterator[Recording | FoundInUnit]:
        for each in self._found:
            if self._stopped.is_set():
                return
            yield each
            if self.counts.already:
                self._first.set()
