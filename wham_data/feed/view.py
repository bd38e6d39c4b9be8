"""Windows by number, as arrays: what a batch holds, and random access to it."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.feed.interleave import Interleaving
from wham_data.feed.mapped_shards import DTYPES, Column, MappedShards
from wham_data.feed.remote_shards import Copies
from wham_data.feed.selection import Selection
from wham_data.feed.tensors import Batch
from wham_data.feed.windows import Numbers, Shape
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.errors import UsageError

OBSERVED: Final = ("tokens", "step", "time_ns")
"""Fields of an observation, of which a window with `next_observation` has one more."""
DONE: Final = ("actions", "action_known")
SCALARS: Final = ("step", "time_ns")
LOOK_AHEAD: Final = 1_024
"""Windows that are asked for ahead of time: enough requests to keep a fast disk busy."""
MANY_FAULTS: Final = 8
"""Pages that had to be waited for in about as many batches; one now and then is cheaper to wait for."""
REMEMBERED: Final = 128
"""Batches for which a disk that was read is taken to be read still."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a window holds.

    fields        names out of OBSERVED and DONE
    interleaving  how tokens and actions become `inputs` and `targets`; None: they stay apart
    """

    shape: Shape
    fields: tuple[str, ...]
    interleaving: Interleaving | None = None

    def __post_init__(self) -> None:
        known = (*OBSERVED, *DONE)
        strange = [field for field in self.fields if field not in known]
        if strange or not self.fields:
            raise UsageError(
                f"fields {', '.join(map(repr, self.fields)) or 'none'}: expected some of "
                f"{', '.join(known)}; `Corpus.scan()` reads every column"
            )

    @classmethod
    def of(
        cls, info: CorpusInfo, shape: Shape, fields: Sequence[str], *, interleave: bool
    ) -> Content:
        """For windows of a corpus.

        Raises:
            UsageError: a field that cannot be fed, tokens of a corpus without, or actions that
                cannot be interleaved.
        """
        if "tokens" in fields and info.tokenizer is None:
            raise UsageError(
                "fields: the corpus holds no tokens; leave 'tokens' out, or ingest with --tokenizer"
            )
        return cls(shape, tuple(fields), Interleaving.of(info) if interleave else None)

    def columns(self, info: CorpusInfo) -> dict[str, Column]:
        """The columns to read from the shards of a corpus, by name."""
        asked = [*self.fields, *(("tokens", "actions") if self.interleaving else ())]
        names = dict.fromkeys("actions" if field == "action_known" else field for field in asked)
        numbers = {"tokens": info.n_tokens, "actions": info.action_space.size}
        rows = {
            name: self.shape.length + (name in OBSERVED) * self.shape.next_observation
            for name in names
        }
        return {name: Column(DTYPES[name], numbers.get(name, 1), rows[name]) for name in names}

    def batch(self, columns: dict[str, NDArray[Any]]) -> Batch:
        """The batch for the caller, made from the columns that were read, [B, length, width] each."""
        batch: Batch = {}
        for field in self.fields:
            if field == "action_known":
                # An action that is not known is NaN throughout.
                batch[field] = ~np.isnan(columns["actions"][..., 0])
            elif field in SCALARS:
                batch[field] = columns[field][..., 0]
            elif self.interleaving is None:
                batch[field] = columns[field]
        if self.interleaving is not None:
            ids = self.interleaving.flat(columns["tokens"], columns["actions"])
            batch["inputs"] = np.ascontiguousarray(ids[:, :-1])
            batch["targets"] = np.ascontiguousarray(ids[:, 1:])
        return batch


class WindowView:
    """Every window of a dataset by its number, whatever is shuffled; a map-style dataset for torch.

    view[7]              one window
    view[[7, 3, 4]]      a batch, read in one go
    view[:100]           the first hundred
    """

    def __init__(self, selection: Selection, content: Content, *, scattered: bool = True) -> None:
        """Windows of a selection; opens no shard yet.

        Args:
            scattered: they will not be asked for one after another.
        """
        self.shards = selection.shards
        self._windows, self._content, self._scattered = selection.windows, content, scattered
        self._disk = _Disk()
        columns = content.columns(selection.shards.corpora[0].info)
        self._mapped = MappedShards(
            selection.shards, selection.windows, columns, scattered=scattered
        )

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[np.integer[Any]]) -> Batch:
        """One window, or a batch of them with one more axis in front.

        Raises:
            IndexError: there is no such window.
            IntegrityError: a shard is missing, damaged, or not what the manifest says.
        """
        if isinstance(index, slice):
            return self.batch(np.arange(*index.indices(len(self))))
        numbers = np.asarray(index)
        if numbers.dtype.kind not in "iu" and numbers.size:
            raise IndexError(f"windows are numbered; {index!r} is no number")
        numbers = numbers.astype(np.int64)
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"window {index!r}: there are {len(self)}")
        if numbers.ndim:
            return self.batch(numbers)
        return {name: values[0] for name, values in self.batch(numbers[None]).items()}

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        """Several windows, read in one go; torch's DataLoader asks this way."""
        batch = self[np.asarray(indices)]
        return [{name: values[i] for name, values in batch.items()} for i in range(len(indices))]

    def batch(self, windows: Numbers) -> Batch:
        """A batch of windows, int64 [B] from 0 to the number of windows - 1, unchecked."""
        shard, row = self.locate(windows)
        if self._scattered and self._disk.is_read():
            self._mapped.announce(shard, row)
        return self._content.batch(self._mapped.read(shard, row))

    @property
    def bad_shards(self) -> dict[str, str]:
        """The shards that this process has found to be bad and skips, each with what is wrong."""
        return self._mapped.bad

    @property
    def copies(self) -> Copies | None:
        """The shards that have to be fetched, if there are any."""
        return self._mapped.copies

    def locate(self, windows: Numbers) -> tuple[NDArray[np.int32], Numbers]:
        """Shard and first row of windows, for `read`."""
        return self._windows.locate(windows)

    def flat(self, windows: Numbers) -> NDArray[np.uint16] | NDArray[np.int32]:
        """The whole rows of ids of windows: `inputs` and the last of `targets`.

        Raises:
            UsageError: the windows are not interleaved.
        """
        interleaving = self._content.interleaving
        if interleaving is None:
            raise UsageError("rows of ids are for windows with interleave=True")
        columns = self._mapped.read(*self.locate(windows))
        return interleaving.flat(columns["tokens"], columns["actions"])

    def stream(
        self, shard: NDArray[np.int32], row: Numbers, cuts: Sequence[int]
    ) -> Iterator[tuple[slice | Numbers, Batch]]:
        """Batches of windows cuts[i] to cuts[i + 1] of those at these rows of these shards.

        Each comes with which of them it has; windows in bad shards are left out when
        `skip_bad` is set.

        While the pages of scattered windows come from the disk, those of the windows to come are
        asked for ahead of time. Of windows in order the system itself reads on.
        """
        announced = 0
        for low, high in pairwise(cuts):
            if self._scattered and self._disk.is_read():
                after = min(high + LOOK_AHEAD, len(row))
                soon = slice(max(announced, low), after)
                self._mapped.announce(shard[soon], row[soon])
                announced = after
            these: slice | Numbers = slice(low, high)
            good = self._mapped.readable(shard[these])
            if good is not None:
                these = low + np.flatnonzero(good)
            yield these, self._content.batch(self._mapped.read(shard[these], row[these]))


class _Disk:
    """Whether what is mapped has to be read from disk, as the page faults of this process tell."""

    def __init__(self) -> None:
        self._faults, self._recent, self._batches = _major_faults(), 0.0, 0

    def is_read(self) -> bool:
        """Asked once per batch; stays true for a while, as pages asked for in time fault no more."""
        faults = _major_faults()
        self._recent = self._recent * 7 / 8 + faults - self._faults
        self._faults = faults
        self._batches = REMEMBERED if self._recent >= MANY_FAULTS else max(0, self._batches - 1)
        return self._batches > 0


def _major_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt
