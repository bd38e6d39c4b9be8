"""Sort the inputs of a run, one by one as they are found: what each is, seen against a corpus.

Of what the corpus has, only a hash and a name are kept in memory.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wham_data.corpus.splits import SplitBy, Ties
from wham_data.corpus.tombstones import Forgotten
from wham_data.pipelines.ingest.intake.counts import Counts
from wham_data.pipelines.ingest.intake.identity import (
    FileHash,
    Identities,
    Unreadable,
    content_of,
)
from wham_data.pipelines.ingest.intake.inputs import (
    Copy,
    Found,
    LeftOut,
    Refusal,
    SetAside,
    Sorted,
)
from wham_data.pipelines.ingest.intake.known_inputs import KeySet
from wham_data.pipelines.ingest.intake.known_units import KnownUnits
from wham_data.pipelines.ingest.pseudonyms import Naming
from wham_data.pipelines.readers.kit.looked_at import ending_of
from wham_data.pipelines.readers.kit.units import FoundInUnit, Unit
from wham_data.schemas.errors import RefusedInput
from wham_data.schemas.paths import told
from wham_data.schemas.recording import Recording

NO_KEYS = KeySet(())


@dataclass(frozen=True, slots=True)
class Against:
    """What inputs are seen against.

    there      recordings that the corpus has
    refused    recordings that an earlier run refused, which are not tried again
    forgotten  what must stay out, should it not be in
    naming     how the corpus names players
    split_by   what ties recordings
    """

    there: KeySet = NO_KEYS
    refused: KeySet = NO_KEYS
    forgotten: Forgotten = Forgotten()  # noqa: RUF009  frozen
    naming: Naming = Naming()  # noqa: RUF009  frozen
    split_by: SplitBy = "player"


@dataclass(frozen=True, slots=True)
class PackedUnit:
    """A unit that is hardly ever looked at again, in little memory."""

    folder: Path
    names: bytes

    @classmethod
    def of(cls, unit: Unit) -> PackedUnit:
        """Pack a unit."""
        return cls(unit.folder, zlib.compress(os.fsencode("\0".join(unit.names)), 1))

    def unit(self) -> Unit:
        """The unit, as far as it is needed to look into it."""
        return Unit(self.folder, tuple(os.fsdecode(zlib.decompress(self.names)).split("\0")))


class Sorting:
    """Sorts the inputs of one run.

    Attributes:
        counts: of the inputs so far.
        seen: key of each recording so far -> its source, or the unit in which it is.
        ties: of each recording that is not in the corpus.
        out: keys of those that will not get into it.
        players: names of all players so far.
        endings: count of files that belong to no recording, by `ending_of`.
    """

    def __init__(self, identities: Identities, against: Against, units: KnownUnits | None) -> None:
        """Sort inputs.

        Args:
            identities: gives recordings their identity.
            against: what they are seen against.
            units: what earlier runs found in units, and what the next shall know; None: nothing.
        """
        self.counts = Counts()
        self.seen: dict[bytes, str | PackedUnit] = {}
        self.ties: list[Ties] = []
        self.out: list[str] = []
        self.players: set[str] = set()
        self.endings: Counter[str] = Counter()
        self._identities = identities
        self._against = against
        self._units = units
        self._elsewhere: set[Path] = set()
        self._ignored: set[int] = set()
        self._refused: dict[Path, RefusedInput] = {}
        self._left_out: set[bytes] = set()
        self._in_unit: list[Found | None] = []

    def run(self, found: Iterable[Recording | FoundInUnit]) -> Iterator[Sorted]:
        """Sort everything that was found, in its order. Files that are refused come at the end."""
        for each in self._identities.of_all(found):
            yield from self._sorted(each)
        for path in sorted(self._refused.keys() - self._elsewhere):
            self.counts.refused += 1
            read = self._identities.file(path)
            key = content_of([read]) if isinstance(read, FileHash) else ""
            yield Refusal(told(path), key, "find", self._refused[path])
        for path in self._elsewhere:
            if hash(path) in self._ignored:
                self.endings[ending_of(path)] -= 1

    def _sorted(self, each: Found | Unreadable | FoundInUnit) -> Iterator[Sorted]:
        if isinstance(each, Found):
            self._in_unit.append(each)
            yield from self._recording(each)
        elif isinstance(each, Unreadable):
            self._in_unit.append(None)
            self.counts.refused += 1
            recording = each.recording
            player = recording.provenance.player
            yield Refusal(recording.source, "", "find", each.why, player)
        elif self._units is not None and each.keys and not self.seen.keys().isdisjoint(each.keys):
            for again in self._units.look(each.unit):  # copies are told by their names
                known = self._identities.of(again) if isinstance(again, Recording) else again
                yield from self._sorted(known)
        elif each.keys:
            self._known_unit(each)
        else:
            self._unit(each)

    def _recording(self, found: Found) -> Iterator[Sorted]:
        counts, against, key = self.counts, self._against, bytes.fromhex(found.key)
        recording = found.recording
        source, player = recording.source, recording.provenance.player
        if player is not None:
            self.players.add(player)
        counts.hashed += found.hashed
        counts.known += not found.hashed
        first = self.seen.setdefault(key, source)
        there = key in against.there
        aside = not there and key in against.refused and key not in self._left_out
        if first is not source and not aside:
            counts.copies += 1
            yield Copy(source, player, found.key, self._name_of(first, key))
            return
        if there:
            counts.already += 1
            return
        if first is source:
            ties = against.naming.ties(found)
            self.ties.append(against.naming.tied_by(against.split_by, found))
            if (kind := against.forgotten.blocks(ties)) is not None:
                counts.forgotten += 1
                self._left_out.add(key)
                self.out.append(found.key)
                yield LeftOut(source, kind)
                return
        if aside:
            counts.in_quarantine += 1
            self.out.append(found.key)
            yield SetAside(source, player, found.key)
        else:
            counts.to_do += 1
            counts.bytes_to_do += found.bytes
            yield found

    def _known_unit(self, unit: FoundInUnit) -> None:
        """A unit of which the corpus has every recording."""
        packed = PackedUnit.of(unit.unit)
        self.seen.update(dict.fromkeys(unit.keys, packed))
        self.counts.already += len(unit.keys)
        self.counts.known += len(unit.keys)
        self.endings.update({"": len(unit.unit.names) - unit.n_files})

    def _unit(self, unit: FoundInUnit) -> None:
        """What is left of a unit after its recordings."""
        if self._units is not None:
            self._units.note(unit, self._in_unit)
        self._in_unit.clear()
        self._elsewhere |= unit.elsewhere
        self._refused.update(unit.refused)
        self._ignored.update(map(hash, unit.ignored))
        self.endings.update(map(ending_of, unit.ignored))

    def _name_of(self, first: str | PackedUnit, key: bytes) -> str:
        """The source of a recording that was seen before."""
        if isinstance(first, str):
            return first
        for each in self._units.look(first.unit()) if self._units else ():
            if isinstance(each, Recording):
                found = self._identities.of(each)
                if isinstance(found, Found) and found.key == key.hex():
                    return each.source
        return told(first.folder)
