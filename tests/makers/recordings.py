"""Short real recordings, cut from the gameplay that ships with the package, and how to compare corpora."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import wham_data.pipelines
from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.job import IngestReport, run_ingest
from wham_data.pipelines.ingest.settings import IngestChoices, IngestSettings
from wham_data.pipelines.run.runner import Advance, In, LocalRunner, Out, Outcome, Stage
from wham_data.pipelines.video import decode_frames, index_video, write_video

DEMO = Path(wham_data.pipelines.__file__).parent / "demo_recordings"
RATES = {"doom": Fraction(35), "miniworld": Fraction(60), "coinrun": Fraction(15)}
SECONDS = 11
"""Every demo recording is at least this long."""
SIZE = (160, 96)
PLAIN = IngestSettings(tokenizer=None)


@dataclass(frozen=True, slots=True)
class Cut:
    """A stretch of one of the demo recordings, in seconds."""

    game: str
    start: float
    seconds: float


def cut(folder: Path, name: str, piece: Cut, **metadata: str) -> Path:
    """Write `piece` as a recording of its own, NAME.mp4, .csv and .toml; the path of the video."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures, header, log = _demo(piece.game)
    rate = RATES[piece.game]
    first, count = round(piece.start * rate), round(piece.seconds * rate)
    video = folder / f"{name}.mp4"
    write_video(video, pictures[first : first + count], rate, crf=28, preset="ultrafast")
    since, until = (int(frame / rate * 1_000_000_000) for frame in (first, first + count))
    rows = log[(log[:, 0] >= since) & (log[:, 0] <= until)]
    lines = [f"{int(row[0]) - since},{','.join(f'{value:g}' for value in row[1:])}" for row in rows]
    video.with_suffix(".csv").write_text("\n".join([header, *lines]) + "\n")
    said = {"actions": "xinput", "game": piece.game, "player": name, **metadata}
    video.with_suffix(".toml").write_text(
        "".join(f"{key} = {json.dumps(value)}\n" for key, value in said.items())
    )
    return video


def cuts(count: int, seconds: float = 2.0) -> Iterator[Cut]:
    """Different stretches of the demo recordings, turn by turn."""
    games = sorted(RATES)
    turns = -(-count // len(games))
    for number in range(count):
        turn = number // len(games)
        yield Cut(games[number % len(games)], turn * (SECONDS - seconds) / max(turns, 1), seconds)


@lru_cache
def _demo(game: str) -> tuple[NDArray[np.uint8], str, NDArray[np.float64]]:
    """Every frame of a demo recording, small; the header of its log; the log."""
    index = index_video(DEMO / f"{game}.mp4")
    picks = np.arange(len(index.times_ns))
    frames = np.concatenate(list(decode_frames(index, picks, SIZE)))
    header, *lines = (DEMO / f"{game}.csv").read_text().splitlines()
    return frames, header, np.array([line.split(",") for line in lines], np.float64)


def ingest_here(
    folder: Path, out: Path, settings: IngestSettings = PLAIN, **options: Any
) -> IngestReport:
    """Ingest a folder in this process; `options` are of `run_ingest` and `IngestChoices`."""
    own = {name: options.pop(name) for name in ("device", "watch") if name in options}
    return run_ingest([folder], out, settings, LocalRunner(), IngestChoices(**options), **own)


def digest(location: Path) -> dict[str, Any]:
    """What a corpus holds: the manifest but for when it was written, and the bytes of every shard.

    Two corpora of equal content have equal digests, however many commits it took.
    """
    corpus = Corpus.open(location)
    rows = corpus.episodes.drop("created").sort("episode").rows(named=True)
    shards = {
        row["shard"]: hashlib.sha256(corpus.shard_path(row["shard"]).read_bytes()).hexdigest()
        for row in rows
    }
    refused = corpus.quarantine.drop("created").sort("path").rows(named=True)
    return {"episodes": rows, "shards": shards, "quarantine": refused}


def without_splits(found: dict[str, Any]) -> dict[str, Any]:
    """A digest in which the splits do not count.

    Which recording fills an empty one depends on what a run knows, so it may differ where runs know
    of some recordings only.
    """
    if "episodes" not in found:
        return found
    return {**found, "episodes": [{**row, "split": None} for row in found["episodes"]]}


def strangers(location: Path) -> list[str]:
    """Files of a corpus that have no business there; what a killed writer left is not visible."""
    corpus = Corpus.open(location)
    named = {f"shards/{shard}" for shard in corpus.episodes["shard"]}
    return sorted(
        name
        for path in location.rglob("*")
        if path.is_file()
        and not path.name.startswith(".tmp-")
        and (name := path.relative_to(location).as_posix()) not in {*named, "corpus.json"}
        and name.split("/")[0] not in ("episodes", "quarantine", "runs", "hints")
    )


class BreaksOff:
    """A runner that somebody stops with Ctrl-C."""

    def __init__(self, after: int) -> None:
        self.after = after

    def run(
        self, stage: Stage[In, Out], items: Iterable[In], advance: Advance
    ) -> Iterator[Outcome[In, Out]]:
        yield from LocalRunner().run(stage, islice(items, self.after), advance)
        raise KeyboardInterrupt
