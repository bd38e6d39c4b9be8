"""The steps of an episode, and the Arrow schema of the shards that store them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wham_data.schemas.clock import Nanos
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.errors import UsageError

TOKEN = np.dtype("<u2")
FLOAT = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class EpisodeSteps:
    """Consecutive steps of one episode: the whole episode, or a piece that begins at `first_step`.

    A long episode may come in pieces; each piece begins at the step where the last one ended.

    episode       name of the episode
    time_ns       int64   [T]     strictly increasing, on the recording's own clock
    actions       float32 [T, A]  as measured; a row without a known action is all NaN
    action_known  bool    [T]     whether the action of the step is known
    tokens        uint16  [T, N]  row by row over the grid; None: the corpus has no tokenizer
    frames        T pictures, JPEG or PNG; None: the corpus holds no pictures
    state         float32 [T, S]  None: no states
    reward        float32 [T]     None: no rewards
    text          T texts, each may be None; None: no texts
    first_step    number of the first step in the episode

    Raises:
        UsageError: dtypes or shapes are wrong, times do not increase, or `actions` and
            `action_known` contradict each other.
    """

    episode: str
    time_ns: Nanos
    actions: NDArray[np.float32]
    action_known: NDArray[np.bool_]
    tokens: NDArray[np.uint16] | None = None
    frames: Sequence[bytes] | None = None
    state: NDArray[np.float32] | None = None
    reward: NDArray[np.float32] | None = None
    text: Sequence[str | None] | None = None
    first_step: int = 0

    def __post_init__(self) -> None:
        n = len(self.time_ns)
        if not self.episode:
            raise UsageError("an episode needs a name")
        if self.first_step < 0 or self.first_step + n > 2**31 - 1:
            raise self._wrong(f"steps {self.first_step} to {self.first_step + n}: not 31 bits")
        for name, array, dtype, dims in (
            ("time_ns", self.time_ns, np.int64, 1),
            ("actions", self.actions, np.float32, 2),
            ("action_known", self.action_known, np.bool_, 1),
            ("tokens", self.tokens, np.uint16, 2),
            ("state", self.state, np.float32, 2),
            ("reward", self.reward, np.float32, 1),
        ):
            if array is None:
                continue
            if array.dtype != dtype or array.ndim != dims or len(array) != n:
                raise self._wrong(
                    f"{name} is {array.dtype} {list(array.shape)}, "
                    f"expected {np.dtype(dtype)} with {dims} dimensions and {n} steps"
                )
        for name, things in (("frames", self.frames), ("text", self.text)):
            if things is not None and len(things) != n:
                raise self._wrong(f"{len(things)} {name} for {n} steps")
        if n > 1 and not (np.diff(self.time_ns) > 0).all():
            raise self._wrong("time_ns does not increase")
        known = np.isfinite(self.actions).all(axis=1)
        unknown = np.isnan(self.actions).all(axis=1)
        if not np.where(self.action_known, known, unknown).all():
            step = int(np.flatnonzero(~np.where(self.action_known, known, unknown))[0])
            raise self._wrong(
                f"step {self.first_step + step}: a known action is finite, an unknown one all NaN"
            )

    @property
    def n_steps(self) -> int:
        """T, the count of steps."""
        return len(self.time_ns)

    def _wrong(self, what: str) -> UsageError:
        return UsageError(f"episode {self.episode}: {what}")


def shard_schema(info: CorpusInfo) -> pa.Schema:
    """The Arrow schema of every shard of a corpus.

    Columns without missing values are REQUIRED (not nullable). A row of numbers, such as an action,
    is stored as fixed-length bytes; the metadata of the field gives their dtype, the shape of one
    step and the names.
    """
    space = info.action_space
    fields = [
        pa.field("episode", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("step", pa.int32(), nullable=False),
        pa.field("time_ns", pa.int64(), nullable=False, metadata={"unit": "ns"}),
    ]
    if info.tokenizer is not None:
        grid = list(info.tokenizer.grid)
        fields.append(_matrix("tokens", "uint16", grid, ["row", "column"]))
    fields.append(_matrix("actions", "float32", [space.size], ["dimension"], space.names))
    fields.append(pa.field("action_known", pa.bool_(), nullable=False))
    if info.frames != "none":
        fields.append(
            pa.field("frame", pa.binary(), nullable=False, metadata={"coding": info.frames})
        )
    if info.state_size:
        state = _matrix("state", "float32", [info.state_size], ["dimension"])
        fields.append(state.with_nullable(True))
    if info.reward:
        fields.append(pa.field("reward", pa.float32()))
    if info.text:
        fields.append(pa.field("text", pa.string()))
    return pa.schema(fields)


def _matrix(
    name: str, dtype: str, shape: list[int], dims: list[str], names: Sequence[str] = ()
) -> pa.Field:
    width = int(np.prod(shape)) * np.dtype(dtype).itemsize
    about = {
        "dtype": dtype,
        "order": "little",
        "shape": json.dumps(shape),
        "dims": json.dumps(dims),
    }
    if names:
        about["names"] = json.dumps(names)
    return pa.field(name, pa.binary(width), nullable=False, metadata=about)
