"""`croissant.json`: the corpus in the Croissant 1.1 format, with the RAI vocabulary.

Source of the format: MLCommons, http://mlcommons.org/croissant/1.1 and .../RAI/1.0. The files are
named by paths relative to croissant.json, each with its SHA-256, so that they can be read where the
card is in the corpus. A set of files lists those that the manifest names one by one: other files of
the folder, of older versions, are not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from wham_data.pipelines.curate.card.facts import DataFile, Facts, hours_text
from wham_data.pipelines.curate.card.words import QUESTIONS, Words
from wham_data.schemas.errors import printable

VERSION: Final = "http://mlcommons.org/croissant/1.1"
RAI_VERSION: Final = "http://mlcommons.org/croissant/RAI/1.0"
PARQUET: Final = "application/x-parquet"
MOST_LISTED: Final = 5_000
"""Data files that are named one by one; with more of them, the shards are given by a pattern."""
MOST_LICENCES: Final = 20
NOT_ANSWERED: Final = "Not stated yet (card.toml: {key})."

Record = dict[str, Any]
_CONTEXT: Final[Record] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{name: f"cr:{name}" for name in ("arrayShape", "citeAs", "column", "containedIn", "extract")},
    **{
        name: f"cr:{name}" for name in ("equivalentProperty", "field", "fileObject", "fileProperty")
    },
    **{
        name: f"cr:{name}" for name in ("fileSet", "format", "includes", "isArray", "isLiveDataset")
    },
    **{
        name: f"cr:{name}"
        for name in ("jsonPath", "key", "md5", "parentField", "path", "recordSet")
    },
    **{
        name: f"cr:{name}"
        for name in ("references", "regex", "repeated", "replace", "samplingRate")
    },
    **{name: f"cr:{name}" for name in ("separator", "source", "subField", "transform")},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
}
_EPISODE_COLUMNS: Final = (
    ("episode", "sc:Text", "Name of the episode."),
    ("recording", "sc:Text", "Hash of the recording; a recording has one or more episodes."),
    ("shard", "sc:Text", "File under shards/ that holds its steps."),
    ("row_start", "sc:Integer", "Row of the shard that holds step 0."),
    ("n_steps", "sc:Integer", "Count of steps."),
    ("split", "sc:Text", "train, val or test."),
    ("game", "sc:Text", "Game, if it is stated."),
    ("map", "sc:Text", "Map or level, if it is stated."),
    ("license", "sc:Text", "Licence, if it is stated."),
    ("missing_actions", "sc:Integer", "Count of steps whose action is not known."),
)


def croissant(facts: Facts, words: Words) -> Record:
    """The content of croissant.json. Equal inputs give equal content."""
    shards = [file for files in facts.shards.values() for file in files]
    made: Record = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [VERSION, RAI_VERSION],
        "name": printable(words.texts.get("title", facts.name)),
        "description": words.texts.get("summary", summary_of(facts)),
        "version": f"{facts.version}.0.0",
        "dateModified": f"{facts.made:%Y-%m-%dT%H:%M:%S}",
        "license": _licences(facts, words),
        "keywords": ["gameplay", "world model", *map(printable, words.tags)],
        **_by_a_person(words),
        **_measured(facts, words),
        "distribution": [
            *_files("steps", "shards", shards),
            *_files("episodes", "episodes", facts.manifest),
        ],
        "recordSet": [
            _record_set("steps", "One row per step.", _step_columns(facts), ("episode", "step")),
            _record_set("episodes", "One row per episode.", _EPISODE_COLUMNS, ("episode",)),
        ],
    }
    return {name: value for name, value in made.items() if value not in (None, "", [])}


def summary_of(facts: Facts) -> str:
    """What the corpus is, in a sentence."""
    rate = "the rate of the recordings" if facts.info.rate == "native" else f"{facts.info.rate} Hz"
    return (
        f"{hours_text(facts.summary.hours)} hours of gameplay with the player's actions at {rate}: "
        f"{facts.summary.episodes:,} episodes of {facts.summary.recordings:,} recordings, "
        f"{facts.summary.steps:,} steps, in the action space {facts.info.action_space.name}."
    )


def _licences(facts: Facts, words: Words) -> list[str]:
    if "licence" in words.texts:
        return [printable(words.texts["licence"])]
    return [printable(each.name) or "not stated" for each in facts.summary.by["license"]][
        :MOST_LICENCES
    ]


def _by_a_person(words: Words) -> Record:
    made: Record = {
        f"rai:{each.rai}": words.texts.get(each.key, NOT_ANSWERED.format(key=each.key))
        for each in QUESTIONS
        if each.rai
    }
    consent = words.texts.get("consent", NOT_ANSWERED.format(key="consent"))
    made["rai:personalSensitiveInformation"] += f" Consent: {consent}"
    if "creator" in words.texts:
        made["creator"] = {"@type": "sc:Organization", "name": printable(words.texts["creator"])}
    return made | {
        "url": words.texts.get("url"),
        "citeAs": words.texts.get("citation"),
        "datePublished": words.texts.get("published"),
        "inLanguage": list(words.languages),
    }


def _measured(facts: Facts, words: Words) -> Record:
    settings = "; ".join(f"{name} {value}" for name, value in facts.info.settings.items())
    top = facts.balance.combinations[0] if facts.balance.combinations else None
    held = " ".join(top.controls) or "nothing" if top else ""
    return {
        "rai:dataCollectionType": ["Software Collection", "Observations"],
        "rai:dataCollectionMissingData": (
            f"The action of {1 - facts.known:.2%} of the steps is not known; {facts.gaps:,} gaps in the "
            f"clocks of the recordings; {facts.lost:,} frames could not be decoded."
        ),
        "rai:dataPreprocessingProtocol": [
            f"Pictures: {facts.info.size[0]}x{facts.info.size[1]}, {facts.info.fit}.",
            *([f"Settings: {printable(settings)}"] if settings else []),
        ],
        "rai:dataManipulationProtocol": (
            f"{hours_text(facts.kept)} of {hours_text(facts.summary.hours)} hours are marked for training. "
            f"{facts.summary.quarantined:,} inputs were refused."
        ),
        "rai:machineAnnotationTools": [printable(each) for each in facts.summary.captions],
        "rai:dataBiases": [
            words.texts.get("biases", NOT_ANSWERED.format(key="biases")),
            *(
                [f"Measured: most often held is {held}, {top.share:.1%} of the time."]
                if top
                else []
            ),
        ],
    }


def _files(name: str, folder: str, files: Sequence[DataFile]) -> Iterator[Record]:
    """The set of files that a record set reads, and each file with its hash."""
    listed = len(files) <= MOST_LISTED
    yield {
        "@type": "cr:FileSet",
        "@id": f"{name}-files",
        "name": f"{name}-files",
        "description": (
            f"{len(files):,} Parquet files."
            if listed
            else f"{len(files):,} Parquet files; their SHA-256 are in the column shard_sha256 of the "
            "episodes, which also name the files that belong to this version."
        ),
        "encodingFormat": PARQUET,
        "includes": sorted(file.name for file in files) if listed else f"{folder}/*.parquet",
    }
    for file in files if listed else ():
        yield {
            "@type": "cr:FileObject",
            "@id": file.name,
            "name": file.name,
            "contentUrl": file.name,
            "contentSize": f"{file.n_bytes} B",
            "encodingFormat": PARQUET,
            "sha256": file.sha256,
        }


def _record_set(
    name: str, description: str, columns: Sequence[tuple[str, str, str]], key: Sequence[str]
) -> Record:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": description,
        "key": [{"@id": f"{name}/{each}"} for each in key],
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{name}/{column}",
                "name": column,
                "description": told,
                "dataType": kind,
                "source": {
                    "fileSet": {"@id": f"{name}-files"},
                    "extract": {"column": column},
                },
            }
            for column, kind, told in columns
        ],
    }


def _step_columns(facts: Facts) -> tuple[tuple[str, str, str], ...]:
    info, text = facts.info, facts.info.text or facts.summary.captions
    names = ", ".join(info.action_space.names)
    size = info.action_space.size
    tokens = f"Bytes: {info.n_tokens} little-endian uint16, the tokens of the picture, row by row."
    columns = (
        (True, "episode", "sc:Text", "Name of the episode."),
        (True, "step", "sc:Integer", "0, 1, 2, ... in the episode."),
        (True, "time_ns", "sc:Integer", "Time on the recording's clock, nanoseconds."),
        (info.tokenizer, "tokens", "sc:Text", tokens),
        (True, "actions", "sc:Text", f"Bytes: {size} little-endian float32: {names}."),
        (True, "action_known", "sc:Boolean", "False: the action is not known, and all NaN."),
        (info.frames != "none", "frame", "sc:ImageObject", "The picture."),
        (info.state_size, "state", "sc:Text", f"Bytes: {info.state_size} little-endian float32."),
        (info.reward, "reward", "sc:Float", "Reward earned in the step."),
        (text, "text", "sc:Text", "What a text says of the step."),
    )
    return tuple(each[1:] for each in columns if each[0])
