"""wham-data: gameplay recordings in, a verified corpus of 10 Hz tokens and actions out.

    import wham_data

    wham_data.ingest(["recordings/"], out="corpus", tokenizer="wham-tiny")
    corpus = wham_data.Corpus.open("corpus")
    corpus.scan()        # a polars LazyFrame of steps

The names below are loaded when they are first used; importing this package loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wham_data.corpus import Corpus as Corpus
    from wham_data.inference.tokenizer import Tokenizer as Tokenizer
    from wham_data.inference.tokenizer import load_tokenizer as load_tokenizer
    from wham_data.pipelines.ingest import ingest as ingest
    from wham_data.pipelines.settings import IngestSettings as IngestSettings
    from wham_data.schemas.actions import ActionSpace as ActionSpace
    from wham_data.schemas.actions import load_space as load_space
    from wham_data.schemas.errors import WhamDataError as WhamDataError

__version__ = "0.1.0"

_HOMES = {
    "ActionSpace": "wham_data.schemas.actions",
    "Corpus": "wham_data.corpus",
    "IngestSettings": "wham_data.pipelines.settings",
    "Tokenizer": "wham_data.inference.tokenizer",
    "WhamDataError": "wham_data.schemas.errors",
    "ingest": "wham_data.pipelines.ingest",
    "load_space": "wham_data.schemas.actions",
    "load_tokenizer": "wham_data.inference.tokenizer",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wham_data' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
