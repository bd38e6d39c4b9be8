"""What a corpus says of whom its recordings are: names or pseudonyms, and licences.

Names are replaced where the driver hands rows to the manifest, so a person at the terminal still
reads the names of his files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from wham_data.corpus import Corpus
from wham_data.corpus.splits import Ties
from wham_data.corpus.tombstones import Forgotten, Kind
from wham_data.pipelines.ingest.plan import Found
from wham_data.schemas.manifest import EpisodeRow
from wham_data.schemas.player_key import PlayerKey


@dataclass(frozen=True, slots=True)
class Naming:
    """How a corpus calls players, and the licence of what comes without one.

    key      None: by name
    license  for recordings whose source names none; None: they stay without one
    """

    key: PlayerKey | None = None
    license: str | None = None

    def ties(self, found: Found) -> Ties:
        """What ties a recording to others when splits are made."""
        who = found.recording.provenance
        return Ties(found.key, who.match, self.player(who.player))

    def player(self, name: str | None) -> str | None:
        """What the corpus calls a player."""
        return self.key.pseudonym(name) if self.key and name else name

    def row(self, row: EpisodeRow) -> EpisodeRow:
        """A row as the manifest has it: no name in `player`, nor as a word in `source`."""
        return replace(
            row,
            player=self.player(row.player),
            source=self.text(row.source, row.player),
            license=row.license or self.license,
        )

    def text(self, text: str, *players: str | None) -> str:
        """A text without the names of these players as words of their own."""
        if self.key is not None:
            for player in players:
                text = self.key.hide(text, player)
        return text

    def barred(self, recordings: Iterable[Found], corpus: Corpus) -> dict[str, Kind]:
        """The recordings that a corpus has forgotten, by key: for what each must stay out."""
        forgotten = Forgotten.read(corpus.storage)
        kinds = ((found.key, forgotten.blocks(self.ties(found))) for found in recordings)
        return {key: kind for key, kind in kinds if kind is not None}
