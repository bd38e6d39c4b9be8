"""A session of a GPT as bytes: JSON, so that nothing in it can do anything.

It holds each dream's newest steps, its place, its seed and what it has cost, and the fingerprint of
the model whose tokens these are. Keys and values are left out: they can be made again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wham_data.inference.gpt.rollout import Place
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.gpt.speculation import LONGEST_BLOCK
from wham_data.inference.sampling import Noise, Sampling
from wham_data.inference.session import DreamStats
from wham_data.schemas.corpus_info import parse_json
from wham_data.schemas.errors import IntegrityError, MismatchError, WhamDataError

FORMAT = "wham-data session 1"


@dataclass(frozen=True, slots=True)
class SavedDream:
    """One dream: its randomness, its place and what it has cost."""

    noise: Noise
    place: Place
    stats: DreamStats


@dataclass(frozen=True, slots=True)
class SavedSession:
    """What `written` was given, besides the model's fingerprint."""

    sampling: Sampling
    context_steps: int | None
    speculate: bool
    dreams: tuple[SavedDream, ...]


def written(
    fingerprint: str,
    sampling: Sampling,
    context_steps: int | None,
    speculate: bool,
    dreams: Sequence[SavedDream],
) -> bytes:
    """The bytes that `read` reads."""
    values = {
        "format": FORMAT,
        "model": fingerprint,
        "sampling": asdict(sampling),
        "context_steps": context_steps,
        "speculate": speculate,
        "dreams": [
            {
                "noise": asdict(dream.noise),
                "place": {**asdict(dream.place), "tokens": dream.place.tokens.tolist()},
                "stats": asdict(dream.stats),
            }
            for dream in dreams
        ],
    }
    return json.dumps(values).encode()


def read(saved: bytes, fingerprint: str, spec: GPTSpec) -> SavedSession:
    """What was saved.

    Raises:
        IntegrityError: damaged, or no saved session.
        MismatchError: saved with another model.
    """
    try:
        values = parse_json(saved)
    except WhamDataError as error:
        raise IntegrityError(f"saved session: {error}") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise IntegrityError(f"no saved session: expected JSON of format {FORMAT!r}")
    if values.get("model") != fingerprint:
        raise MismatchError(
            f"the session was saved with the model {str(values.get('model'))[:16]}, not with "
            f"{fingerprint[:16]}. Restore it with the model that it was saved with"
        )
    try:
        return SavedSession(
            Sampling(**values["sampling"]),
            _whole_or_none(values["context_steps"]),
            bool(values["speculate"]),
            tuple(_dream(dream, spec) for dream in values["dreams"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, WhamDataError) as error:
        raise IntegrityError(f"saved session: damaged ({error})") from None


def _dream(values: dict[str, Any], spec: GPTSpec) -> SavedDream:
    noise, place, stats = values["noise"], values["place"], values["stats"]
    tokens = np.array(place["tokens"], np.int64)
    context, steps = _whole(place["context"]), _whole(place["steps"])
    waiting, usual = bool(place["waiting"]), float(place["usual"])
    if tokens.ndim != 2 or tokens.shape[1] != spec.tokens_per_step:
        raise ValueError(f"tokens {tokens.shape}")
    if not 0 <= int(tokens.min()) <= int(tokens.max()) < spec.vocabulary:
        raise ValueError("an id outside the vocabulary")
    if not 1 <= context <= steps or not waiting < len(tokens) <= steps + waiting:
        raise ValueError(f"{len(tokens)} steps at {steps}")
    if not math.isfinite(usual) or not 0 <= usual <= LONGEST_BLOCK:
        raise ValueError(f"usual {usual}")
    return SavedDream(
        Noise(_whole(noise["seed"]), _whole(noise["dream"])),
        Place(context, steps, waiting, tokens, usual),
        DreamStats(**{name: _whole(value) for name, value in stats.items()}),
    )


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{str(value)[:20]!r} is no whole number")
    return value


def _whole_or_none(value: object) -> int | None:
    return None if value is None else _whole(value)
