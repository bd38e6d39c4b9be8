"""Write a corpus as a data set in another format: the whole job.

    choose the episodes; check their licences               contents.py, licences.py
    check what the format needs; convert the actions        contents.py, writers/
    cut episodes where the format needs it; form parts      writers/stretches.py, writers/parts.py
    for every part that is not there yet, in the process where the runner puts it:
      write it into a folder of its own                     parts.py, writers/<format>.py
    put its files in place, then its record                 folder.py
    write the files that describe the whole; report         report.py

A part is there complete or not at all, so the run after a stopped one continues. An episode that
cannot be read, or that the format cannot hold, is left out of its part and reported.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Final

from wham_data.corpus import Corpus
from wham_data.corpus.storage.locations import is_url, open_storage
from wham_data.inference.tokenizer import tokenizer_note
from wham_data.pipelines.export.contents import (
    agreed_by,
    chosen_rows,
    content_of,
    conversion_for,
    decoder_for,
    notes_on,
)
from wham_data.pipelines.export.folder import ExportFolder, PartRecord, export_folder
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
from wham_data.pipelines.run.choose import check_device, choose_workers
from wham_data.pipelines.run.progress import Event, Failed, ProgressListener, Silent
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
from wham_data.schemas.paths import expanded

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
    ray_temp_dir: str | os.PathLike[str] | None = None,
    watch: ProgressListener | None = None,
) -> ExportReport:
    """Write a corpus in another format. Running it again writes only what is missing.

    Args:
        corpus: an open corpus, or its path or URL.
        to: name of the format, see `writers.WRITERS`.
        out: folder for the data set, made if it is missing; or a URL as s3://bucket/folder.
        split: export only these splits; empty: all.
        episodes: export at most this many episodes, the first by name.
        version: version of the corpus; None: the version at which it is open, or the newest.
        options: options of the format as name -> value, as written by the user.
        mapping: TOML file with the conversion of actions to the space that the format needs.
        tokenizer: decodes tokens to pictures if the corpus stores no pictures; None: the bundled
            tokenizer, if it made the tokens.
        device: device of the tokenizer: "auto", "cpu" or "cuda".
        acknowledge_licence: confirms that the export is within licences that restrict the use.
        workers, ray_address: count of Ray workers, and address of the Ray cluster; None or 0 and
            None: all work is done in this process. The files are the same in each case.
        ray_temp_dir: folder for the logs and sockets of a cluster that is started here; None: /tmp.
        watch: receives progress and messages.

    Raises:
        UsageError: there is no such corpus, format or option, the format cannot hold this corpus,
            or a licence is not acknowledged.
        NoInputsError: there are no episodes.
        MismatchError: `out` contains an export with other settings or episodes, or the tokenizer is
            not the one that made the tokens.
        WhamDataError: the disk fails.
    """
    started, out = time.monotonic(), expanded(out)
    watch = watch or Silent()
    runner = choose_workers(workers, ray_address, ray_temp_dir, watch)
    writer = chosen_writer(to, options)
    if not isinstance(corpus, Corpus):
        corpus = Corpus.open(corpus, version)
    elif version is not None:
        corpus = Corpus.open(corpus.location, version)
    _check_apart(corpus, os.fspath(out), ray_address)
    rows = chosen_rows(corpus, split, episodes)
    check_licences(rows, acknowledged=acknowledge_licence)
    conversion = conversion_for(
        corpus, writer, None if mapping is None else Path(expanded(mapping))
    )
    content = content_of(corpus, rows, conversion, tokenizer, pictured=writer.demands.pictures)
    notes = [*notes_on(writer, content, licences_of(rows)), *writer.check(content)]
    if tokenizer is not None and (note := tokenizer_note(tokenizer)):
        notes.append(f"tokenizer {note}")
    for note in notes:
        watch.message(note, warning=True)
    decoder = None
    if content.pictures == "decoded":
        check_device(device, runner, watch)
        decoder = decoder_for(corpus, tokenizer, device)
    source = ExportSource(corpus, conversion)
    with export_folder(os.fspath(out)) as folder:
        run = _Run(rows, source, writer, content, folder, decoder, watch)
        with run.folder.opened(agreed_by(corpus, rows, writer, conversion, content)):
            run.cut()
            run.write_all(runner or LocalRunner())
            run.describe()
    return run.report(str(out), notes, started)


@dataclass(slots=True)
class _Run:
    """The state of one run: the parts to write, and the results."""

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
    progress: ExportProgress = field(default_factory=lambda: ExportProgress(0, 0))

    def cut(self) -> None:
        """Cut the episodes into the stretches that the format can hold."""
        for row in self.rows:
            try:
                demands = self.writer.demands
                found = stretches_of(self.source, row, known=demands.known, ended=demands.ended)
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
        self._report_failure(failed)

    def write_all(self, runner: Runner) -> None:
        """Write the parts that are missing."""
        parts = list(self.writer.parts(self.stretches))
        self.folder.check_only(parts)
        # A format may cut stretches further, or leave some out.
        self.stretches = [each for part in parts for each in part.stretches]
        self.found = len(self.stretches) + len(self.failed)
        self.left_out -= sum(each.n_steps for each in self.stretches)
        records = {part.name: self.folder.record_of(part) for part in parts}
        for name, record in records.items():
            # A part with failures is written again, unless later episodes have numbers after it.
            if record is not None and record.failed and not self.writer.demands.numbered:
                records[name] = None
        missing = [part for part in parts if records[part.name] is None]
        self.progress = ExportProgress(
            sum(len(part.stretches) for part in missing),
            sum(part.n_steps for part in missing),
            reasons=self.progress.reasons,
        )
        self.watch.progressed(self.progress)
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

        In a format that numbers its episodes, this ends early at a failed episode, because the
        episodes after it now have other numbers.
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
        """The parts to write, each with the place that it has if no episode fails."""
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
            self._report_failure(failed)
        files: tuple[str, ...] = ()
        if result.episodes:
            staged = self.folder.staging(part.name)
            self._check_names(part, staged)
            files, size = self.folder.publish(staged)
            self.files += len(files)
            self.progress.bytes_written += size
            self.names.update(files)
        written = Written(
            part.name, part.split, place, result.episodes, result.steps, files, result.facts
        )
        record = PartRecord(part.identity, written, result.failed)
        self.folder.note(record)
        self.made += len(written.episodes)
        self.progress.done += len(written.episodes)
        self.watch.progressed(self.progress)
        facts = {"episodes": len(written.episodes), "steps": sum(written.steps)}
        event = Event(name="done", item=part.name, facts=facts)
        self.watch.message(f"{part.name}: written", warning=False, event=event)
        return record

    def _check_names(self, part: Part, staged: Path) -> None:
        for path in staged.rglob("*"):
            if path.is_file() and (name := str(path.relative_to(staged))) in self.names:
                raise UsageError(
                    f"{part.name}: two episodes have the file name {name}. Export them separately, "
                    "with --split or from two corpora"
                )

    def _advanced(self, steps: int) -> None:
        self.progress.steps_done += steps
        self.watch.progressed(self.progress)

    def _report_failure(self, failed: Failed) -> None:
        self.progress.reasons[failed.reason] += 1
        self.watch.message(failed.line, warning=False, event=failed.event)

    def describe(self) -> None:
        """Write the files that describe the whole export."""
        if self.written:
            staged = self.folder.staging("description")
            staged.mkdir(parents=True)
            self.writer.finish(self.written, self.content, staged)
            self.folder.publish(staged)
        self.folder.describe(attribution(self.rows), self._listed())

    def report(self, out: str, notes: Sequence[str], started: float) -> ExportReport:
        """The report, which counts every episode."""
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
            bytes=self.progress.bytes_written,
            licences=licences_of(self.rows),
            notes=tuple(notes),
            seconds=round(time.monotonic() - started, 3),
        )

    def _listed(self) -> Iterator[Mapping[str, object]]:
        """The files and the source of each episode."""
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
    """Counts the episodes and steps of the parts, in order."""

    before: dict[str, tuple[int, int]] = field(
        default_factory=lambda: dict.fromkeys(SPLITS, (0, 0))
    )

    def next_of(self, split: str) -> Place:
        """The place of the next part: how many episodes and steps come before it.

        Args:
            split: of the next part.
        """
        episodes, steps = (sum(each) for each in zip(*self.before.values(), strict=True))
        return Place(episodes, steps, *self.before[split])

    def add(self, split: str, episodes: int, steps: int) -> None:
        """Count a part that will be written."""
        before = self.before[split]
        self.before[split] = before[0] + episodes, before[1] + steps

    def add_written(self, written: Written) -> None:
        """Count a part that is written."""
        self.add(written.split, len(written.episodes), sum(written.steps))


def in_order(
    items: Sequence[PartToWrite], outcomes: Iterator[Outcome[PartToWrite, WrittenPart]]
) -> Iterator[WrittenPart]:
    """The results in the order of the parts, whatever the order in which they are finished.

    If the worker of a part died, all its episodes have failed.
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


def _check_apart(corpus: Corpus, out: str, ray_address: str | None) -> None:
    stored = is_url(out)
    if stored and ray_address is not None:
        raise UsageError(
            f"--out {out}: the machines of a cluster put their files together in a folder that they "
            "share; export to such a folder and copy it, or leave out --ray-address"
        )
    if stored != is_url(corpus.location):
        return
    places = (open_storage(each).location for each in (out, corpus.location))
    real, location = (PurePath(each if stored else os.path.realpath(each)) for each in places)
    if real.is_relative_to(location) or location.is_relative_to(real):
        raise UsageError(f"--out {out}: this is the folder of the corpus. Use another --out")
