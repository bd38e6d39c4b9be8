"""A corpus becomes a data set in a format that others train from: the whole job.

    which episodes, and under which licences                licences.py
    what the format asks of them, what their actions become writers/
    cut where the format can't follow, shared out in parts  writers/stretches.py, writers/parts.py
    for every part that is not there yet, wherever a runner works on it:
      write it into a folder of its own                     parts.py, writers/<format>.py
    put its files in place, then its account                folder.py
    the files that describe all of it; the report           report.py

A part is there whole or not at all, so a run that was stopped goes on where it was. An episode that
cannot be read or said in the format is left out of its part and named.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

import polars as pl

from wham_data.corpus import Corpus
from wham_data.inference.tokenizer import BUNDLED, tokenizer_info
from wham_data.pipelines.export.folder import Account, ExportFolder
from wham_data.pipelines.export.licences import NOT_STATED, attribution, check_licences, licences_of
from wham_data.pipelines.export.parts import (
    PartToWrite,
    WriteParts,
    WrittenPart,
    decoder_service,
    failure_of,
)
from wham_data.pipelines.export.report import (
    ExportProgress,
    ExportReport,
)
from wham_data.pipelines.readers.kit.options import option_settings
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
from wham_data.pipelines.writers.parts import Pictures
from wham_data.pipelines.writers.stretches import (
    ExportSource,
    Stretch,
    Unfit,
    rate_of,
    stretches_of,
)
from wham_data.schemas.conversion import Conversion, find_conversion, load_conversion
from wham_data.schemas.corpus_info import content_hash
from wham_data.schemas.errors import (
    MismatchError,
    NoInputsError,
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
    rows = _chosen(corpus, split, episodes)
    check_licences(rows, acknowledged=acknowledge_licence)
    conversion = _conversion(corpus, writer, None if mapping is None else Path(mapping))
    pictured = writer.demands.pictures
    content = _content(corpus, rows, conversion, tokenizer, pictured=pictured)
    notes = [*_notes(writer, content, licences_of(rows)), *writer.check(content)]
    for note in notes:
        watch.message(note, warning=True)
    decoder = _decoder(corpus, tokenizer, device) if content.pictures == "decoded" else None
    run = _Run(
        ExportSource(corpus, conversion),
        writer,
        content,
        ExportFolder(Path(out)),
        decoder,
        watch,
    )
    with run.folder.opened(_agreed(corpus, rows, writer, conversion, content)):
        run.cut(rows)
        run.write_all(runner or LocalRunner())
        run.describe(rows)
    return ExportReport(
        corpus=corpus.location,
        version=corpus.version,
        format=writer.name,
        out=str(out),
        pictures=content.pictures,
        actions=content.space.name,
        converted_from=(None if conversion.source == conversion.target else conversion.source.name),
        lost=conversion.lost,
        left_out_steps=run.left_out,
        clamped=sum(each.facts.get("clamped", 0) for each in run.written),
        found=run.found,
        written=run.made,
        already_there=sum(len(each.episodes) for each in run.written) - run.made,
        failed=tuple(run.failed),
        steps=sum(sum(each.steps) for each in run.written),
        files=run.files,
        bytes=run.bytes,
        licences=licences_of(rows),
        notes=tuple(notes),
        seconds=round(time.monotonic() - started, 3),
    )


@dataclass(slots=True)
class _Run:
    """One run: what is still to do, and what came of it."""

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

    def cut(self, rows: Sequence[EpisodeRow]) -> None:
        """The episodes, cut where the format can't follow."""
        for row in rows:
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
        accounts = {part.name: self.folder.account(part) for part in parts}
        for name, account in accounts.items():
            # What failed is tried again, unless others have been numbered behind it by now.
            if account is not None and account.failed and not self.writer.demands.numbered:
                accounts[name] = None
        missing = [part for part in parts if accounts[part.name] is None]
        self.progress = ExportProgress(
            sum(len(part.stretches) for part in missing), sum(part.n_steps for part in missing)
        )
        while None in accounts.values():
            self._write_missing(parts, accounts, runner)
        for account in accounts.values():
            assert account is not None
            self.failed += account.failed
            if account.written.episodes:
                self.written.append(account.written)

    def _write_missing(
        self, parts: Sequence[Part], accounts: dict[str, Account | None], runner: Runner
    ) -> None:
        """Write the parts without an account and put them in place, in order.

        Ends early where an episode fails and what follows has other numbers now.
        """
        items, places = list[PartToWrite](), _Places()
        for part in parts:
            if (account := accounts[part.name]) is None:
                folder = self.folder.staging(part.name)
                items.append(PartToWrite(part, places.next_of(part.split), folder))
                places.add(part.split, len(part.stretches), part.n_steps)
            else:
                places.add_written(account.written)
                self.names.update(account.written.files)
        stage = Stage("export", WriteParts(self.writer, self.content), self.decoder)
        results, places = in_order(items, runner.run(stage, items, self._advanced)), _Places()
        for part in parts:
            account, shorter = accounts[part.name], False
            if account is None:
                result = next(results)
                shorter = bool(result.failed)
                account = self._publish(part, places.next_of(part.split), result)
                accounts[part.name] = account
            places.add_written(account.written)
            if shorter and self.writer.demands.numbered:
                return

    def _publish(self, part: Part, place: Place, result: WrittenPart) -> Account:
        """Put the files of a part in place, then its account."""
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
        account = Account(part.identity, written, result.failed)
        self.folder.note(account)
        self.made += len(written.episodes)
        self.progress.done += len(written.episodes)
        self.watch.progressed(self.progress)
        self.watch.message(f"{part.name}: written", warning=False)
        return account

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

    def describe(self, rows: Sequence[EpisodeRow]) -> None:
        """Write the files that describe all of the export."""
        if self.written:
            staged = self.folder.staging("description")
            staged.mkdir(parents=True)
            self.writer.finish(self.written, self.content, staged)
            self.folder.publish(staged)
        self.folder.describe(attribution(rows), self._listed())

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


def _chosen(corpus: Corpus, split: Sequence[str], limit: int | None) -> list[EpisodeRow]:
    """The rows of the manifest that are asked for, by name."""
    unknown = [name for name in split if name not in SPLITS]
    if unknown:
        raise UsageError(f"--split {unknown[0][:40]!r}: expected {', '.join(SPLITS)}")
    found = corpus.episodes.filter(pl.col("split").is_in(list(split)) if split else pl.lit(True))
    if not len(found):
        where = f" in {' or '.join(split)}" if split else ""
        raise NoInputsError(f"{corpus.location}: no episodes{where} among {corpus.n_episodes}")
    chosen = found if limit is None else found.head(limit)
    return [EpisodeRow.from_record(each) for each in chosen.drop("created").rows(named=True)]


def _conversion(corpus: Corpus, writer: Writer, mapping: Path | None) -> Conversion:
    """How actions of the corpus are said in the format."""
    native = corpus.info.action_space
    wanted = writer.space(native)
    if mapping is None:
        try:
            return find_conversion(native, wanted)
        except UsageError as error:
            raise UsageError(
                f"{writer.name} needs actions in {wanted.name}, the corpus has them in "
                f"{native.name}: {error} Give that file here with --mapping too"
            ) from None
    conversion = load_conversion(mapping)
    if conversion.source != native:
        raise UsageError(
            f"{mapping}: from {conversion.source.name}, but the corpus has actions in {native.name}"
        )
    if writer.space(conversion.target) != conversion.target:
        raise UsageError(
            f"{mapping}: to {conversion.target.name}, but {writer.name} needs actions in "
            f"{writer.space(conversion.target).name}"
        )
    return conversion


def _content(
    corpus: Corpus,
    rows: Sequence[EpisodeRow],
    conversion: Conversion,
    tokenizer: str | None,
    *,
    pictured: bool,
) -> Content:
    info = corpus.info
    size = info.size
    pictures: Pictures | None
    if info.frames != "none":
        pictures = "stored"
    elif pictured and info.tokenizer is not None:
        pictures, size = "decoded", info.tokenizer.frame_size
    else:
        pictures = None
    if pictured and pictures is None:
        raise UsageError(
            f"{corpus.location}: holds neither pictures nor tokens to make some from; ingest "
            "again with --frames png"
        )
    if tokenizer is not None and pictures != "decoded":
        raise UsageError("--tokenizer: nothing is decoded, as pictures are stored or not needed")
    return Content(
        space=conversion.target,
        rate=rate_of(corpus, rows),
        size=size,
        pictures=pictures,
        coding="jpeg" if info.frames == "jpeg" else "png",
        vocabulary=info.tokenizer.vocab_size if info.tokenizer else 0,
        grid=info.tokenizer.grid if info.tokenizer else (0, 0),
        state_size=info.state_size,
        reward=info.reward,
        text=info.text,
    )


def _notes(writer: Writer, content: Content, licences: Mapping[str, int]) -> Iterator[str]:
    """What a person should know, whatever the format."""
    if writer.demands.steady and content.rate is None:
        raise UsageError(
            f"{writer.name} has one rate for all episodes, but the corpus keeps those of its "
            "sources (--rate native), and they differ: ingest with --rate, or export them apart"
        )
    if content.pictures == "decoded":
        yield "the corpus stores no pictures: they are decoded from its tokens, not as recorded"
    if NOT_STATED in licences:
        yield f"{licences[NOT_STATED]} episodes state no licence: see that you may pass them on"


def _decoder(corpus: Corpus, ref: str | None, device: str) -> Service:
    """The decoder of the tokenizer that made the tokens.

    Raises:
        UsageError: it is not said where that lies.
        MismatchError: `ref` is another one.
    """
    info = corpus.info.tokenizer
    assert info is not None
    if ref is None and info.name not in BUNDLED:
        raise UsageError(
            f"{corpus.location}: stores no pictures, and its tokens were made by {info.name}: say "
            "where that lies with --tokenizer"
        )
    found = tokenizer_info(ref or info.name)
    if found.fingerprint != info.fingerprint:
        raise MismatchError(
            f"tokenizer {ref or info.name} ({found.fingerprint[:12]}) is not the one that made "
            f"the tokens of {corpus.location} ({info.fingerprint[:12]})"
        )
    return decoder_service(ref or info.name, device)


def _agreed(
    corpus: Corpus,
    rows: Sequence[EpisodeRow],
    writer: Writer,
    conversion: Conversion,
    content: Content,
) -> dict[str, object]:
    """What all that is in one folder has to agree on."""
    rate = content.rate
    agreed: dict[str, object] = {
        "format": writer.name,
        "options": option_settings((writer,)),
        "corpus": corpus.info.settings_hash,
        "actions": content_hash(conversion.said),
        "action_space": conversion.target.name,
        "pictures": content.pictures,
        "rate": str(rate) if isinstance(rate, Fraction) else None,
    }
    if writer.demands.numbered:
        named = [[row.recording, row.episode, row.split, row.n_steps] for row in rows]
        agreed["episodes"] = f"{len(rows)} ({content_hash(named)})"
    return agreed


def _check_apart(corpus: Corpus, out: str) -> None:
    if "://" in out:
        raise UsageError(f"--out {out}: exports are written to a folder; copy it there afterwards")
    if "://" in corpus.location:
        return
    real, location = Path(os.path.realpath(out)), Path(os.path.realpath(corpus.location))
    if real.is_relative_to(location) or location.is_relative_to(real):
        raise UsageError(f"--out {out}: the corpus lies there. Go elsewhere")
