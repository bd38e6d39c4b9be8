"""A stretch of a recording or of an episode as a video, with the controls below its pictures.

A recording is drawn at its own frame rate, so that a log that is early or late shows: the picture is
the one on screen at t_k, the controls are what was done in [t_k, t_{k+1}). An episode of a corpus is
drawn as it is stored, step by step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.corpus.shard_view import steps_from
from wham_data.corpus.storage.sources.folders import is_file
from wham_data.files.whole import written_whole
from wham_data.inference.tokenizer import BUNDLED, Tokenizer, load_tokenizer
from wham_data.pipelines.align import latest_at, typical_interval
from wham_data.pipelines.ingest.log_in_space import ProjectedLog, project
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.ingest.stages import open_as_set
from wham_data.pipelines.media.canvas import Canvas
from wham_data.pipelines.media.controls import WIDTH, Controls
from wham_data.pipelines.media.picture import INK, PAPER
from wham_data.pipelines.readers import discover
from wham_data.pipelines.readers.kit.resize import resize
from wham_data.pipelines.run.progress import Counting, ProgressListener, Silent
from wham_data.pipelines.video import decode_image, write_video
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.clock import SECOND_NS, Grid, Index, steps_between
from wham_data.schemas.conversion import find_conversion
from wham_data.schemas.errors import (
    MismatchError,
    NoInputsError,
    RefusedInput,
    UsageError,
    printable,
)
from wham_data.schemas.paths import source_path
from wham_data.schemas.recording import Frames, OpenRecording, Recording
from wham_data.schemas.steps import EpisodeSteps

SCALE: Final = 2
PICTURE: Final = (WIDTH * SCALE, 360 * SCALE)
"""Width and height of the picture, 16:9; another shape gets black edges."""
CAPTION_HEIGHT, HEIGHT = 22, 190
"""Of the line above the controls, and of the controls, in units."""
SECONDS_IN_SIGHT: Final = 5
FASTEST: Final = Fraction(60)
"""Frames per second, unless more are asked for."""
LONGEST_S: Final = 3600
BATCH: Final = 8
DECODED_TOGETHER: Final = 16
"""Frames: each takes one core, so that several take all."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What is drawn.

    episode    an episode or a recording of several: its name, or its number from 1; None: the first
    start      seconds after its first frame
    seconds    how long
    rate       pictures per second of a recording; None: its own, but 60 at most
    offset_ns  shift tried on the log of a recording: t_true = t_log - offset

    Raises:
        UsageError: out of its limits.
    """

    episode: str | None = None
    start: Fraction = Fraction(0)
    seconds: Fraction = Fraction(20)
    rate: Fraction | None = None
    offset_ns: int = 0

    def __post_init__(self) -> None:
        if self.start < 0:
            raise UsageError(f"--start {float(self.start):g}: expected 0 or more seconds")
        if not 0 < self.seconds <= LONGEST_S:
            raise UsageError(f"--seconds {float(self.seconds):g}: expected up to {LONGEST_S}")
        if self.rate is not None and not 1 <= self.rate <= 240:
            raise UsageError(f"--rate {float(self.rate):g}: expected 1 to 240")


@dataclass(frozen=True, slots=True)
class InspectReport:
    """What was drawn.

    source     the recording, or the episode
    others     how many more recordings or episodes there are
    space      name of the action space
    steps      pictures; `unknown` of them have no known action, `lost` did not decode (black)
    left_out   buttons and other dimensions that there was no room for
    notes      what a person should know
    """

    out: str
    source: str
    others: int
    space: str
    rate: str
    start_s: float
    seconds: float
    steps: int
    unknown: int
    lost: int
    left_out: tuple[int, int]
    notes: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class InspectProgress(Counting):
    """Pictures drawn."""

    unit: ClassVar[str] = "pictures"


@dataclass(slots=True, kw_only=True)
class _Film:
    """Pictures and actions of a stretch.

    actions   float32 [K, A]; NaN where not known
    pictures  K of them, uint8 [H, W, 3], of size PICTURE
    start     seconds after the first frame of the whole
    opened    the recording that it is of; None: it is of a corpus
    """

    source: str
    others: int
    space: ActionSpace
    rate: Fraction
    start: Fraction
    actions: NDArray[np.float32]
    pictures: Iterator[Frames]
    notes: tuple[str, ...] = ()
    opened: OpenRecording | None = None


def inspect(
    sources: Sequence[str | Path],
    out: str | Path,
    settings: IngestSettings,
    stretch: Stretch,
    *,
    reader: str = "auto",
    watch: ProgressListener | None = None,
) -> InspectReport:
    """Draw a stretch of the recordings, or of a corpus, as the mp4 `out`.

    Args:
        sources: files and folders of recordings, or one corpus.
        out: the file to make or replace, in a folder that exists.
        settings: how recordings are read: options, limits, masks, action space and mapping.
        stretch: what is drawn.
        reader: "auto", or the name of the format.
        watch: is told of the progress.

    Raises:
        UsageError: a source, an episode or a stretch that is not there.
        NoInputsError: no recording was found.
        RefusedInput: the recording cannot be read; the message names it.
        WhamDataError: as `Corpus.open`.
    """
    path = Path(out)
    if path.suffix.lower() != ".mp4" or not path.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: expected a name that ends in .mp4, in a folder that exists")
    film = _film(sources, path, settings, stretch, reader)
    controls = Controls(
        film.actions,
        film.space,
        rate=film.rate,
        start=film.start,
        span=int(SECONDS_IN_SIGHT * film.rate),
        height=HEIGHT,
    )
    progress = InspectProgress(total=len(film.actions))

    def sheets() -> Iterator[Frames]:
        caption = f"{printable(Path(film.source).name)[:70]}   {film.space.name}"
        if stretch.offset_ns:
            caption += f"   log taken as {stretch.offset_ns / 1e6:g} ms late"
        for step, picture in enumerate(film.pictures):
            yield np.concatenate([picture, _strip(controls, step, caption)])
            progress.done = step + 1
            (watch or Silent()).progressed(progress)

    with written_whole(path) as part:
        steps = write_video(part, sheets(), film.rate, crf=20, preset="veryfast")
    return InspectReport(
        out=str(out),
        source=film.source,
        others=film.others,
        space=film.space.name,
        rate=str(film.rate),
        start_s=float(film.start),
        seconds=float(steps / film.rate),
        steps=steps,
        unknown=int(np.isnan(film.actions).any(axis=1).sum()),
        lost=0 if film.opened is None else len(film.opened.lost_frames()),
        left_out=controls.left_out,
        notes=film.notes,
    )


def _strip(controls: Controls, step: int, caption: str) -> Frames:
    """The controls with a line of text above, as wide as the picture."""
    canvas = Canvas(WIDTH, CAPTION_HEIGHT + HEIGHT, SCALE, PAPER)
    canvas.text((13, CAPTION_HEIGHT / 2), caption, INK)
    controls.draw(canvas, step, CAPTION_HEIGHT)
    return canvas.pixels()


def _film(
    sources: Sequence[str | Path],
    out: Path,
    settings: IngestSettings,
    stretch: Stretch,
    reader: str,
) -> _Film:
    if len(sources) == 1 and is_file(source_path(sources[0]) / "corpus.json"):
        return _stored(Corpus.open(sources[0]), settings, stretch)
    found = discover(sources, reader, dict(settings.options))
    names = [recording.source for recording in found.recordings]
    if not names:
        told = ", ".join(map(str, sources))
        why = "".join(f"; {path.name}: {refusal}" for path, refusal in found.refused[:1])
        raise NoInputsError(f"{told}: no recording and no corpus{why}")
    if any(out.resolve() in map(Path.resolve, each.files) for each in found.recordings):
        raise UsageError(f"--out {out}: is a file of a recording; choose another name")
    recording = found.recordings[_chosen(names, stretch.episode)]
    try:
        return _recorded(recording, len(names) - 1, settings, stretch)
    except RefusedInput as refusal:
        raise _named(recording, refusal) from None


def _named(recording: Recording, refusal: RefusedInput) -> RefusedInput:
    """The refusal with the name of what is refused."""
    return RefusedInput(refusal.reason, f"{recording.source}: {refusal}")


def _chosen(names: Sequence[str], wanted: str | None) -> int:
    """Which of the names is meant: by itself, by the end of its path, or by its number from 1."""
    if wanted is None:
        return 0
    for place, name in enumerate(names):
        path = Path(name)
        if wanted in (name, path.name, path.stem):
            return place
    if wanted.isascii() and wanted.isdigit() and 1 <= int(wanted[:9]) <= len(names):
        return int(wanted) - 1
    some = ", ".join(Path(name).name for name in names[:5])
    raise UsageError(f"--episode {wanted[:80]!r}: none of the {len(names)} here, such as {some}")


def _recorded(
    recording: Recording, others: int, settings: IngestSettings, stretch: Stretch
) -> _Film:
    """A stretch of a recording at its own rate."""
    source = open_as_set(recording, settings)
    if source.pictureless or source.actions is None:
        what = "pictures" if source.pictureless else "actions"
        raise UsageError(f"{recording.source}: holds no {what}, so there is nothing to compare")
    space = settings.space or source.actions.space
    log = project(source.actions, space, settings)
    assert log is not None
    times_ns = source.frame_times_ns
    rate = stretch.rate or _own_rate(times_ns)
    start_ns = int(times_ns[0]) + round(stretch.start * SECOND_NS)
    n_steps = min(
        steps_between(start_ns, source.frame_end_ns, rate), round(stretch.seconds * rate) or 1
    )
    length_s = (source.frame_end_ns - int(times_ns[0])) / SECOND_NS
    if n_steps < 1:
        raise UsageError(
            f"{recording.source}: {length_s:.3f} s long, nothing at {float(stretch.start):g} s"
        )
    edges_ns = Grid(start_ns, n_steps, rate).edges_ns()
    steps = _earlier(log, stretch.offset_ns).over_steps(edges_ns, settings.axis_rule)
    return _Film(
        source=recording.source,
        others=others,
        space=space,
        rate=rate,
        start=stretch.start,
        actions=steps.values,
        pictures=_pictures(source, recording, latest_at(times_ns, edges_ns[:-1])),
        notes=source.notes,
        opened=source,
    )


def _pictures(source: OpenRecording, recording: Recording, picks: Index) -> Iterator[Frames]:
    """The picked frames of a recording, one by one, in the size that is drawn."""
    try:
        for batch in source.frames(picks, PICTURE, fit="letterbox", batch=BATCH, threads=1):
            yield from batch
    except RefusedInput as refusal:
        raise _named(recording, refusal) from None


def _own_rate(times_ns: NDArray[np.int64]) -> Fraction:
    """Frames per second of a recording, from the typical interval, within 1 and 60."""
    interval_ns = typical_interval(times_ns)
    rate = Fraction(SECOND_NS, interval_ns) if interval_ns else FASTEST
    return min(max(rate.limit_denominator(100), Fraction(1)), FASTEST)


def _earlier(log: ProjectedLog, by_ns: int) -> ProjectedLog:
    """A log with every row `by_ns` earlier."""
    tracks = [
        track and replace(track, times_ns=track.times_ns - by_ns, end_ns=track.end_ns - by_ns)
        for track in (log.track, log.moving)
    ]
    assert tracks[0] is not None
    return replace(log, track=tracks[0], moving=tracks[1])


def _stored(corpus: Corpus, settings: IngestSettings, stretch: Stretch) -> _Film:
    """A stretch of an episode of a corpus, as it is stored."""
    if stretch.offset_ns or stretch.rate is not None:
        raise UsageError("--offset-ms and --rate: of recordings only, a corpus has fixed steps")
    rows: list[dict[str, Any]] = corpus.episodes.sort("episode").rows(named=True)
    if not rows:
        raise NoInputsError(f"{corpus.location}: no episodes")
    row = rows[_chosen([each["episode"] for each in rows], stretch.episode)]
    native = corpus.info.action_space
    space = settings.space or native
    conversion = find_conversion(native, space) if settings.mapping is None else settings.mapping
    if conversion.source != native:
        raise UsageError(f"--mapping: from {conversion.source.name}, the corpus has {native.name}")
    steps, rate, first = _read(corpus, row, stretch)
    actions = conversion.apply(steps.actions, float(1 / rate))
    return _Film(
        source=row["episode"],
        others=len(rows) - 1,
        space=space,
        rate=rate,
        start=first / rate,
        actions=actions,
        pictures=_stored_pictures(corpus, steps),
        notes=()
        if steps.frames is not None
        else ("pictures decoded from tokens, not as recorded",),
    )


def _read(
    corpus: Corpus, row: dict[str, Any], stretch: Stretch
) -> tuple[EpisodeSteps, Fraction, int]:
    """The steps of a stretch, their rate, and the number of the first one."""
    view = corpus.open_shard(row["shard"])
    start, n_steps = row["row_start"], row["n_steps"]
    times = [t for _, t in view.read_rows(start, start + n_steps, ["time_ns"])]
    times_ns = pa.concat_tables(times).column("time_ns").to_numpy()
    rate = corpus.info.rate if isinstance(corpus.info.rate, Fraction) else _own_rate(times_ns)
    first = round(stretch.start * rate)
    stop = min(n_steps, first + max(1, round(stretch.seconds * rate)))
    if first >= n_steps:
        length_s = float(n_steps / rate)
        raise UsageError(
            f"{row['episode']}: {length_s:g} s long, nothing at {float(stretch.start):g} s"
        )
    tables = [table for _, table in view.read_rows(start + first, start + stop)]
    return steps_from(row["episode"], pa.concat_tables(tables)), rate, first


def _stored_pictures(corpus: Corpus, steps: EpisodeSteps) -> Iterator[Frames]:
    """The pictures of the steps, stored or decoded from tokens, in the size that is drawn."""
    if steps.frames is not None:
        pictures: Iterator[Frames] = map(decode_image, steps.frames)
    else:
        pictures = decoded_frames(_tokenizer_of(corpus), steps)
    for picture in pictures:
        yield resize(picture[None], PICTURE, "letterbox")[0]


def _tokenizer_of(corpus: Corpus) -> Tokenizer:
    """The bundled tokenizer, if the corpus was made with it."""
    info = corpus.info.tokenizer
    if info is None:
        raise UsageError(
            f"{corpus.location}: holds neither pictures nor tokens to make some from; ingest again "
            "with --frames jpeg"
        )
    if info.name not in BUNDLED:
        raise UsageError(
            f"{corpus.location}: stores no pictures, and its tokens were made by {info.name}, which "
            "is not bundled; inspect the recording itself, or ingest with --frames jpeg"
        )
    tokenizer = load_tokenizer(info.name, "cpu")
    if tokenizer.info.fingerprint != info.fingerprint:
        raise MismatchError(
            f"{corpus.location}: its tokens were made by another version of {info.name} "
            f"({info.fingerprint[:12]}, here {tokenizer.info.fingerprint[:12]})"
        )
    return tokenizer


def decoded_frames(tokenizer: Tokenizer, steps: EpisodeSteps) -> Iterator[Frames]:
    """Each step's tokens as a picture, uint8 [H, W, 3]."""
    for first in range(0, steps.n_steps if steps.tokens is not None else 0, DECODED_TOGETHER):
        yield from tokenizer.decode(steps.tokens[first : first + DECODED_TOGETHER])  # type: ignore[index]
