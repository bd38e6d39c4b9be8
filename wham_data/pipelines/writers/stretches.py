"""The steps to export: stretches of a corpus's episodes, with their data read as streams.

An episode is cut where it has steps that a format cannot hold. The numbers of a stretch are read
whole (a day of actions at 10 Hz has about 60 MB). Its pictures and tokens are read as a stream:
only a few dozen are in memory at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.corpus.shard_view import matrix_of
from wham_data.pipelines.video import decode_image, encode_png
from wham_data.schemas.clock import SECOND_NS, Nanos, runs_of
from wham_data.schemas.conversion import Conversion
from wham_data.schemas.corpus_info import content_hash
from wham_data.schemas.errors import IntegrityError, Reason, RefusedInput
from wham_data.schemas.manifest import EpisodeRow
from wham_data.schemas.recording import Frames
from wham_data.schemas.steps import FLOAT, TOKEN

Numbers = NDArray[np.float32]
DECODED_AT_ONCE: Final = 32
LONGEST_NAME: Final = 100
_PLAIN: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}")


class Decoder(Protocol):
    """Makes pictures of tokens."""

    def ask(self, tokens: NDArray[np.uint16], /) -> Frames:
        """uint16 [n, N] in, uint8 [n, H, W, 3] out."""
        ...


class Unfit(Exception):
    """Raised for an episode that cannot be exported, with the reason."""

    def __init__(self, stretch: Stretch, why: RefusedInput | IntegrityError) -> None:
        super().__init__(str(why))
        self.stretch = stretch
        self.why = why


@dataclass(frozen=True, slots=True, eq=False)
class ExportSource:
    """The corpus to export.

    conversion  from its action space to the action space of the export
    decoder     makes pictures from tokens; None if pictures are stored, or not needed
    advance     called with the number of pictures that were just read
    """

    corpus: Corpus
    conversion: Conversion
    decoder: Decoder | None = None
    advance: Callable[[int], None] = field(default=lambda _: None)


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Consecutive steps of an episode that are exported as an episode of their own.

    row    the episode's row in the manifest
    start  its first step
    stop   the step after its last
    """

    source: ExportSource
    row: EpisodeRow
    start: int
    stop: int

    @property
    def name(self) -> str:
        """A plain file name without suffix: the episode's name, and the first step if it is not 0."""
        plain = self.row.episode
        if not _PLAIN.fullmatch(plain):
            plain = f"episode-{content_hash(plain)}"
        return plain if self.start == 0 else f"{plain}.{self.start}"

    @property
    def split(self) -> str:
        """The split of the episode."""
        return self.row.split

    @property
    def n_steps(self) -> int:
        """T."""
        return self.stop - self.start

    @property
    def identity(self) -> str:
        """A text that changes when the content changes, but not when the shard is moved."""
        row = self.row
        captions = f"-{content_hash(repr(row.captions))}" if row.captions else ""
        return f"{row.recording}-{row.settings}-{row.episode}-{self.start}-{self.stop}{captions}"

    def refuse(self, reason: Reason, message: str) -> Unfit:
        """The exception that a writer raises for steps that its format can't hold."""
        return Unfit(self, RefusedInput(reason, message))

    def times_ns(self) -> Nanos:
        """When the steps begin, on the recording's clock, int64 [T]."""
        return np.asarray(self._column("time_ns").to_numpy(), np.int64)

    def actions(self) -> Numbers:
        """Actions in the action space of the export, float32 [T, A]. An unknown action is all NaN."""
        native = matrix_of(self._column("actions"), FLOAT)
        conversion = self.source.conversion
        seconds = None
        if len(conversion.speeds):
            times_ns = self.times_ns()
            lasts_ns = np.diff(times_ns, append=times_ns[-1:])
            lasts_ns[-1] = lasts_ns[-2] if len(lasts_ns) > 1 else SECOND_NS
            seconds = lasts_ns / SECOND_NS
        return conversion.apply(native, seconds)

    def states(self) -> Numbers | None:
        """float32 [T, S]; None if the corpus has no states for this episode."""
        column = self._optional("state")
        return None if column is None or column.null_count else matrix_of(column, FLOAT)

    def rewards(self) -> Numbers | None:
        """float32 [T]; None if the corpus has no rewards for this episode."""
        column = self._optional("reward")
        if column is None or column.null_count:
            return None
        return np.asarray(column.to_numpy(), np.float32)

    def texts(self) -> list[str | None] | None:
        """T texts; None if the corpus has no texts."""
        with self._reading():
            there = self.source.corpus.open_shard(self.row.shard).has_text
        return list(self._column("text").to_pylist()) if there else None

    def tokens(self) -> Iterator[NDArray[np.uint16]]:
        """Tokens in blocks of a few steps, uint16 [n, N]."""
        for table in self._tables("tokens"):
            yield matrix_of(table.column("tokens").combine_chunks(), TOKEN)

    def frames(self) -> Iterator[Frames]:
        """Pictures one by one, uint8 [H, W, 3]: the stored ones, or else decoded from the tokens."""
        with self._reading():
            for picture in self._decoded() if self.source.decoder else self._stored():
                self.source.advance(1)
                yield picture

    def coded_frames(self) -> Iterator[bytes]:
        """Image files one by one, coded as `Content.coding` says: stored, or decoded into a PNG."""
        if self.source.decoder is not None:
            yield from map(encode_png, self.frames())
            return
        for table in self._tables("frame"):
            for coded in table.column("frame"):
                self.source.advance(1)
                yield coded.as_py()

    def check_steady(self, rate: Fraction) -> None:
        """Check that steps are evenly spaced, to less than half a step.

        Raises:
            Unfit: a step is off by half a step or more.
        """
        times_ns = self.times_ns()
        step_ns = SECOND_NS / rate
        off = np.abs(times_ns - times_ns[0] - np.arange(self.n_steps) * float(step_ns))
        if (late := np.flatnonzero(off >= float(step_ns / 2))).size:
            raise self.refuse(
                Reason.LOG_CLOCK,
                f"its steps are not {rate} a second throughout: step {late[0]} is "
                f"{off[late[0]] / 1e6:.1f} ms off. Ingest with --rate {round(rate)}",
            )

    def _stored(self) -> Iterator[Frames]:
        width, height = self.source.corpus.info.size
        for table in self._tables("frame"):
            for coded in table.column("frame"):
                picture = decode_image(coded.as_py())
                if picture.shape != (height, width, 3):
                    raise IntegrityError(
                        f"{self.row.shard}: a picture of {picture.shape[1]}x{picture.shape[0]}, "
                        f"expected {width}x{height}"
                    )
                yield picture

    def _decoded(self) -> Iterator[Frames]:
        assert self.source.decoder is not None
        for block in self.tokens():
            for first in range(0, len(block), DECODED_AT_ONCE):
                yield from self.source.decoder.ask(block[first : first + DECODED_AT_ONCE])

    def _optional(self, name: str) -> pa.Array | None:
        info = self.source.corpus.info
        there = {"state": info.state_size > 0, "reward": info.reward}
        return self._column(name) if there[name] else None

    def _column(self, name: str) -> pa.Array:
        tables = [table.select([name]) for table in self._tables(name)]
        return pa.concat_tables(tables).column(name).combine_chunks()

    def _tables(self, *columns: str) -> Iterator[pa.Table]:
        """The rows, a few at a time."""
        with self._reading():
            view = self.source.corpus.open_shard(self.row.shard)
            view.must_hold(self.row.episode, self.row.row_start, self.row.n_steps)
            first = self.row.row_start
            yield from view.stream_rows(first + self.start, first + self.stop, columns)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turns errors in reading into `Unfit`, which names the episode."""
        try:
            yield
        except (RefusedInput, IntegrityError) as why:
            raise Unfit(self, why) from why


def stretches_of(
    source: ExportSource, row: EpisodeRow, *, known: bool, ended: bool = True
) -> list[Stretch]:
    """The stretches of an episode inside its `keep` ranges, as a format needs them.

    Args:
        source: the corpus.
        row: the episode.
        known, ended: see `parts.Demands`.

    Raises:
        Unfit: the episode can't be read.
    """
    whole = Stretch(source, row, 0, row.n_steps)
    good = np.zeros(row.n_steps, np.bool_)
    for start, stop in row.keep or ((0, row.n_steps),):
        good[start:stop] = True
    runs = runs_of(good)
    if known and row.missing_actions:
        acted = whole._column("action_known").to_numpy(zero_copy_only=False)
        runs = runs_of(good & acted) if ended else runs_between(good, acted)
    return [Stretch(source, row, start, stop) for start, stop in runs]


def runs_between(good: NDArray[np.bool_], acted: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The runs of True in `good`, each cut after every step that is not `acted`.

    A run that is only such a step is left out: it has no action at all.
    """
    runs = []
    for first, end in runs_of(good):
        cuts = first + 1 + np.flatnonzero(~acted[first:end])
        edges = np.unique([first, *cuts, end]).tolist()
        runs += [(start, stop) for start, stop in pairwise(edges) if acted[start]]
    return runs


def rate_of(corpus: Corpus, rows: Sequence[EpisodeRow]) -> Fraction | None:
    """Steps per second of all these episodes; None if they differ."""
    if isinstance(corpus.info.rate, Fraction):
        return corpus.info.rate
    rates = {Fraction(row.source_fps).limit_denominator(1001) for row in rows}
    return rates.pop() if len(rates) == 1 and min(rates) > 0 else None
