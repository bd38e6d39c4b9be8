"""The content of a window, and random access to windows by their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.feed.interleave import Interleaving
from wham_data.feed.mapped_shards import DTYPES, Column, MappedShards
from wham_data.feed.read_ahead import Disk, Piece, ReadAhead
from wham_data.feed.remote_shards import Copies
from wham_data.feed.selection import Selection
from wham_data.feed.tensors import Batch
from wham_data.feed.windows import Numbers, Shape
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.errors import UsageError

OBSERVED: Final = ("tokens", "step", "time_ns")
"""Fields of an observation; with `next_observation` a window has one more of each."""
ACTION_FIELDS: Final = ("actions", "action_known")
SCALARS: Final = ("step", "time_ns")
"""Fields with one number per step."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a window contains.

    shape         length of the window
    fields        names from OBSERVED and ACTION_FIELDS
    interleaving  how tokens and actions become `inputs` and `targets`; None: they stay separate

    Raises:
        UsageError: `fields` is empty or has an unknown name.
    """

    shape: Shape
    fields: tuple[str, ...]
    interleaving: Interleaving | None = None

    def __post_init__(self) -> None:
        known = (*OBSERVED, *ACTION_FIELDS)
        unknown = [field for field in self.fields if field not in known]
        if unknown or not self.fields:
            raise UsageError(
                f"fields {', '.join(map(repr, self.fields)) or 'none'}: expected some of "
                f"{', '.join(known)}; `Corpus.scan()` reads every column"
            )

    @classmethod
    def of(
        cls, info: CorpusInfo, shape: Shape, fields: Sequence[str], *, interleave: bool
    ) -> Content:
        """The content of the windows of a corpus.

        Args:
            info: description of the corpus.
            shape: length of the windows.
            fields: names from OBSERVED and ACTION_FIELDS.
            interleave: give `inputs` and `targets` too.

        Raises:
            UsageError: a field is unknown, tokens are requested but the corpus has none, or its
                actions cannot be interleaved.
        """
        if "tokens" in fields and info.tokenizer is None:
            raise UsageError(
                "fields: the corpus holds no tokens; leave 'tokens' out, or ingest with --tokenizer"
            )
        return cls(shape, tuple(fields), Interleaving.of(info) if interleave else None)

    def columns(self, info: CorpusInfo) -> dict[str, Column]:
        """The columns to read from the shards of a corpus: name -> column."""
        requested = [*self.fields, *(("tokens", "actions") if self.interleaving else ())]
        names = dict.fromkeys(
            "actions" if field == "action_known" else field for field in requested
        )
        numbers = {"tokens": info.n_tokens, "actions": info.action_space.size}
        rows = {
            name: self.shape.length + (name in OBSERVED) * self.shape.next_observation
            for name in names
        }
        return {name: Column(DTYPES[name], numbers.get(name, 1), rows[name]) for name in names}

    def batch(self, columns: dict[str, NDArray[Any]]) -> Batch:
        """Make a batch from columns.

        Args:
            columns: name -> array [B, rows, numbers in a row], for all names in `columns()`.

        Returns:
            tokens uint16 [B, rows, N], actions float32 [B, L, A], action_known bool [B, L], step
            int32 [B, rows], time_ns int64 [B, rows], inputs and targets [B, ids]; as requested.
        """
        batch: Batch = {}
        for field in self.fields:
            if field == "action_known":
                # All numbers of an unknown action are NaN.
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
    """Every window of a dataset by its number, which shuffling does not change.

    It can also be used as a map-style dataset of torch.

    view[7]              one window
    view[[7, 3, 4]]      a batch of three windows
    view[:100]           a batch of the first hundred windows

    Attributes:
        shards: the shards that contain the windows.
    """

    def __init__(self, selection: Selection, content: Content, *, scattered: bool = True) -> None:
        """Prepare to read; no shard is opened yet.

        Args:
            selection: the windows.
            content: what each window contains.
            scattered: windows are read in no order (not one after another).
        """
        self.shards = selection.shards
        self._windows, self._content = selection.windows, content
        self._disk = Disk() if scattered else None
        columns = content.columns(selection.shards.corpora[0].info)
        self._mapped = MappedShards(
            selection.shards, selection.windows, columns, scattered=scattered
        )

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[np.integer[Any]]) -> Batch:
        """Read one window, or a batch of windows, whose arrays have one more axis B in front.

        Args:
            index: number of a window, or several, int [B]; negative numbers count from the end.

        Raises:
            IndexError: there is no such window.
            IntegrityError: a shard is missing, damaged, or does not match the manifest.
        """
        if isinstance(index, slice):
            return self.batch(np.arange(*index.indices(len(self))))
        numbers = np.asarray(index)
        if numbers.dtype.kind not in "iu" and numbers.size:
            raise IndexError(f"window {index!r}: expected a number, a slice or a list of numbers")
        numbers = numbers.astype(np.int64)
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"window {index!r}: there are {len(self)} windows")
        if numbers.ndim:
            return self.batch(numbers)
        return {name: values[0] for name, values in self.batch(numbers[None]).items()}

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        """Read several windows together; torch's DataLoader calls this method."""
        batch = self[np.asarray(indices)]
        return [{name: values[i] for name, values in batch.items()} for i in range(len(indices))]

    def batch(self, windows: Numbers) -> Batch:
        """Read a batch of windows.

        Args:
            windows: numbers of windows, int64 [B] in [0, len(self)); not checked.

        Raises:
            IntegrityError: a shard is missing, damaged, or does not match the manifest.
        """
        shard, row = self.locate(windows)
        if self._disk is not None and self._disk.is_read():
            self._mapped.announce(shard, row)
        return self._content.batch(self._mapped.read(shard, row))

    @property
    def bad_shards(self) -> dict[str, str]:
        """Path or URL of each bad shard that this process skips -> the error."""
        return self._mapped.bad

    @property
    def copies(self) -> Copies | None:
        """The shards that must be downloaded; None if all are on this machine."""
        return self._mapped.copies

    def locate(self, windows: Numbers) -> tuple[NDArray[np.int32], Numbers]:
        """The shard, int32 [B], and the first row, int64 [B], of windows, int64 [B]."""
        return self._windows.locate(windows)

    def flat(self, windows: Numbers) -> NDArray[np.uint16] | NDArray[np.int32]:
        """The complete rows of token ids of windows: `inputs` followed by the last of `targets`.

        Args:
            windows: numbers of windows, int64 [B] in [0, len(self)); not checked.

        Returns:
            uint16 or int32 [B, ids], see `Interleaving.flat`.

        Raises:
            UsageError: the windows are not interleaved.
            IntegrityError: a shard is missing, damaged, or does not match the manifest.
        """
        interleaving = self._content.interleaving
        if interleaving is None:
            raise UsageError("rows of token ids need a dataset with interleave=True")
        columns = self._mapped.read(*self.locate(windows))
        return interleaving.flat(columns["tokens"], columns["actions"])

    def read_ahead(self, pieces: Iterable[Piece]) -> ReadAhead[Piece]:
        """The same pieces; scattered windows are requested from the disk before `stream` reads them.

        For windows in order the system reads ahead by itself, and in larger parts.
        """
        return ReadAhead(pieces, self._mapped.announce, self._disk, self._mapped.window_bytes)

    def stream(
        self, piece: Piece, cuts: Sequence[int], ahead: ReadAhead[Piece]
    ) -> Iterator[tuple[slice | Numbers, Batch]]:
        """Read the windows of a piece in batches.

        Args:
            piece: shards and rows of W windows.
            cuts: batch i has the windows cuts[i] to cuts[i + 1] (half-open).
            ahead: what gave the piece.

        Yields:
            the positions in the piece of the windows that were read (a slice or int64 [B]), and the
            batch. Windows in bad shards are left out when `skip_bad` is set.

        Raises:
            IntegrityError: a shard is missing, damaged, or does not match the manifest.
        """
        for low, high in pairwise(cuts):
            ahead.advance(high - low)
            positions: slice | Numbers = slice(low, high)
            good = self._mapped.readable(piece.shard[positions])
            if good is not None:
                positions = low + np.flatnonzero(good)
            yield (
                positions,
                self._content.batch(
                    self._mapped.read(piece.shard[positions], piece.row[positions])
                ),
            )
