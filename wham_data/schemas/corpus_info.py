"""The settings that all shards of a corpus share: `corpus.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar, cast, get_args

from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.errors import IntegrityError, UsageError
from wham_data.schemas.recording import Fit

FORMAT_VERSION: Final = 1
MOST_BYTES: Final = 16_000_000
"""Largest corpus.json that is read, in bytes. With 1024 action dimensions it has about 200 KB."""
MOST_TOKENS: Final = 65_536
"""Most tokens in a step, and the largest vocabulary: a token is stored as uint16."""

Rate = Fraction | Literal["native"]
FrameFormat = Literal["none", "jpeg", "png"]
Layout = Literal["mapped", "cold"]
Setting = str | int | float | bool
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TokenizerInfo:
    """The tokenizer that made the tokens of a corpus.

    fingerprint  hash of its weights and settings; tokenizers with different tokens differ in it
    grid         (rows, columns) of tokens; a step holds them row by row
    vocab_size   size of its codebook: tokens are 0 to vocab_size - 1
    frame_size   (width, height) of its input frames, in pixels

    Raises:
        UsageError: a field is empty or out of its limits.
    """

    name: str
    fingerprint: str
    grid: tuple[int, int]
    vocab_size: int
    frame_size: tuple[int, int]

    def __post_init__(self) -> None:
        if not self.name or not self.fingerprint:
            raise UsageError("a tokenizer needs a name and a fingerprint")
        if min(self.grid) < 1 or self.n_tokens > MOST_TOKENS:
            raise UsageError(
                f"tokenizer {self.name}: grid {self.grid} is not 1 to {MOST_TOKENS} tokens"
            )
        if not 1 <= self.vocab_size <= MOST_TOKENS:
            raise UsageError(
                f"tokenizer {self.name}: vocabulary {self.vocab_size}, expected 1 to {MOST_TOKENS}"
            )
        if min(self.frame_size) < 1:
            raise UsageError(f"tokenizer {self.name}: frame size {self.frame_size}")

    @property
    def n_tokens(self) -> int:
        """N, the count of tokens in a step."""
        return self.grid[0] * self.grid[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "grid": list(self.grid),
            "vocab_size": self.vocab_size,
            "frame_size": list(self.frame_size),
        }


@dataclass(frozen=True, slots=True)
class CorpusInfo:
    """The settings of a corpus. Steps of two corpora can be mixed if `settings_hash` is equal.

    action_space meaning of the numbers of an action
    rate         steps per second (Hz), or "native": every source frame is a step
    size         (width, height) of the frames, in pixels
    fit          how a picture with another aspect ratio is fitted into `size`
    tokenizer    None: the corpus holds no tokens
    frames       coding of the picture that each step holds; "none": steps hold no pictures
    state_size   S, numbers per step in the optional column `state`; 0: no such column
    reward, text whether the optional columns exist
    settings     other settings that shape the steps (axis rule, longest gap, split fractions, ...)
    layout       "mapped": shards are raw matrices, to be memory-mapped; "cold": zstd, for storage
    extra        fields of corpus.json that a newer release added; they are kept but have no effect

    Raises:
        UsageError: a field is out of its limits.
    """

    action_space: ActionSpace
    rate: Rate = Fraction(10)
    size: tuple[int, int] = (300, 180)
    fit: Fit = "stretch"
    tokenizer: TokenizerInfo | None = None
    frames: FrameFormat = "none"
    state_size: int = 0
    reward: bool = False
    text: bool = False
    settings: Mapping[str, Setting] = field(default_factory=dict)
    layout: Layout = "mapped"
    format_version: int = FORMAT_VERSION
    extra: Mapping[str, Any] = field(default_factory=dict)
    _hash: str | None = field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.rate, Fraction) and not 0 < self.rate <= 1_000_000:
            raise UsageError(
                f"rate {self.rate} Hz: expected more than 0 and at most 1000000, or native"
            )
        if not all(1 <= side <= 65_536 for side in self.size):
            raise UsageError(f"frame size {self.size}: expected (width, height) up to 65536 pixels")
        choices: tuple[tuple[str, tuple[str, ...], str], ...] = (
            (self.fit, get_args(Fit), "fit"),
            (self.frames, get_args(FrameFormat), "frames"),
            (self.layout, get_args(Layout), "layout"),
        )
        for choice, allowed, what in choices:
            if choice not in allowed:
                raise UsageError(f"{what} {choice!r} is none of {', '.join(allowed)}")
        if not 0 <= self.state_size <= MOST_TOKENS:
            raise UsageError(f"state size {self.state_size}: expected 0 to {MOST_TOKENS}")
        for name, value in self.settings.items():
            if not isinstance(value, str | int | float | bool):
                raise UsageError(f"setting {name!r}: expected a text or a number, found {value!r}")
        for name in ("settings", "extra"):
            # The caller could still change a plain dict.
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __hash__(self) -> int:
        return hash(self.settings_hash)

    def __reduce__(self) -> tuple[Any, ...]:
        return CorpusInfo.from_json, (self.to_json(),)

    @property
    def n_tokens(self) -> int:
        """N, the count of tokens in a step; 0 if the corpus holds no tokens."""
        return self.tokenizer.n_tokens if self.tokenizer else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the fields of `extra` at the top level."""
        return {
            **self.extra,
            "format_version": self.format_version,
            "layout": self.layout,
            **self._agreement(),
            "action_space": self.action_space.to_dict(),
        }

    def to_json(self) -> str:
        """The text of corpus.json: sorted and indented. Equal settings give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "corpus.json") -> CorpusInfo:
        """The settings that `to_json` wrote.

        Args:
            text: the content of the file; everything in it is checked.
            where: name of the file in error messages.

        Raises:
            IntegrityError: the text is damaged, or its format is newer than this release.
        """
        try:
            return cls._from_dict(parse_json(text))
        except (UsageError, TypeError, ValueError, KeyError, ZeroDivisionError) as error:
            problem = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise IntegrityError(
                f"{where}: not the description of a corpus: {problem[:300]}"
            ) from error

    @classmethod
    def _from_dict(cls, found: object) -> CorpusInfo:
        if not isinstance(found, dict):
            raise UsageError("expected an object")
        version = _typed(found, "format_version", int)
        if version > FORMAT_VERSION:
            raise UsageError(
                f"format version {version} is newer than {FORMAT_VERSION}, "
                f"the newest this release reads: it needs wham-data >= {version}.0"
            )
        if version < 1:
            raise UsageError(f"format version {version}")
        rate = _typed(found, "rate", str)
        space = dict(_typed(found, "action_space", dict))
        return cls(
            action_space=ActionSpace.from_dict(space),
            rate="native" if rate == "native" else Fraction(rate),
            size=_pair(found, "size"),
            fit=cast(Fit, _typed(found, "fit", str)),
            tokenizer=_tokenizer_from(found["tokenizer"]),
            frames=cast(FrameFormat, _typed(found, "frames", str)),
            state_size=_typed(found, "state_size", int),
            reward=_typed(found, "reward", bool),
            text=_typed(found, "text", bool),
            settings=_typed(found, "settings", dict),
            layout=cast(Layout, _typed(found, "layout", str)),
            format_version=version,
            extra={name: value for name, value in found.items() if name not in OUR_FIELDS},
        )

    @property
    def settings_hash(self) -> str:
        """24 hex digits: a hash of all settings that shape a step (not layout, not titles)."""
        if self._hash is None:  # every row of a commit is compared with it
            agreement = ["settings", self.format_version, self._agreement()]
            object.__setattr__(self, "_hash", content_hash(agreement))
        return str(self._hash)

    def diff(self, other: CorpusInfo) -> list[str]:
        """The settings that differ, one text for each: `name: value here, not value in other`.

        Layout and titles are not compared. Empty if the two have the same `settings_hash`.
        """
        mine, theirs = _flat(self._agreement()), _flat(other._agreement())
        # If the tokenizer or the space is another one, one line says so, not one for each field.
        if (self.tokenizer is None) != (other.tokenizer is None):
            _fold(mine, "tokenizer", self.tokenizer.name if self.tokenizer else "none")
            _fold(theirs, "tokenizer", other.tokenizer.name if other.tokenizer else "none")
        if self.action_space.name != other.action_space.name:
            _fold(mine, "action_space", self.action_space.name)
            _fold(theirs, "action_space", other.action_space.name)
        return [
            f"{name}: {mine.get(name, 'absent')}, not {theirs.get(name, 'absent')}"
            for name in sorted({*mine, *theirs})
            if mine.get(name) != theirs.get(name)
        ]

    def _agreement(self) -> dict[str, Any]:
        """The settings that must be equal in all shards of a corpus."""
        space = self.action_space.to_dict()
        agreement = {
            "rate": str(self.rate),
            "size": list(self.size),
            "fit": self.fit,
            "action_space": {"name": space["name"], "dimensions": space["dimensions"]},
            "tokenizer": self.tokenizer.to_dict() if self.tokenizer else None,
            "frames": self.frames,
            "state_size": self.state_size,
            "reward": self.reward,
            "text": self.text,
            "settings": dict(self.settings),
        }
        return {name: _whole_numbers(value) for name, value in agreement.items()}


OUR_FIELDS: Final = frozenset(
    {
        *("format_version", "layout", "rate", "size", "fit", "action_space", "tokenizer", "frames"),
        *("state_size", "reward", "text", "settings"),
    }
)


def canonical_json(value: object) -> str:
    """The value as JSON with sorted keys and without spaces: equal values give equal text.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def content_hash(value: object) -> str:
    """24 hex digits that identify a value: the start of the SHA-256 of its canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:24]


def parse_json(text: str | bytes) -> object:
    """The value of a JSON text from an untrusted file: at most 16 MB, no NaN, no key twice.

    Raises:
        UsageError: the text breaks one of these rules or is not JSON.
    """
    if len(text) > MOST_BYTES:
        raise UsageError(f"{len(text)} bytes of JSON, expected at most {MOST_BYTES}")
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_twins)
    except RecursionError as error:
        raise UsageError("JSON nested too deep") from error
    except ValueError as error:
        raise UsageError(f"corrupt or truncated JSON: {error}") from error


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field occurs twice")
    return found


def _tokenizer_from(found: object) -> TokenizerInfo | None:
    if found is None:
        return None
    if not isinstance(found, dict):
        raise UsageError("tokenizer: expected an object or null")
    return TokenizerInfo(
        name=_typed(found, "name", str),
        fingerprint=_typed(found, "fingerprint", str),
        grid=_pair(found, "grid"),
        vocab_size=_typed(found, "vocab_size", int),
        frame_size=_pair(found, "frame_size"),
    )


def _typed(found: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = found[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{name}: expected {kind.__name__}, found {str(value)[:80]!r}")
    return value


def _pair(found: Mapping[str, Any], name: str) -> tuple[int, int]:
    match found[name]:
        case [int(first), int(second)]:
            return first, second
    raise UsageError(f"{name}: expected two whole numbers, found {str(found[name])[:80]!r}")


def _whole_numbers(value: Any) -> Any:
    """The same value with 1.0 written as 1: they are equal, so their texts must be equal too."""
    if isinstance(value, dict):
        return {name: _whole_numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _fold(flat: dict[str, str], name: str, text: str) -> None:
    """Replace all entries below the name `name` by one entry."""
    for leaf in [leaf for leaf in flat if leaf.split(".")[0] == name]:
        del flat[leaf]
    flat[name] = text


def _flat(value: object, name: str = "") -> dict[str, str]:
    """Every innermost value of nested objects and lists as JSON text, by its dotted name."""
    if isinstance(value, dict):
        items = [(f"{name}.{key}".lstrip("."), inner) for key, inner in value.items()]
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        items = [(f"{name}[{index}]", inner) for index, inner in enumerate(value)]
    else:
        return {name: json.dumps(value, ensure_ascii=False)}
    return {key: leaf for path, inner in items for key, leaf in _flat(inner, path).items()}
