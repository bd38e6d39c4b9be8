"""Pseudonyms of players: a keyed hash instead of a name, the key kept outside the corpus.

With the key and a name, anyone can find the player. With only the corpus, one can tell that two
recordings are of one player, and nothing else: without the key a guess cannot even be tested.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wham_data.schemas.errors import MismatchError, UsageError

SETTING: Final = "player_key"
"""Under this name the settings of a corpus hold the check value of the key its players have."""
PSEUDONYM: Final = re.compile(r"[0-9a-f]{32}")
FEWEST_BYTES: Final = 16
MOST_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class PlayerKey:
    """A secret that makes pseudonyms. Neither it nor a hash of it alone is stored anywhere."""

    secret: bytes = field(repr=False)

    def pseudonym(self, player: str) -> str:
        """32 hex digits: the start of HMAC-SHA256 of the name."""
        return self._digest("player", player)

    @property
    def check(self) -> str:
        """By this a corpus knows its key again: 16 hex digits, an HMAC of no player."""
        return self._digest("check", "")[:16]

    def hide(self, text: str, player: str | None) -> str:
        """`text` with the pseudonym wherever it has the player's name as a word of its own."""
        if not player:
            return text
        word = rf"(?<![^\W_]){re.escape(player)}(?![^\W_])"
        return re.sub(word, self.pseudonym(player), text)

    def _digest(self, purpose: str, text: str) -> str:
        message = f"wham-data {purpose}\0{text}".encode("utf-8", "surrogateescape")
        return hmac.new(self.secret, message, "sha256").hexdigest()[:32]


def read_player_key(path: Path, corpus: str | Path) -> PlayerKey:
    """The key in a file: all its bytes but white space at the end.

    Args:
        path: the file.
        corpus: a path or URL, below which the key must not lie.

    Raises:
        UsageError: it cannot be read, is too short to be a secret, or lies inside the corpus.
    """
    if path.resolve().is_relative_to(Path(corpus).resolve()):
        raise UsageError(f"{path}: lies inside the corpus; keep the players' key elsewhere")
    try:
        with path.open("rb") as file:
            secret = file.read(MOST_BYTES + 1).rstrip()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}, expected a file with a key") from None
    if not FEWEST_BYTES <= len(secret) <= MOST_BYTES:
        raise UsageError(
            f"{path}: a key of {len(secret)} bytes, expected {FEWEST_BYTES} to {MOST_BYTES}; "
            "`head -c 32 /dev/urandom | base64` makes one"
        )
    return PlayerKey(secret)


def check_player_key(stored: object, key: PlayerKey | None, where: str) -> None:
    """Refuse a key that is not the one a corpus was begun with.

    Args:
        stored: the corpus' setting `player_key`; None: its players are stored by name.
        key: the one that was given.
        where: the corpus, for messages.

    Raises:
        MismatchError: another key, a key where there is none, or none where there is one.
    """
    if stored is None and key is None:
        return
    if stored is None:
        raise MismatchError(
            f"{where}: its players are stored by name; without --player-key it goes on so, "
            "for pseudonyms make another corpus"
        )
    if key is None:
        raise MismatchError(
            f"{where}: its players are pseudonyms; say with --player-key FILE which key they have"
        )
    if not hmac.compare_digest(str(stored), key.check):
        raise MismatchError(
            f"{where}: its players are pseudonyms of another key (check value {stored}, this key "
            f"has {key.check}); give the key that the corpus was begun with"
        )
