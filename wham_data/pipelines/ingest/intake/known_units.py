"""Units of which an earlier run knew every recording, so that nobody has to look into them again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from wham_data.pipelines.ingest.intake.inputs import Found
from wham_data.pipelines.ingest.intake.known_inputs import FileStamp, KeySet, KnownInputs
from wham_data.pipelines.ingest.pseudonyms import Naming
from wham_data.pipelines.readers import SourceSearch
from wham_data.pipelines.readers.kit.units import FoundInUnit, Unit
from wham_data.schemas.corpus_info import canonical_json
from wham_data.schemas.paths import is_in_store
from wham_data.schemas.recording import Recording
from wham_data.versions import versions

LOOKS: Final = 1
"""To be raised when a reader of this release finds other recordings in the same files."""


class KnownUnits:
    """The hints on units: what is in them.

    Args:
        known: the hints of the corpus.
        there: recordings that the corpus has. Only units of nothing else count as known.
        search: looks into a unit.
        how: what decides, besides the files, what is found: reader and options.
        sources: as they were given.
        naming: how the corpus names players.
    """

    def __init__(
        self,
        known: KnownInputs,
        there: KeySet,
        search: SourceSearch,
        how: Mapping[str, str],
        sources: Sequence[str | Path],
        naming: Naming,
    ) -> None:
        self._known = known
        self._there = there
        self._search = search
        self._naming = naming
        self._sources = [str(source) for source in sources]
        # With pseudonyms the names of the sources are part of it: see `_hides_nothing`.
        told = [LOOKS, versions()["wham-data"], dict(how), self._sources if naming.key else []]
        text = canonical_json(told).encode("utf-8", "surrogateescape")
        self._salt = hashlib.sha256(known.salt + b" units " + text).digest()

    def known(self, unit: Unit) -> FoundInUnit | None:
        """What is in a unit; None: it has to be looked at."""
        if not unit.alone or self._known.is_empty:
            return None
        keys, n_files = self._known.in_unit(unit.signature(self._salt))
        if not keys or not self._there.has_all(keys):
            return None
        return FoundInUnit(unit, keys=keys, n_files=n_files)

    def look(self, unit: Unit) -> Iterator[Recording | FoundInUnit]:
        """What is in a unit, seen anew."""
        found = self._search.look(unit)
        yield from found.recordings
        yield found

    def note(self, found: FoundInUnit, recordings: Sequence[Found | None]) -> None:
        """Note what is in a unit, if nothing but its files decides it and none may still change.

        Args:
            found: what was found.
            recordings: those of the unit; None for one that cannot be read.
        """
        unit, every = found.unit, [each for each in recordings if each is not None]
        if not (unit.alone and every) or found.refused or found.elsewhere:
            return
        keys = {each.key for each in every}
        if len(keys) < len(recordings) or not self._hides_nothing(every):
            return
        stamps = {
            unit.folder / n: FileStamp(*s) for n, s in zip(unit.names, unit.stamps, strict=True)
        }
        may_change = not is_in_store(unit.folder)  # there each version has a name of its own
        if may_change and any(stamp.is_racy(unit.listed_ns) for stamp in stamps.values()):
            return
        if any(
            stamps.get(path) != stamp
            for each in every
            for path, stamp in zip(each.recording.files, each.stamps, strict=True)
        ):
            return
        signature = unit.signature(self._salt)
        counted: set[Path] = set()
        for each in every:
            files = {*each.recording.files, *each.recording.companions} - counted
            self._known.note(signature, bytes.fromhex(each.key), len(files))
            counted |= files

    def _hides_nothing(self, recordings: Sequence[Found]) -> bool:
        """Whether the names of the sources can be stored without knowing the players of a unit."""
        players = {each.recording.provenance.player for each in recordings}
        return all(self._naming.text(source, *players) == source for source in self._sources)
