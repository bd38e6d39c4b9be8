"""Decides what an export holds before anything is written: rows, actions, pictures, settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import polars as pl

from wham_data.corpus import Corpus
from wham_data.corpus.readable import has_text
from wham_data.inference.tokenizer import decoding_tokenizer
from wham_data.pipelines.export.licences import NOT_STATED
from wham_data.pipelines.export.parts import decoder_service
from wham_data.pipelines.readers.kit.options import option_settings
from wham_data.pipelines.run.runner import Service
from wham_data.pipelines.writers import Content, Writer
from wham_data.pipelines.writers.parts import Pictures
from wham_data.pipelines.writers.stretches import rate_of
from wham_data.schemas.conversion import Conversion, find_conversion, load_conversion
from wham_data.schemas.corpus_info import content_hash
from wham_data.schemas.errors import NoInputsError, UsageError
from wham_data.schemas.manifest import SPLITS, EpisodeRow


def chosen_rows(corpus: Corpus, split: Sequence[str], limit: int | None) -> list[EpisodeRow]:
    """The rows of the manifest to export, by name."""
    unknown = [name for name in split if name not in SPLITS]
    if unknown:
        raise UsageError(f"--split {unknown[0][:40]!r}: expected {', '.join(SPLITS)}")
    found = corpus.episodes.filter(pl.col("split").is_in(list(split)) if split else pl.lit(True))
    if not len(found):
        where = f" in {' or '.join(split)}" if split else ""
        raise NoInputsError(f"{corpus.location}: no episodes{where} among {corpus.n_episodes}")
    chosen = found if limit is None else found.head(limit)
    return [EpisodeRow.from_record(each) for each in chosen.drop("created").rows(named=True)]


def conversion_for(corpus: Corpus, writer: Writer, mapping: Path | None) -> Conversion:
    """The conversion from the corpus' actions to the format's actions."""
    native = corpus.info.action_space
    needed = writer.space(native)
    if mapping is None:
        try:
            return find_conversion(native, needed)
        except UsageError as error:
            raise UsageError(
                f"{writer.name} needs actions in {needed.name}, the corpus has them in "
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


def content_of(
    corpus: Corpus,
    rows: Sequence[EpisodeRow],
    conversion: Conversion,
    tokenizer: str | None,
    *,
    pictured: bool,
) -> Content:
    """The content that every exported step has.

    Raises:
        UsageError: pictures are needed and there are none, or a tokenizer is given but not needed.
    """
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
        text=has_text(corpus),
    )


def notes_on(writer: Writer, content: Content, licences: Mapping[str, int]) -> Iterator[str]:
    """Notes for the user that do not depend on the format."""
    if writer.demands.steady and content.rate is None:
        raise UsageError(
            f"{writer.name} has one rate for all episodes, but the corpus keeps those of its "
            "sources (--rate native), and they differ: ingest with --rate, or export them apart"
        )
    if content.pictures == "decoded":
        yield "the corpus stores no pictures: they are decoded from its tokens, not as recorded"
    if NOT_STATED in licences:
        yield f"{licences[NOT_STATED]} episodes state no licence: see that you may pass them on"


def decoder_for(corpus: Corpus, ref: str | None, device: str) -> Service:
    """The decoder of the tokenizer that made the tokens.

    Raises:
        UsageError: the location of the tokenizer is not known.
        MismatchError: `ref` is another tokenizer.
    """
    assert corpus.info.tokenizer is not None
    return decoder_service(decoding_tokenizer(corpus.info.tokenizer, ref, corpus.location), device)


def agreed_by(
    corpus: Corpus,
    rows: Sequence[EpisodeRow],
    writer: Writer,
    conversion: Conversion,
    content: Content,
) -> dict[str, object]:
    """The settings that everything in one export folder must share."""
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
    if content.text and not corpus.info.text:
        agreed["text"] = "captions"
    if writer.demands.numbered:
        named = [[row.recording, row.episode, row.split, row.n_steps] for row in rows]
        agreed["episodes"] = f"{len(rows)} ({content_hash(named)})"
    return agreed
