"""Pseudonyms of players: a keyed hash replaces each name, and the key stays outside the corpus.

Whoever has the key and a name can find the player in the corpus. Whoever has only the corpus can
see that two recordings have the same player, and nothing else: without the key nobody can check
whether a pseudonym belongs to a certain name.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wham_data.schemas.errors import MismatchError, UsageError

SETTING: Final = "player_key"
"""The entry in a corpus' settings that holds the check value of its players' key."""
PSEUDONYM: Final = re.compile(r"[0-9a-f]{32}")
FEWEST_BYTES: Final = 16
MOST_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class PlayerKey:
    """A secret key for pseudonyms. Neither the key nor a plain hash of it is stored in a corpus."""

    secret: bytes = field(repr=False)

    def pseudonym(self, player: str) -> str:
        """32 hex digits: the start of HMAC-SHA256 of the name."""
        return self._digest("player", player)

    @property
    def check(self) -> str:
        """16 hex digits that tell one key from another; a corpus stores them. An HMAC of no name."""
        return self._digest("check", "")[:16]

    def hide(self, text: str, player: str | None) -> str:
        """`text` with the player's name replaced by the pseudonym, wherever it is a whole word.

        Args:
            text: any text, such as a path.
            player: the name; None or "": the text is returned unchanged.
        """
        if not player:
            return text
        word = rf"(?<![^\W_]){re.escape(player)}(?![^\W_])"
        return re.sub(word, self.pseudonym(player), text)

    def salt(self, purpose: str) -> bytes:
        """Bytes that nobody without the key can make, for digests that must not be guessed."""
        return self._digest(f"salt {purpose}", "").encode()

    def _digest(self, purpose: str, text: str) -> str:
        message = f"wham-data {purpose}\0{text}".encode("utf-8", "surrogateescape")
        return hmac.new(self.secret, message, "sha256").hexdigest()[:32]


def read_player_key(path: Path, corpus: str | Path) -> PlayerKey:
    """The key in a file: all its bytes, without white space at the end.

    Args:
        path: the file; 16 to 4096 bytes.
        corpus: path or URL of the corpus. The key must not lie inside it.

    Raises:
        UsageError: the file cannot be read, is too short or too long, or lies inside the corpus.
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
    """Refuse a key that is not the key with which the corpus was created.

    Args:
        stored: the corpus' setting `player_key`; None: its players are stored by name.
        key: the user's key; None: the user gave none.
        where: location of the corpus, for messages.

    Raises:
        MismatchError: the keys differ, or only one of the two exists.
    """
    if stored is None and key is None:
        return
    if stored is None:
        raise MismatchError(
            f"{where}: its players are stored by name; leave out --player-key, or make another "
            "corpus for pseudonyms"
        )
    if key is None:
        raise MismatchError(
            f"{where}: its players are pseudonyms; give their key with --player-key FILE"
        )
    if not hmac.compare_digest(str(stored), key.check):
        raise MismatchError(
            f"{where}: its players are pseudonyms of another key (check value {stored}, this key "
            f"has {key.check}); give the key with which the corpus was created"
        )
