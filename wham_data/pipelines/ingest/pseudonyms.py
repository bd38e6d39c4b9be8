"""Names or pseudonyms of players in a corpus, and licences of its recordings.

Names are replaced when the driver adds rows to the manifest, so a person at the terminal still reads
the names of their files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wham_data.corpus.splits import SplitBy, Ties, tied_by
from wham_data.pipelines.ingest.intake.inputs import Found, Refusal
from wham_data.schemas.manifest import EpisodeRow, QuarantineRow
from wham_data.schemas.player_key import PlayerKey


@dataclass(frozen=True, slots=True)
class Naming:
    """How a corpus names players, and the licence for recordings without one.

    key      key of the pseudonyms; None: players are stored by name
    license  licence for recordings whose source names none; None: they stay without one
    """

    key: PlayerKey | None = None
    license: str | None = None

    def ties(self, found: Found) -> Ties:
        """A recording with its match and its player, as the corpus names them."""
        who = found.recording.provenance
        return Ties(found.key, who.match, self.player(who.player))

    def tied_by(self, by: SplitBy, found: Found) -> Ties:
        """What ties a recording to others in a corpus whose splits are made by `by`."""
        ties = self.ties(found)
        return tied_by(by, ties.recording, ties.match, ties.player)

    def player(self, name: str | None) -> str | None:
        """The name or pseudonym of a player in the corpus."""
        return self.key.pseudonym(name) if self.key and name else name

    def row(self, row: EpisodeRow) -> EpisodeRow:
        """A row for the manifest, with the player's name replaced in `player` and in `source`."""
        return replace(
            row,
            player=self.player(row.player),
            source=self.text(row.source, row.player),
            license=row.license or self.license,
            notes=tuple(self.text(note, row.player) for note in row.notes),
        )

    def refused(self, refusal: Refusal, settings: str) -> QuarantineRow:
        """A row for the quarantine, with the player's name replaced in the path and the message."""
        row = QuarantineRow.of(
            refusal.why,
            path=self.text(refusal.path, refusal.player),
            message=self.text(refusal.why.message, refusal.player),
            sha256=refusal.key,
            stage=refusal.stage,
            settings=settings,
        )
        return replace(row, notes=tuple(self.text(note, refusal.player) for note in row.notes))

    def text(self, text: str, *players: str | None) -> str:
        """A text without the names of these players as words of their own."""
        if self.key is not None:
            for player in players:
                text = self.key.hide(text, player)
        return text
