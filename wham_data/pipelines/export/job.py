"""A corpus becomes a data set in a format that others train from: the whole job.

    which episodes, and under which licences                contents.py, licences.py
    what the format asks of them, what their actions become contents.py, writers/
    cut where the format can't follow, shared out in parts  writers/stretches.py, writers/parts.py
    for every part that is not there yet, wherever a runner works on it:
      write it into a folder of its own                     parts.py, writers/<format>.py
    put its files in place, then its record                folder.py
    the files that describe all of it; the report           report.py

A part is there whole or not at all, so a run that was stopped goes on where it was. An episode that
cannot be read, or that the format cannot hold, is left out of its part and named.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wham_data.corpus import Corpus
from wham_data.pipelines.export.contents import (
    agreed_by,
    chosen_rows,
    content_of,
    conversion_for,
    decoder_for,
    notes_on,
)
from wham_data.pipelines.export.folder import ExportFolder, PartRecord
from wham_data.pipelines.export.licences import attribution, check_licences, licences_of
from wham_data.pipelines.export.parts import (
    PartToWrite,
    WriteParts,
    WrittenPart,
    failure_of,
)
from wham_data.pipelines.export.report import (
    ExportProgress,
    ExportReport,
)
from wham_data.pipelines.run.choose import choose_workers
from wham_data.pipelines.run.progress import Failed, ProgressListener, Silent
from wham_data.pipelines.run.runner import LocalRunner, Outcome, Runner, Service, Stage
from wham_data.pipelines.writers import (
    Content,
    Part,
    Place,
    Writer,
    Written,
    chosen_writer,
)
from wham_data.pipelines.writers.stretches import (
    ExportSource,
    Stretch,
    Unfit,
    stretches_of,
)
from wham_data.schemas.errors import (
    Reason,
    RefusedInput,
    UsageError,
)
from wham_data.schemas.manifest import SPLITS, EpisodeRow

NO_OPTIONS: Final[Mapping[str, str]] = {}


def export(
    corpus: Corpus | str | os.PathLike[str],
    *,
    to: str,
    out: str | os.PathLike[str],
    split: Sequence[str] = (),
    episodes: int | None = None,
    version: int | None = None,
    options: Mapping[str, str] = NO_OPTIONS,
    mapping: str | os.PathLike[str] | None = None,
    tokenizer: str | None = None,
    device: str = "auto",
    acknowledge_licence: bool = False,
    workers: int | None = None,
    ray_address: str | None = None,
    watch: ProgressListener | None = None,
) -> ExportReport:
    """Write a corpus in another format. Running it again writes only what is missing.

    Args:
        corpus: where it lies, or open.
        to: the format, see `writers.WRITERS`.
        out: folder for it; made if it is not there.
        split: these splits only.
        episodes: only so many episodes, the first by name.
        version: the corpus as it stood then.
        options: of the format, as written.
        mapping: TOML file with the conversion of actions to the space that the format needs.
        tokenizer: makes pictures of tokens where no pictures are stored; the bundled one is found
            by itself.
        device: where that runs: "auto", "cpu" or "cuda".
        acknowledge_licence: the caller keeps to licences that restrict the use of sources.
        workers, ray_address: Ray workers that share the parts, and the cluster they are of; None or 0
            and None: this process does all. What is written is the same.
        watch: is shown how far the run is.

    Raises:
        UsageError: no such corpus, format or option; the format can't hold this corpus; a licence
            is not acknowledged.
        NoInputsError: there are no episodes.
        MismatchError: `out` holds an export of other settings or episodes, or the tokenizer is not
            the one that made the tokens.
        WhamDataError: the disk fails.
    """
    started = time.monotonic()
    watch = watch or Silent()
    runner = choose_workers(workers, ray_address)
    writer = chosen_writer(to, options)
    if not isinstance(corpus, Corpus):
        corpus = Corpus.open(corpus, version)
    elif version is not None:
        corpus = Corpus.open(corpus.location, version)
    _check_apart(corpus, os.fspath(out))
    rows = chosen_rows(corpus, split, episodes)
    check_licences(rows, acknowledged=acknowledge_licence)
    conversion = conversion_for(corpus, writer, None if mapping is None else Path(mapping))
    content = content_of(corpus, rows, conversion, tokenizer, pictured=writer.demands.pictures)
    notes = [*notes_on(writer, content, licences_of(rows)), *writer.check(content)]
    for note in notes:
        watch.message(note, warning=True)
    decoder = decoder_for(corpus, tokenizer, device) if content.pictures == "decoded" else None
    source, folder = ExportSource(corpus, conversion), ExportFolder(Path(out))
    run = _Run(rows, source, writer, content, folder, decoder, watch)
    with run.folder.opened(agreed_by(corpus, rows, writer, conversion, content)):
        run.cut()
        run.write_all(runner or LocalRunner())
        run.describe()
    return run.report(str(out), notes, started)


@dataclass(slots=True)
class _Run:
    """One run: what is still to do, and what came of it."""

    rows: Sequence[EpisodeRow]
    source: ExportSource
    writer: Writer
    content: Content
    folder: ExportFolder
    decoder: Service | None
    watch: ProgressListener
    stretches: list[Stretch] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    found: int = 0
    left_out: int = 0
    names: set[str] = field(default_factory=set)
    made: int = 0
    files: int = 0
    bytes: int = 0
    progress: ExportProgress = field(default_factory=lambda: ExportProgress(0, 0))

    def cut(self) -> None:
        """The episodes, cut where the format can't follow."""
        for row in self.rows:
            try:
                found = stretches_of(self.source, row, known=self.writer.demands.known)
            except Unfit as unfit:
                self._leave_out(failure_of(unfit.stretch, unfit.why))
                continue
            if not found:
                whole = Stretch(self.source, row, 0, row.n_steps)
                none = "none of its steps is kept and has a known action"
                self._leave_out(failure_of(whole, RefusedInput(Reason.LOG_EMPTY, none)))
                continue
            self.stretches += found
            self.left_out += row.n_steps

    def _leave_out(self, failed: Failed) -> None:
        self.failed.append(failed)
        self._tell(failed)

    def write_all(self, runner: Runner) -> None:
        """Write the parts that are not there."""
        parts = list(self.writer.parts(self.stretches))
        self.folder.check_only(parts)
        # A format may cut further, or leave some out.
        self.stretches = [each for part in parts for each in part.stretches]
        self.found = len(self.stretches) + len(self.failed)
        self.left_out -= sum(each.n_steps for each in self.stretches)
        records = {part.name: self.folder.record_of(part) for part in parts}
        for name, record in records.items():
            # What failed is tried again, unless others have been numbered behind it by now.
            if record is not None and record.failed and not self.writer.demands.numbered:
                records[name] = None
        missing = [part for part in parts if records[part.name] is None]
        self.progress = ExportProgress(
            sum(len(part.stretches) for part in missing), sum(part.n_steps for part in missing)
        )
        while None in records.values():
            self._write_missing(parts, records, runner)
        for record in records.values():
            assert record is not None
            self.failed += record.failed
            if record.written.episodes:
                self.written.append(record.written)

    def _write_missing(
        self, parts: Sequence[Part], records: dict[str, PartRecord | None], runner: Runner
    ) -> None:
        """Write the parts without a record and put them in place, in order.

        Ends early where an episode fails and what follows has other numbers now.
        """
        items = list(self._items(parts, records))
        stage = Stage("export", WriteParts(self.writer, self.content), self.decoder)
        results = in_order(items, runner.run(stage, items, self._advanced))
        places = _Places()
        for part in parts:
            record, shorter = records[part.name], False
            if record is None:
                result = next(results)
                shorter = bool(result.failed)
                record = self._publish(part, places.next_of(part.split), result)
                records[part.name] = record
            places.add_written(record.written)
            if shorter and self.writer.demands.numbered:
                return

    def _items(
        self, parts: Sequence[Part], records: Mapping[str, PartRecord | None]
    ) -> Iterator[PartToWrite]:
        """The parts to write, each in the place that it has if no episode fails."""
        places = _Places()
        for part in parts:
            if (record := records[part.name]) is None:
                folder = self.folder.staging(part.name)
                yield PartToWrite(part, places.next_of(part.split), folder)
                places.add(part.split, len(part.stretches), part.n_steps)
            else:
                places.add_written(record.written)
                self.names.update(record.written.files)

    def _publish(self, part: Part, place: Place, result: WrittenPart) -> PartRecord:
        """Put the files of a part in place, then its record."""
        for failed in result.failed:
            self._tell(failed)
        files: tuple[str, ...] = ()
        if result.episodes:
            staged = self.folder.staging(part.name)
            self._check_names(part, staged)
            files, size = self.folder.publish(staged)
            self.files += len(files)
            self.bytes += size
            self.names.update(files)
        written = Written(
            part.name, part.split, place, result.episodes, result.steps, files, result.facts
        )
        record = PartRecord(part.identity, written, result.failed)
        self.folder.note(record)
        self.made += len(written.episodes)
        self.progress.done += len(written.episodes)
        self.watch.progressed(self.progress)
        self.watch.message(f"{part.name}: written", warning=False)
        return record

    def _check_names(self, part: Part, staged: Path) -> None:
        for path in staged.rglob("*"):
            if path.is_file() and (name := str(path.relative_to(staged))) in self.names:
                raise UsageError(
                    f"{part.name}: another episode is called {name} too. Export them apart, with "
                    "--split or from two corpora"
                )

    def _advanced(self, steps: int) -> None:
        self.progress.steps_done += steps
        self.watch.progressed(self.progress)

    def _tell(self, failed: Failed) -> None:
        self.progress.failed += 1
        line = f"{failed.episode} ({failed.source}) failed [{failed.reason}]: {failed.message}"
        self.watch.message(line, warning=False)

    def describe(self) -> None:
        """Write the files that describe all of the export."""
        if self.written:
            staged = self.folder.staging("description")
            staged.mkdir(parents=True)
            self.writer.finish(self.written, self.content, staged)
            self.folder.publish(staged)
        self.folder.describe(attribution(self.rows), self._listed())

    def report(self, out: str, notes: Sequence[str], started: float) -> ExportReport:
        """What became of every episode."""
        conversion, space = self.source.conversion, self.content.space
        return ExportReport(
            corpus=self.source.corpus.location,
            version=self.source.corpus.version,
            format=self.writer.name,
            out=out,
            pictures=self.content.pictures,
            actions=space.name,
            converted_from=None if conversion.source == space else conversion.source.name,
            lost=conversion.lost,
            left_out_steps=self.left_out,
            clamped=sum(each.facts.get("clamped", 0) for each in self.written),
            found=self.found,
            written=self.made,
            already_there=sum(len(each.episodes) for each in self.written) - self.made,
            failed=tuple(self.failed),
            steps=sum(sum(each.steps) for each in self.written),
            files=self.files,
            bytes=self.bytes,
            licences=licences_of(self.rows),
            notes=tuple(notes),
            seconds=round(time.monotonic() - started, 3),
        )

    def _listed(self) -> Iterator[Mapping[str, object]]:
        """Where each episode lies and where it comes from."""
        by_name = {each.name: each for each in self.stretches}
        for written in self.written:
            for number, name in enumerate(written.episodes):
                stretch = by_name[name]
                row = stretch.row
                yield {
                    "episode": name,
                    "split": written.split,
                    "files": list(written.files),
                    "number": written.place.episodes + number,
                    "number_in_split": written.place.split_episodes + number,
                    "steps": stretch.n_steps,
                    "of": {"episode": row.episode, "first_step": stretch.start},
                    "recording": row.recording,
                    "source": row.source,
                    "format": row.format,
                    "game": row.game,
                    "map": row.map,
                    "match": row.match,
                    "player": row.player,
                    "subject": row.subject,
                    "license": row.license,
                }


@dataclass(slots=True)
class _Places:
    """Counts what is written, part after part."""

    before: dict[str, tuple[int, int]] = field(
        default_factory=lambda: dict.fromkeys(SPLITS, (0, 0))
    )

    def next_of(self, split: str) -> Place:
        """How much lies before the next part, which is of this split."""
        episodes, steps = (sum(each) for each in zip(*self.before.values(), strict=True))
        return Place(episodes, steps, *self.before[split])

    def add(self, split: str, episodes: int, steps: int) -> None:
        """A part follows."""
        before = self.before[split]
        self.before[split] = before[0] + episodes, before[1] + steps

    def add_written(self, written: Written) -> None:
        """A part that is written follows."""
        self.add(written.split, len(written.episodes), sum(written.steps))


def in_order(
    items: Sequence[PartToWrite], outcomes: Iterator[Outcome[PartToWrite, WrittenPart]]
) -> Iterator[WrittenPart]:
    """What came of each part, in their order, whichever was ready first.

    A part whose worker died has none of its episodes.
    """
    ready: dict[str, WrittenPart] = {}
    for item in items:
        while item.part.name not in ready:
            outcome = next(outcomes)
            part, result = outcome.item.part, outcome.result
            if isinstance(result, RefusedInput):
                result = WrittenPart(
                    failed=tuple(failure_of(stretch, result) for stretch in part.stretches)
                )
            ready[part.name] = result
        yield ready.pop(item.part.name)


def _check_apart(corpus: Corpus, out: str) -> None:
    if "://" in out:
        raise UsageError(f"--out {out}: exports are written to a folder; copy it there afterwards")
    if "://" in corpus.location:
        return
    real, location = Path(os.path.realpath(out)), Path(os.path.realpath(corpus.location))
    if real.is_relative_to(location) or location.is_relative_to(real):
        raise UsageError(f"--out {out}: the corpus lies there. Use another --out")
