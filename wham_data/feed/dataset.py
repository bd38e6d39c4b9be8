"""`WindowDataset`: windows of consecutive steps, in an order that does not depend on the reader."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.feed.batches import Batches, BatchPlan, Place
from wham_data.feed.loop_state import LoopState, Span
from wham_data.feed.order import EpochDraws, Order
from wham_data.feed.prefetch import ahead
from wham_data.feed.read_ahead import ReadAhead
from wham_data.feed.remote_shards import announced, with_cache
from wham_data.feed.selection import Balance, Choice, UnknownActions, select
from wham_data.feed.tensors import Batch, Stream, WholeBatch, Worker, this_worker
from wham_data.feed.view import Content, WindowView
from wham_data.feed.windows import Numbers, Shape
from wham_data.schemas.errors import MismatchError, UsageError

STATE_VERSION: Final = 1
PLANNED_WINDOWS: Final = 4_096
"""Windows whose place in the shards is looked up in one step."""
SINGLE_WINDOWS: Final = 32
"""Windows that are read in one step when the dataset gives single windows."""
OnBadShard = Literal["raise", "skip"]
_ORDER_SETTINGS: Final = ("windows", "seed", "shuffle", "pool")
"""The parts of a state that must agree with the dataset: they decide the order of the windows."""


class _Loop(NamedTuple):
    """One loop over a dataset, and this reader's part of it.

    start   position at which the loop began
    until   the epoch before which it ends; None: the loop never ends
    number  number of this reader's next batch among the batches of its rank
    every   this reader takes one batch in every `every`
    """

    start: Place
    until: int | None
    number: int = 0
    every: int = 1


class _Piece(NamedTuple):
    """The W windows of K batches of one epoch, and their places in the shards.

    windows   number of each window, int64 [W]
    shard     shard of each window, int32 [W]
    row       first row of each window in its shard, int64 [W]
    ends      number of windows in batches 0 to k together, int64 [K]
    position  epoch, and draws given out after the batch; int64 [K, 2]
    """

    windows: Numbers
    shard: NDArray[np.int32]
    row: Numbers
    ends: Numbers
    position: Numbers


class WindowDataset(Stream):
    """Windows of L consecutive steps of a corpus, for training.

        dataset = WindowDataset("corpus", length=10, batch_size=32)
        for batch in torch.utils.data.DataLoader(dataset, batch_size=None):
            batch["tokens"]      # uint16  [32, 10, N]
            batch["actions"]     # float32 [32, 10, A]

    Iterating gives dictionaries of numpy arrays (of tensors through a DataLoader). Besides the
    requested fields each has `window`, int64 [B], the number of each window in `dataset.windows`, and
    `position`, int64 [2], which `state_dict(batch)` reads. Without `batch_size` the dataset gives
    single windows, whose arrays have no axis B.

    A window lies within one episode, one `keep` range and one split, so it never crosses a gap.

    The sequence of global batches (the batches of all ranks together) depends only on the version of
    the corpus, the settings of the windows, the seed, the epoch and the global batch size. It does
    not depend on the number of ranks or workers, or on restarts.

    One loop reads `epochs` epochs. Each epoch has every window once, or as often as its weight says.
    The next loop reads the next epoch. After a loop that was left early the same epoch begins again; but
    with DataLoader workers, which read in advance, the next epoch begins then too, with a warning.
    `set_epoch` before a loop chooses its epoch in both cases.

    Attributes:
        windows: every window by its number, for random access; see `WindowView`.
    """

    def __init__(
        self,
        corpus: Corpus | str | os.PathLike[str] | Mapping[Any, float],
        length: int = 10,
        stride: int = 1,
        split: str | None = "train",
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        fields: Sequence[str] = ("tokens", "actions"),
        batch_size: int | None = None,
        *,
        next_observation: bool = False,
        interleave: bool = False,
        unknown_actions: UnknownActions = "drop",
        weights: Mapping[str, float] | None = None,
        balance: Balance | None = None,
        drop_last: bool = False,
        epochs: int | None = 1,
        pool: int | None = None,
        prefetch: int = 0,
        check_shards: bool = False,
        on_bad_shard: OnBadShard = "raise",
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        """Find the windows.

        Opens no shard, with two exceptions: shards with unknown actions when `unknown_actions` is
        "drop", and all shards when `balance` is set.

        Args:
            corpus: a corpus or its location; or several of them with their shares, see `mix`.
            length: L, number of steps in a window.
            stride: steps from the start of a window to the start of the next one.
            split: read only episodes of "train", "val" or "test"; None: of all splits.
            seed: seed of the shuffle; each seed gives another order.
            shuffle: False: windows come in the order of shards and rows.
            rank: number of this rank, from 0 to world_size - 1.
            world_size: number of ranks. Each gets an equal part of a global batch.
            fields: some of `tokens`, `actions`, `action_known`, `step`, `time_ns`.
            batch_size: windows in a batch of one rank; None: single windows.
            next_observation: observations have one more step than actions: O_0, A_0, ..., O_L.
            interleave: give rows of token ids for a world model instead of `tokens` and `actions`:
                `inputs` and `targets` [B, L (N + 16) - 1]. Each target is the id after its input.
            unknown_actions: "drop" leaves out windows in which any step has an unknown action;
                "keep" includes them, with NaN for the unknown actions.
            weights: episode -> how often each of its windows comes per epoch. Default: 1.
            balance: "action": windows with rare actions come more often; see `feed/balance.py`. A
                `Path`: as the weights in this file say, from `wham-data stats --balance --out`.
            drop_last: leave out the last batch of an epoch if it is smaller than the others. False:
                in that batch some ranks may get one window more than others, or no window.
            epochs: number of epochs in one loop; None: the loop never ends.
            pool: shuffle only this many neighbouring windows with each other, for storage on which
                scattered reads are slow; None: all windows.
            prefetch: number of batches that a thread reads in advance. DataLoader workers read in
                advance themselves and ignore it.
            check_shards: compare the SHA-256 of every shard with the manifest before its first window
                is read. False: a changed bit in a matrix is not detected. (Whole shards from an
                object store are always compared; parts of them by their pages' CRC-32 if False.)
            on_bad_shard: what to do at a missing or damaged shard. "raise" raises an error; "skip"
                warns, lists it in `windows.bad_shards` and leaves its windows out. Their batches
                are then smaller, and a batch without windows is left out.
            cache_dir: folder for copies of shards from an object store. Default: the folder in
                WHAM_DATA_CACHE_DIR, else the user's cache folder.
            cache_bytes: largest size of all these copies together. Default: WHAM_DATA_CACHE_BYTES,
                else 32 GB.

        Raises:
            NoInputsError: there is no window.
            UsageError: a setting has a value that is not allowed or does not fit the corpus.
            MismatchError: corpora to be mixed differ in tokenizer, action space or rate.
            IntegrityError: the manifest, or a shard that must be read here, is damaged.
        """
        shape = Shape(length, stride, next_observation)
        if on_bad_shard not in ("raise", "skip"):
            raise UsageError(f"on_bad_shard {on_bad_shard!r}: expected 'raise' or 'skip'")
        corpora = {
            with_cache(each, cache_dir, cache_bytes): share
            for each, share in _opened(corpus).items()
        }
        info = next(iter(corpora)).info
        content = Content.of(info, shape, fields, interleave=interleave)
        choice = Choice(
            split, unknown_actions, weights, balance, check_shards, on_bad_shard == "skip"
        )
        if interleave and unknown_actions == "keep":
            raise UsageError("interleave: an unknown action has no token; drop such windows")
        selection = select(corpora, shape, choice)
        self.windows = WindowView(selection, content, scattered=shuffle and pool is None)
        self._draws = selection.draws
        self._order = Order(len(self._draws), seed, shuffle, pool)
        self._plan = BatchPlan(
            len(self._draws), (batch_size or 1) * world_size, rank, world_size, drop_last
        )
        self._batch_size, self._epochs, self._prefetch = batch_size, epochs, prefetch
        for name, number in (("batch_size", batch_size), ("epochs", epochs), ("pool", pool)):
            if number is not None and number < 1:
                raise UsageError(f"{name} {number}: expected at least 1")
        if not self._plan.batches_left():
            raise UsageError(
                f"rank {rank} of {world_size} gets no batch out of {len(self._draws)} windows; use "
                "smaller batches"
            )
        self._identity = {
            "versions": [each.version for each in corpora],
            "split": split,
            "length": length,
            "stride": stride,
            "windows": selection.fingerprint(),
            "seed": seed,
            "shuffle": shuffle,
            "pool": pool,
        }
        self._loop_state = LoopState()
        self._place: Place | None = None
        self._loop: _Loop | None = None
        self._resumed: _Loop | None = None
        self._begun = 0  # loops that this process has begun as a worker

    @classmethod
    def mix(cls, corpora: Mapping[Any, float], **settings: Any) -> Self:
        """Windows of several corpora that have the same tokenizer, action space and rate.

        Args:
            corpora: corpus (or its location) -> its share of the windows, any number above 0. The
                number of windows in an epoch is that of all corpora together. So windows of a small
                corpus come several times per epoch, and a large corpus needs several epochs; each
                epoch continues in it where the last one ended.
            settings: the other arguments of `WindowDataset`.

        Raises:
            WhamDataError: the same errors as `WindowDataset`.
        """
        return cls(corpora, **settings)

    @property
    def epoch(self) -> int:
        """The epoch of the next batch; batches that worker processes have read are not counted."""
        return (self._place or (self._loop_state.begun or self._loop_state.following).start).epoch

    def set_epoch(self, epoch: int) -> None:
        """Begin the next loop with this epoch, also in workers that are already running."""
        self._begin_at(Place(epoch, 0))

    def __len__(self) -> int:
        """Number of batches (or single windows) of this rank in the next loop.

        Raises:
            TypeError: the loop never ends.
        """
        total = self._total(self._next_loop())
        if total is None:
            raise TypeError("a dataset with epochs=None has no length")
        return total

    def __iter__(self) -> Iterator[Batch]:
        """The batches (or single windows) of one loop; the class describes them."""
        if (worker := this_worker()) is not None:
            return self._iter_in_worker(worker)
        self._loop_state.leave_others()
        # Done now, not at the first batch, because `state_dict` may be called before the first batch.
        self._loop, self._place = self._next_loop(), None
        if self._loop_state.begun:
            self._loop_state.begin_at(self._loop.start, self._loop.until)
        return self._loop_in_main(self._loop)

    def _iter_in_worker(self, worker: Worker) -> Iterator[Batch]:
        """The batches of one loop that this worker makes."""
        self._begun += 1
        resumed, self._resumed = self._resumed, None
        key = hash((worker.seed, self._begun))
        span = self._loop_state.begin_in_worker(
            key, worker.main, worker.workers, self._epochs, resumed and Span(*resumed[:2])
        )
        self._loop = loop = resumed or _Loop(*span, worker.number, worker.workers)
        end = partial(self._loop_state.end_in_worker, key, worker.main)
        total = self._total(loop)
        if total is None or loop.number < total:
            return self._loop_in_worker(loop, end)
        end()  # now: torchdata's StatefulDataLoader may begin the next loop without reading this one
        return iter(())

    def state_dict(self, batch: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The position of this reader, as plain values that JSON can hold.

        Args:
            batch: the last batch that was used. Needed if worker processes read the dataset, because
                the main process does not know which of their batches were used. (torchdata's
                StatefulDataLoader calls this method in the workers, without a batch.)

        Returns:
            settings that decide the order, and `epoch`, `consumed` and `until`.

        Raises:
            UsageError: worker processes read the dataset and `batch` is None.
        """
        state: dict[str, Any] = {"version": STATE_VERSION, **self._identity}
        loop, begun = self._loop or self._next_loop(), self._loop_state.begun
        place, until = self._place or loop.start, loop.until
        if batch is None and this_worker():
            place = loop.start
            state |= {"batches": loop.number, "workers": loop.every, "plan": asdict(self._plan)}
        elif batch is not None:
            place, until = self._plan.normalized(_position(batch)), (begun or loop).until
        elif self._place is None and begun:
            raise UsageError(
                "worker processes read this dataset, so only the caller knows which batches were used: "
                "call state_dict(batch) with the last batch, or use torchdata's StatefulDataLoader"
            )
        over = until is not None and place.epoch >= until
        return state | {
            "epoch": place.epoch,
            "consumed": place.consumed,
            "until": None if over else until,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin the next loop right after the batches that had been used when `state` was made.

        No data is read. The numbers of ranks and workers may have changed. If the global batch size
        has changed, the rest of the epoch is divided into batches again.

        Args:
            state: a result of `state_dict`, or the whole state of torchdata's StatefulDataLoader.

        Raises:
            MismatchError: the state is from other windows, another order, or another release.
            UsageError: `state` is not such a state, or its single windows were put into batches by
                the loader.
        """
        try:
            states, since = _states_in(state)
            for each in states:
                self._check(each)
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"not a state of a WindowDataset: {error!r}") from error
        first = states[0]
        start, until = Place(first["epoch"], first["consumed"]), first["until"]
        if "batches" not in first:
            self._begin_at(start, until)
            return
        numbers = [each["batches"] for each in states]
        if this_worker():
            self._resumed = _Loop(start, until, numbers[0], first["workers"])
            return
        if max(numbers) - min(numbers) > first["workers"]:
            raise UsageError(
                "this state is from single windows that the loader put into batches; "
                "use the same number of workers, or give batch_size to the dataset"
            )
        place = BatchPlan(**first["plan"]).after(start, min(numbers) + since)
        over = until is not None and place.epoch >= until
        self._begin_at(place, None if over else until)

    def _begin_at(self, place: Place, until: int | None = None) -> None:
        if not this_worker():
            self._loop_state.leave_others()
        self._loop_state.begin_at(place, until)
        self._place = self._loop = self._resumed = None

    def _next_loop(self) -> _Loop:
        start, until = self._loop_state.following
        if until is None and self._epochs is not None:
            until = start.epoch + self._epochs
        return _Loop(start, until)

    def _total(self, loop: _Loop) -> int | None:
        """Number of this rank's batches in a loop; None: the loop never ends."""
        if loop.until is None:
            return None
        later = loop.until - loop.start.epoch - 1
        return self._plan.batches_left(loop.start.consumed) + later * self._plan.batches_left()

    def _loop_in_worker(self, loop: _Loop, end: Callable[[], None]) -> Iterator[Batch]:
        for batch in self._read_batches(loop):
            self._loop = loop = loop._replace(number=loop.number + loop.every)
            if np.size(batch["window"]):
                yield batch
        end()

    def _loop_in_main(self, loop: _Loop) -> Iterator[Batch]:
        """All batches of a loop; records the reader's position at each."""
        total = self._total(loop)
        batches = self._read_batches(loop)
        for batch in ahead(batches, self._prefetch) if self._prefetch else batches:
            self._loop = loop = loop._replace(number=loop.number + 1)
            self._place = self._plan.normalized(_position(batch))
            if loop.number == total and loop.until is not None:
                self._loop_state.begin_at(Place(loop.until, 0))
            if np.size(batch["window"]):
                yield batch

    def _read_batches(self, loop: _Loop) -> Iterator[Batch]:
        """The batches of a loop; a batch has no windows if all its shards are bad and skipped."""
        pieces = self._pieces(loop)
        if self.windows.copies is not None:
            pieces = announced(pieces, self.windows.copies)
        ahead = self.windows.read_ahead(pieces)
        for piece in ahead:
            yield from self._read_piece(piece, ahead)

    def _pieces(self, loop: _Loop) -> Iterator[_Piece]:
        """The places of a loop's windows, about PLANNED_WINDOWS windows at a time."""
        total = self._total(loop)
        at_once = max(1, PLANNED_WINDOWS // (self._batch_size or 1)) * loop.every
        drawn: tuple[int, EpochDraws] | None = None
        first = loop.number
        while total is None or first < total:
            after = first + at_once if total is None else min(first + at_once, total)
            batches = self._plan.batches(loop.start, np.arange(first, after, loop.every))
            for epoch in np.unique(batches.epoch).tolist():
                if drawn is None or drawn[0] != epoch:
                    drawn = epoch, self._draws.in_epoch(epoch)
                in_epoch = batches.epoch == epoch
                yield self._locate(*drawn, Batches(*(column[in_epoch] for column in batches)))
            first += at_once

    def _locate(self, epoch: int, drawn: EpochDraws, batches: Batches) -> _Piece:
        """Find the windows of some batches of one epoch, and their places in the shards."""
        sizes = batches.high - batches.low
        ends = np.cumsum(sizes)
        places = np.repeat(batches.high - ends, sizes) + np.arange(ends[-1])
        windows = drawn.windows_at(self._order.draws(epoch, places))
        shard, row = self.windows.locate(windows)
        position = np.stack([batches.epoch, batches.after], axis=1)
        return _Piece(windows, shard, row, ends, position)

    def _read_piece(self, piece: _Piece, ahead: ReadAhead[_Piece]) -> Iterator[Batch]:
        """The batches (or single windows) of a piece."""
        windows, _, row, ends, position = piece
        if self._batch_size:
            cuts = [0, *ends.tolist()]
            for nth, (rows_read, batch) in enumerate(self.windows.stream(piece, cuts, ahead)):
                batch["window"], batch["position"] = windows[rows_read], position[nth]
                yield WholeBatch(batch)
            return
        cuts = [*range(0, len(row), SINGLE_WINDOWS), len(row)]
        for (low, high), (rows_read, batch) in zip(
            pairwise(cuts), self.windows.stream(piece, cuts, ahead), strict=True
        ):
            batch |= {"window": windows[rows_read], "position": position[rows_read]}
            singles = (
                {name: values[nth] for name, values in batch.items()}
                for nth in range(len(batch["window"]))
            )
            if isinstance(rows_read, slice):
                yield from singles
                continue
            good = set(rows_read.tolist())
            for one in range(low, high):
                skipped = {"window": windows[:0], "position": position[one]}
                yield next(singles) if one in good else skipped

    def _check(self, state: Mapping[str, Any]) -> None:
        """Raise an error if `state` was made with other windows or in another order."""
        version = state["version"]
        if version != STATE_VERSION:
            raise MismatchError(
                f"the state has version {version}, but this release reads version {STATE_VERSION}"
            )
        if any(state[name] != self._identity[name] for name in _ORDER_SETTINGS):
            differences = [
                f"{name} {state[name]}, not {mine}"
                for name, mine in self._identity.items()
                if state[name] != mine
            ]
            raise MismatchError(
                f"the state is of another order: {'; '.join(differences)}. Use the same settings; "
                "Corpus.open(location, version=N) opens an earlier version of a corpus"
            )


def _opened(corpus: Corpus | str | os.PathLike[str] | Mapping[Any, float]) -> dict[Corpus, float]:
    given = corpus if isinstance(corpus, Mapping) else {corpus: 1.0}
    if not given:
        raise UsageError("mix: no corpora were given; expected at least one")
    return {
        each if isinstance(each, Corpus) else Corpus.open(each): share
        for each, share in given.items()
    }


def _position(batch: Mapping[str, Any]) -> Place:
    """The position of a reader that has used this batch."""
    position = np.asarray(batch["position"])
    if position.shape != (2,):
        raise UsageError(
            f"position of shape {list(position.shape)}: the loader put single windows into batches, so "
            "their order is not exact; give batch_size to the dataset and batch_size=None to the loader"
        )
    return Place(int(position[0]), int(position[1]))


def _states_in(state: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], int]:
    """The states of all workers, and the number of batches given out after they were made."""
    if "_snapshot" in state:
        workers = state["_snapshot"]["_worker_snapshots"].values()
        return [each["dataset_state"] for each in workers], state["_steps_since_snapshot"]
    return [state.get("dataset_state") or state], 0
