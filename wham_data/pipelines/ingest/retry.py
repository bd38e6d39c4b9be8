"""Ingest refused inputs again, with the settings of the corpus that refused them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from wham_data.corpus import Corpus
from wham_data.corpus.runs import runs
from wham_data.corpus.splits import split_by_of
from wham_data.corpus.storage.locations import is_url
from wham_data.corpus.storage.sources.folders import exists
from wham_data.pipelines.ingest.decoder_process import DecodeLimits
from wham_data.pipelines.ingest.job import run_ingest
from wham_data.pipelines.ingest.report import IngestReport
from wham_data.pipelines.ingest.settings import IngestChoices, IngestSettings
from wham_data.pipelines.run.progress import ProgressListener
from wham_data.pipelines.run.runner import Runner
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import NO_ACTIONS
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.errors import NoInputsError
from wham_data.schemas.manifest import UNSETTLED
from wham_data.schemas.mask import parse_masks
from wham_data.schemas.paths import source_path
from wham_data.schemas.player_key import PlayerKey


def retry(
    location: str | Path,
    runner: Runner,
    *,
    reason: str | None = None,
    tokenizer: str | None = None,
    limits: VideoLimits | None = None,
    decoding: DecodeLimits | None = None,
    player_key: PlayerKey | None = None,
    watch: ProgressListener | None = None,
) -> IngestReport:
    """Ingest the inputs in quarantine again. An input that succeeds leaves the quarantine.

    Args:
        location: path or URL of the corpus.
        runner: runs the work.
        reason: try only inputs that were refused for this reason; None: all.
        tokenizer: path of the corpus' tokenizer, if its name is not enough to find it.
        limits, decoding: new limits, for inputs that were refused because of a limit.
        player_key: key of the pseudonyms of the corpus' players.
        watch: receives progress and messages.

    Raises:
        NoInputsError: nothing was refused, or the inputs no longer exist.
        MismatchError: the description of the corpus does not store all its settings in full.
    """
    corpus = Corpus.open(location)
    table = corpus.quarantine
    refused = table.filter(table["settings"].is_in([corpus.info.settings_hash, UNSETTLED]))
    if reason is not None:
        refused = refused.filter(refused["reason"] == reason)
    paths = set(refused["path"])
    roots = _roots_of(paths, corpus)
    if not roots:
        what = f"nothing refused for {reason}" if reason else "nothing refused"
        gone = f" ({len(paths)} inputs are no longer there)" if paths else ""
        raise NoInputsError(f"{corpus.location}: {what} to try again{gone}")
    settings = settings_of(corpus.info, tokenizer)
    if limits is not None:
        settings = replace(
            settings, limits=replace(limits, min_decoded=settings.limits.min_decoded)
        )
    if decoding is not None:
        settings = replace(settings, decoding=decoding)
    choices = IngestChoices(only=paths, retry_quarantined=True, player_key=player_key)
    return run_ingest(roots, location, settings, runner, choices, watch=watch)


def settings_of(info: CorpusInfo, tokenizer: str | None = None) -> IngestSettings:
    """The settings with which a corpus was made, as far as its description stores them.

    For a mapping, and for a file given as an option, a corpus stores only a hash. These settings are
    left out here, and opening the corpus then raises MismatchError.
    """
    stored = info.settings
    train, val, test = map(float, str(stored["split"]).split(","))
    if info.tokenizer is not None:
        tokenizer = tokenizer or info.tokenizer.name
    return IngestSettings(
        rate=None if info.rate == "native" else Fraction(info.rate),
        size=info.size,
        fit=info.fit,
        actions=NO_ACTIONS if info.action_space.name == NO_ACTIONS else None,
        tokenizer=tokenizer,
        frames=info.frames,
        axis_rule=stored["axis_rule"],  # type: ignore[arg-type]  # checked by CorpusInfo.diff
        max_gap_ns=int(stored["max_gap_ns"]),
        split=(train, val, test),
        split_seed=int(stored["split_seed"]),
        split_by=split_by_of(info),
        limits=VideoLimits(min_decoded=float(stored["min_decoded"])),
        options=tuple(
            sorted(
                (name.removeprefix("option."), str(value))
                for name, value in stored.items()
                if name.startswith("option.")
            )
        ),
        masks=parse_masks(str(stored.get("masks", "")).split()),
    )


def _roots_of(paths: set[str], corpus: Corpus) -> list[str]:
    """The sources of the earlier runs that found these inputs, if they still exist.

    An input may be recognised only together with its folder, so its path alone may not be enough.
    """
    files = {path.partition("#")[0] for path in paths}
    roots = set()
    for given in _sources_of_runs(corpus):
        place = source_path(given)
        ours = {file for file in files if source_path(file).is_relative_to(place)}
        if ours and exists(place):
            roots.add(given)
            files -= ours
    return sorted({*roots, *(file for file in files if exists(source_path(file)))})


def _sources_of_runs(corpus: Corpus) -> Iterator[str]:
    for _, run in runs(corpus.storage):
        given = run.get("sources")
        for source in given if isinstance(given, list) else ():
            if isinstance(source, str) and (is_url(source) or Path(source).is_absolute()):
                yield source
