"""Find the same play in the recordings of a corpus, by what their pictures show."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from wham_data.corpus import Corpus
from wham_data.pipelines.curate.not_play.job import EpisodesProgress, pictures_of, rate_of
from wham_data.pipelines.curate.same_play.hashes import Hashes, difference_hashes
from wham_data.pipelines.curate.same_play.search import Same, same_play
from wham_data.pipelines.run.progress import ProgressListener, Silent
from wham_data.schemas.errors import UsageError

LEAST_S: Final = 20.0
"""Shorter stretches are not reported: two players may do the same for a while."""


@dataclass(frozen=True, slots=True)
class Twice:
    """Play that is in two episodes, in steps [start, stop).

    hours         of it
    near          share of the steps whose pictures are nearly the same, 0 to 1
    across_splits whether the two are in different splits, so that a test would see what was trained on
    """

    episode: str
    start: int
    stop: int
    other: str
    other_start: int
    other_stop: int
    hours: float
    near: float
    across_splits: bool


@dataclass(frozen=True, slots=True)
class DuplicateReport:
    """What `find_duplicates` found.

    location, version  of the corpus
    episodes, hours    that were compared
    twice              the stretches, the longest first
    """

    location: str
    version: int
    episodes: int
    hours: float
    twice: tuple[Twice, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def find_duplicates(
    corpus: Corpus,
    *,
    least_s: float = LEAST_S,
    tokenizer: str | None = None,
    device: str = "cpu",
    watch: ProgressListener | None = None,
) -> DuplicateReport:
    """Find stretches of play that two recordings have in common: re-encoded, cut or overlapping.

    Args:
        corpus: the corpus; it is not changed.
        least_s: seconds of the shortest stretch that is reported.
        tokenizer, device, watch: as in `filter_corpus`.

    Raises:
        UsageError: there are no pictures, and no tokens that can be decoded.
        IntegrityError: a shard is damaged, or a picture does not decode.
    """
    watch, pictures = watch or Silent(), pictures_of(corpus, tokenizer, device)
    if pictures is None:
        raise UsageError(
            f"{corpus.location}: holds neither pictures nor tokens that can be decoded, so recordings "
            "cannot be compared; ingest with --frames jpeg, or name the tokenizer with --tokenizer"
        )
    names = ("episode", "recording", "shard", "row_start", "n_steps", "split", "source_fps")
    rows = corpus.episodes.sort("episode").select(names).rows(named=True)
    hashes: list[Hashes] = []
    progress = EpisodesProgress(total=len(rows))
    for row in rows:
        hashes.append(np.concatenate([difference_hashes(small) for small in pictures.of(row)]))
        progress.done += 1
        watch.progressed(progress)
    rates = [rate_of(corpus, row) for row in rows]
    least = round(least_s * max(rates, default=10.0))
    found = same_play(hashes, max(least, 1), [row["recording"] for row in rows])
    twice = [_twice(each, rows, rates) for each in found]
    return DuplicateReport(
        location=corpus.location,
        version=corpus.version,
        episodes=len(rows),
        hours=sum(row["n_steps"] / rate for row, rate in zip(rows, rates, strict=True)) / 3600,
        twice=tuple(sorted(twice, key=lambda each: (-each.hours, each.episode, each.start))),
    )


def _twice(same: Same, rows: list[dict[str, Any]], rates: list[float]) -> Twice:
    one, other, steps = rows[same.first], rows[same.second], same.stop - same.start
    return Twice(
        episode=one["episode"],
        start=same.start,
        stop=same.stop,
        other=other["episode"],
        other_start=same.start_in_second,
        other_stop=same.start_in_second + steps,
        hours=steps / rates[same.first] / 3600,
        near=same.near,
        across_splits=one["split"] != other["split"],
    )
