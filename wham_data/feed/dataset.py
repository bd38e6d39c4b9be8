"""`WindowDataset`: windows of consecutive steps, in one order whoever reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.feed.batches import Batches, Place, Plan
from wham_data.feed.loop_state import Progress
from wham_data.feed.order import EpochDraws, Order
from wham_data.feed.prefetch import ahead
from wham_data.feed.remote_shards import announced, with_cache
from wham_data.feed.selection import Balance, Choice, UnknownActions, select
from wham_data.feed.tensors import Batch, Stream, this_worker
from wham_data.feed.view import Content, WindowView
from wham_data.feed.windows import Numbers, Shape
from wham_data.schemas.errors import MismatchError, UsageError

STATE_VERSION: Final = 1
PLANNED_WINDOWS: Final = 4_096
"""Windows that are looked up at once."""
SINGLE_WINDOWS: Final = 32
"""Windows that are read at once when the caller wants single windows."""
OnBadShard = Literal["raise", "skip"]
_DECISIVE: Final = ("windows", "seed", "shuffle", "pool")


class _Loop(NamedTuple):
    """One loop over a dataset, and this reader's part of it.

    start   where it began
    until   the first epoch that is not read any more; None: the loop never ends
    number  of the next batch, out of those of this rank
    every   this reader takes one batch in `every`
    """

    start: Place
    until: int | None
    number: int = 0
    every: int = 1


class _Piece(NamedTuple):
    """Windows of some batches of one epoch, and where they lie.

    windows   their numbers, int64 [W]
    shard     int32 [W]
    row       int64 [W]
    ends      of each batch among them, int64 [K]
    position  of each batch, int64 [K, 2]
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

    Iterating gives dictionaries of numpy arrays (tensors through a DataLoader). Besides the fields
    asked for there are `window`, int64 [B], the number of each window in `dataset.windows`, and
    `position`, int64 [2], which `state_dict(batch)` reads. Without `batch_size` it gives single
    windows, without the axis B.

    A window lies within one episode, one `keep` range and one split, so it never crosses a gap.

    The sequence of global batches (those of all ranks together) depends on the corpus' version, the
    settings of the windows, seed, epoch and global batch size alone: not on ranks, workers or
    restarts. One loop is one pass: `epochs` epochs, each with every window once (or as often as it
    weighs). In one process the next loop is the next epoch; a loop that was broken off begins again.
    DataLoader workers cannot tell how often they were started: call `set_epoch` before each loop, as
    with torch's DistributedSampler, or ask for several epochs at once.

    Attributes:
        windows: every window by number, for random access; see `WindowView`.
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
        """Find the windows; no shard is opened but those with unknown actions, or to balance.

        Args:
            corpus: a corpus or where it lies; or several with their shares, see `mix`.
            length: L, steps of a window.
            stride: steps from the start of a window to that of the next one.
            split: read only episodes of "train", "val" or "test"; None: of all splits.
            seed: seed of the shuffling; each seed gives another order.
            shuffle: False: in the order of shards and rows.
            rank: number of this rank, from 0 to world_size - 1.
            world_size: number of ranks. Each gets an equal part of a global batch.
            fields: some of `tokens`, `actions`, `action_known`, `step`, `time_ns`.
            batch_size: windows in a batch of one rank; None: single windows.
            next_observation: observations have one more step than actions: O_0, A_0, ..., O_L.
            interleave: instead of `tokens` and `actions` the rows of ids a world model reads, as
                `inputs` and `targets` [B, L (N + 16) - 1], each target the id after its input.
            unknown_actions: "drop" leaves out windows with a step whose action is not known; "keep"
                has them with NaN.
            weights: episode -> how often each of its windows comes per epoch. Default: 1.
            balance: "action": windows with rare actions come more often, see `balance`.
            drop_last: leave out the last batch of an epoch if it is short. Without, it may give some
                ranks one window more than others, or none.
            epochs: how many one loop goes through; None: it never ends.
            pool: shuffle only so many neighbouring windows with each other, for storage on which
                scattered reads are slow; None: all windows.
            prefetch: batches that a thread reads ahead; not in DataLoader workers, which do it.
            check_shards: compare the SHA-256 of every shard with the manifest's before its first
                window is read; without, a flipped bit in a matrix goes unnoticed. (What is fetched
                from an object store is compared in any case.)
            on_bad_shard: "raise" ends the loop at a shard that is missing or damaged; "skip" warns,
                notes it in `windows.bad_shards`, and leaves its windows out of their batches, which
                come short then, or not at all.
            cache_dir: where copies of shards from an object store are kept. Default: the folder in
                WHAM_DATA_CACHE_DIR, else the user's cache folder.
            cache_bytes: most bytes of these copies. Default: WHAM_DATA_CACHE_BYTES, else 32 GB.

        Raises:
            NoInputsError: there is no window.
            UsageError: settings that make no sense, or that the corpus has nothing for.
            MismatchError: corpora to be mixed differ in what a step is.
            IntegrityError: the manifest is damaged, or a shard that has to be read here.
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
        self._plan = Plan(
            len(self._draws), (batch_size or 1) * world_size, rank, world_size, drop_last
        )
        self._batch_size, self._epochs, self._prefetch = batch_size, epochs, prefetch
        for name, number in (("batch_size", batch_size), ("epochs", epochs), ("pool", pool)):
            if number is not None and number < 1:
                raise UsageError(f"{name} {number}: expected at least 1")
        if not self._plan.batches_left():
            raise UsageError(
                f"rank {rank} of {world_size} gets no batch out of {len(self._draws)} windows; take "
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
        self._progress = Progress()
        self._place: Place | None = None
        self._loop: _Loop | None = None
        self._resumed: _Loop | None = None

    @classmethod
    def mix(cls, corpora: Mapping[Any, float], **settings: Any) -> Self:
        """Windows of several corpora that have the same tokenizer and action space.

        Args:
            corpora: each (or its location) with its share of the windows that are drawn. An epoch
                has as many as the corpora have together: a small one comes round several times, of
                a large one each epoch goes on where the last one ended.
            settings: those of `WindowDataset`.
        """
        return cls(corpora, **settings)

    @property
    def epoch(self) -> int:
        """The epoch of the next batch, as far as this process knows."""
        return (self._place or self._progress.start[0]).epoch

    def set_epoch(self, epoch: int) -> None:
        """Let the next loop begin with this epoch; workers that are already running do so too."""
        self._begin_at(Place(epoch, 0))

    def __len__(self) -> int:
        """Batches (or single windows) of this rank in the next loop.

        Raises:
            TypeError: the loop never ends.
        """
        total = self._total(self._next_loop())
        if total is None:
            raise TypeError("a dataset with epochs=None has no length")
        return total

    def __iter__(self) -> Iterator[Batch]:
        """The batches (or single windows) of one loop; see the class."""
        worker = this_worker()
        number, every = worker or (0, 1)
        # Set up at once, not when the first batch is asked for: a state may be asked for before.
        loop = self._resumed or self._next_loop()._replace(number=number, every=every)
        self._loop, self._resumed, self._place = loop, None, None
        if worker:
            self._progress.begun_in_worker()
            return self._worked(loop)
        return self._handed_out(loop)

    def state_dict(self, batch: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Where this reader stands, as plain values for JSON.

        Args:
            batch: the last one that was used. Needed where worker processes read, as only they
                know what they have handed out; torchdata's StatefulDataLoader asks them itself.

        Raises:
            UsageError: worker processes read and no batch was given.
        """
        state: dict[str, Any] = {"version": STATE_VERSION, **self._identity}
        loop = self._loop or self._next_loop()
        if batch is None and this_worker():
            place, until = loop.start, loop.until
            state |= {"batches": loop.number, "workers": loop.every, "plan": asdict(self._plan)}
        elif batch is not None:
            place, until = self._plan.settled(_position(batch)), loop.until
        elif self._place is None and self._progress.in_workers:
            raise UsageError(
                "worker processes read this dataset, so what was used of it is known to you alone: "
                "state_dict(batch) with the last batch, or torchdata's StatefulDataLoader"
            )
        else:
            place, until = self._place or loop.start, loop.until
        over = until is not None and place.epoch >= until
        return state | {
            "epoch": place.epoch,
            "consumed": place.consumed,
            "until": None if over else until,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next loop begin right after what was consumed when `state` was made.

        Nothing is read to get there. Ranks and workers may be others. Where the global batch is of
        another size, the rest of the epoch is cut into batches anew.

        Args:
            state: of `state_dict`, or a whole one of torchdata's StatefulDataLoader.

        Raises:
            MismatchError: it is of other windows, another order, or a newer release.
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
                "this state is of single windows that the loader put into batches; "
                "go on with as many workers, or give batch_size to the dataset"
            )
        self._begin_at(Plan(**first["plan"]).after(start, min(numbers) + since), until)

    def _begin_at(self, place: Place, until: int | None = None) -> None:
        self._progress.begin_at(place, until)
        self._place = self._loop = self._resumed = None

    def _next_loop(self) -> _Loop:
        start, until = self._progress.start
        if until is None and self._epochs is not None:
            until = start.epoch + self._epochs
        return _Loop(start, until)

    def _total(self, loop: _Loop) -> int | None:
        """This rank's batches in a loop."""
        if loop.until is None:
            return None
        later = loop.until - loop.start.epoch - 1
        return self._plan.batches_left(loop.start.consumed) + later * self._plan.batches_left()

    def _worked(self, loop: _Loop) -> Iterator[Batch]:
        """A worker's batches of a loop."""
        for batch in self._made(loop):
            self._loop = loop = loop._replace(number=loop.number + loop.every)
            if np.size(batch["window"]):
                yield batch

    def _handed_out(self, loop: _Loop) -> Iterator[Batch]:
        """All batches of a loop, keeping track of where the reader stands."""
        total = self._total(loop)
        made = self._made(loop)
        for batch in ahead(made, self._prefetch) if self._prefetch else made:
            self._loop = loop = loop._replace(number=loop.number + 1)
            self._place = self._plan.settled(_position(batch))
            if loop.number == total and loop.until is not None:
                self._progress.begin_at(Place(loop.until, 0))
            if np.size(batch["window"]):
                yield batch

    def _made(self, loop: _Loop) -> Iterator[Batch]:
        """The batches of a loop, read; one whose windows are all skipped has none."""
        pieces = self._pieces(loop)
        if self.windows.copies is not None:
            pieces = announced(pieces, self.windows.copies)
        for piece in pieces:
            yield from self._read(piece)

    def _pieces(self, loop: _Loop) -> Iterator[_Piece]:
        """The batches of a loop, some thousand windows at a time."""
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
                mine = batches.epoch == epoch
                yield self._located(*drawn, Batches(*(column[mine] for column in batches)))
            first += at_once

    def _located(self, epoch: int, drawn: EpochDraws, batches: Batches) -> _Piece:
        """Find the windows of some batches of one epoch, and where they lie."""
        sizes = batches.high - batches.low
        ends = np.cumsum(sizes)
        places = np.repeat(batches.high - ends, sizes) + np.arange(ends[-1])
        windows = drawn.windows_at(self._order.draws(epoch, places))
        shard, row = self.windows.locate(windows)
        position = np.stack([batches.epoch, batches.after], axis=1)
        return _Piece(windows, shard, row, ends, position)

    def _read(self, piece: _Piece) -> Iterator[Batch]:
        """The batches of a piece."""
        windows, shard, row, ends, position = piece
        if self._batch_size:
            cuts = [0, *ends.tolist()]
            for nth, (these, batch) in enumerate(self.windows.stream(shard, row, cuts)):
                batch["window"], batch["position"] = windows[these], position[nth]
                yield batch
            return
        cuts = [*range(0, len(row), SINGLE_WINDOWS), len(row)]
        for (low, high), (these, batch) in zip(
            pairwise(cuts), self.windows.stream(shard, row, cuts), strict=True
        ):
            batch |= {"window": windows[these], "position": position[these]}
            singles = (
                {name: values[nth] for name, values in batch.items()}
                for nth in range(len(batch["window"]))
            )
            if isinstance(these, slice):
                yield from singles
                continue
            left = set(these.tolist())
            for one in range(low, high):
                skipped = {"window": windows[:0], "position": position[one]}
                yield next(singles) if one in left else skipped

    def _check(self, state: Mapping[str, Any]) -> None:
        """Refuse a state that was made with other windows or in another order."""
        version = state["version"]
        if version != STATE_VERSION:
            raise MismatchError(
                f"a state of version {version}, but this release reads {STATE_VERSION}"
            )
        if any(state[name] != self._identity[name] for name in _DECISIVE):
            differences = [
                f"{name} {state[name]}, not {mine}"
                for name, mine in self._identity.items()
                if state[name] != mine
            ]
            raise MismatchError(
                f"the state is of another order: {'; '.join(differences)}. Use the same settings; a "
                "corpus as it was is Corpus.open(location, version=N)"
            )


def _opened(corpus: Corpus | str | os.PathLike[str] | Mapping[Any, float]) -> dict[Corpus, float]:
    given = corpus if isinstance(corpus, Mapping) else {corpus: 1.0}
    if not given:
        raise UsageError("a mix of no corpora")
    return {
        each if isinstance(each, Corpus) else Corpus.open(each): share
        for each, share in given.items()
    }


def _position(batch: Mapping[str, Any]) -> Place:
    """Where a reader stands that has used a batch."""
    position = np.asarray(batch["position"])
    if position.shape != (2,):
        raise UsageError(
            f"position of shape {list(position.shape)}: windows that a loader put into batches come "
            "in no exact order; give batch_size to the dataset and batch_size=None to the loader"
        )
    return Place(int(position[0]), int(position[1]))


def _states_in(state: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], int]:
    """The states of all workers, and how many batches were handed out since they were made."""
    if "_snapshot" in state:
        workers = state["_snapshot"]["_worker_snapshots"].values()
        return [each["dataset_state"] for each in workers], state["_steps_since_snapshot"]
    return [state.get("dataset_state") or state], 0
