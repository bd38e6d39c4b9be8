"""A corpus becomes a data set in a format that others train from: the whole job.

    which episodes, and under which licences                licences.py
    what the format asks of them, what their actions become writers/
    cut where the format can't follow, shared out in parts  writers/stretches.py, writers/parts.py
    for every part that is not there yet:
      write it into a folder of its own                     writers/<format>.py
      put its files in place, then its account              folder.py
    the files that describe all of it; the report           report.py

A part is there whole or not at all, so a run that was stopped goes on where it was. An episode that
cannot be read or said in the format is left out of its part and named.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import polars as pl

from wham_data.corpus import Corpus
from wham_data.inference.tokenizer import BUNDLED, Tokenizer, load_tokenizer
from wham_data.pipelines.export.folder import Account, ExportFolder
from wham_data.pipelines.export.licences import NOT_STATED, attribution, check_licences, licences_of
from wham_data.pipelines.export.report import (
    ExportProgress,
    ExportReport,
    ExportWatch,
)
from wham_data.pipelines.readers.kit.options import option_settings
from wham_data.pipelines.run.progress import Failed, Silent
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
    printable,
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
    watch: ExportWatch | None = None,
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
        watch: is told how far the run is.

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
        watch.told(note, warning=True)
    decoder = _decoder(corpus, tokenizer, device) if content.pictures == "decoded" else None
    run = _Run(
        ExportSource(corpus, conversion, decoder), writer, content, ExportFolder(Path(out)), watch
    )
    with run.folder.opened(_agreed(corpus, rows, writer, conversion, content)):
        run.cut(rows)
        run.write_all()
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
    watch: ExportWatch
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
        self.source = replace(self.source, advance=self._advanced)
        for row in rows:
            try:
                found = stretches_of(self.source, row, known=self.writer.demands.known)
            except Unfit as unfit:
                self._fail(unfit)
                continue
            if not found:
                none = "none of its steps is kept and has a known action"
                self._fail(Unfit(Stretch(self.source, row, 0, row.n_steps),
                                 RefusedInput(Reason.LOG_EMPTY, none)))  # fmt: skip
                continue
            self.stretches += found
            self.left_out += row.n_steps

    def write_all(self) -> None:
        """Write the parts that are not there."""
        to_do: list[Part] = []
        parts = list(self.writer.parts(self.stretches))
        self.folder.check_only(parts)
        # A format may cut further, or leave some out.
        self.stretches = [each for part in parts for each in part.stretches]
        self.found = len(self.stretches) + len(self.failed)
        self.left_out -= sum(each.n_steps for each in self.stretches)
        accounts = {part.name: self.folder.account(part) for part in parts}
        for part in parts:
            account = accounts[part.name]
            # What failed is tried again, unless others have been numbered behind it by now.
            if account is None or (account.failed and not self.writer.demands.numbered):
                accounts[part.name] = None
                to_do.append(part)
        self.progress = ExportProgress(
            sum(len(part.stretches) for part in to_do), sum(part.n_steps for part in to_do)
        )
        before = dict.fromkeys(SPLITS, (0, 0))
        for part in parts:
            account = accounts[part.name]
            if account is None:
                episodes, steps = (sum(each) for each in zip(*before.values(), strict=True))
                account = self._write(part, Place(episodes, steps, *before[part.split]))
            else:
                self.failed += account.failed
            self.names.update(account.written.files)
            if account.written.episodes:
                self.written.append(account.written)
                episodes, steps = before[part.split]
                more = len(account.written.episodes), sum(account.written.steps)
                before[part.split] = episodes + more[0], steps + more[1]

    def describe(self, rows: Sequence[EpisodeRow]) -> None:
        """Write the files that describe all of the export."""
        if self.written:
            with self.folder.making() as making:
                self.writer.finish(self.written, self.content, making)
                self.folder.publish(making)
        self.folder.describe(attribution(rows), self._listed())

    def _write(self, part: Part, place: Place) -> Account:
        """Write a part, without those of its episodes that cannot be."""
        left, failed = list(part.stretches), list[Failed]()
        before = self.progress.steps_done
        written = Written(part.name, part.split, place, (), (), ())
        while left:
            with self.folder.making() as making:
                try:
                    if (rate := self.content.rate) and self.writer.demands.steady:
                        for stretch in left:
                            stretch.check_steady(rate)
                    these = replace(part, stretches=tuple(left))
                    facts = self.writer.write(these, place, self.content, making)
                except Unfit as unfit:
                    left.remove(unfit.stretch)
                    failed.append(self._fail(unfit))
                    self.progress.steps_done = before
                    continue
                self._check_names(part, making)
                files, size = self.folder.publish(making)
            written = replace(
                written,
                episodes=tuple(each.name for each in left),
                steps=tuple(each.n_steps for each in left),
                files=files,
                facts=facts,
            )
            self.files += len(files)
            self.bytes += size
            break
        account = Account(part.identity, written, tuple(failed))
        self.folder.note(account)
        self.made += len(written.episodes)
        self.progress.done += len(written.episodes)
        self.progress.steps_done = before + part.n_steps
        self.watch.advanced(self.progress)
        self.watch.told(f"{part.name}: written", warning=False)
        return account

    def _check_names(self, part: Part, making: Path) -> None:
        for path in making.rglob("*"):
            if path.is_file() and (name := str(path.relative_to(making))) in self.names:
                raise UsageError(
                    f"{part.name}: another episode is called {name} too. Export them apart, with "
                    "--split or from two corpora"
                )

    def _advanced(self, steps: int) -> None:
        self.progress.steps_done += steps
        self.watch.advanced(self.progress)

    def _fail(self, unfit: Unfit) -> Failed:
        why, row = unfit.why, unfit.stretch.row
        reason = why.reason if isinstance(why, RefusedInput) else Reason.CORRUPT
        told = (unfit.stretch.name, printable(row.source), str(reason), printable(str(why)))
        self.failed.append(Failed(*told))
        self.progress.failed += 1
        self.watch.told("{} ({}) failed [{}]: {}".format(*told), warning=False)
        return self.failed[-1]

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


def _decoder(corpus: Corpus, ref: str | None, device: str) -> Tokenizer:
    """The tokenizer that made the tokens."""
    info = corpus.info.tokenizer
    assert info is not None
    if ref is None and info.name not in BUNDLED:
        raise UsageError(
            f"{corpus.location}: stores no pictures, and its tokens were made by {info.name}: say "
            "where that lies with --tokenizer"
        )
    decoder = load_tokenizer(ref or info.name, device)
    if decoder.fingerprint != info.fingerprint:
        raise MismatchError(
            f"tokenizer {ref or info.name} ({decoder.fingerprint[:12]}) is not the one that made "
            f"the tokens of {corpus.location} ({info.fingerprint[:12]})"
        )
    return decoder


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
        "actions": content_hash(conversion.rules_json),
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
