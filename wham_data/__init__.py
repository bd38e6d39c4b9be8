"""wham-data: gameplay recordings in, a verified corpus of 10 Hz tokens and actions out.

    import wham_data

    wham_data.ingest(["recordings/"], out="corpus", tokenizer="wham-tiny")
    corpus = wham_data.Corpus.open("corpus")
    corpus.scan()        # a polars LazyFrame of steps
    wham_data.query(corpus, "SELECT player, SUM(hours) FROM episodes GROUP BY player").collect()
    wham_data.WindowDataset(corpus, length=10, batch_size=32)      # windows for training
    wham_data.export("corpus", to="lerobot", out="dataset")
    model = wham_data.load_world_model("WHAM.ckpt")
    wham_data.dream(model, wham_data.Context(actions=..., tokens=...), steps=20)

The names below are loaded when they are first used; importing this package loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wham_data import after_fork as after_fork  # watches for forks from now on

if TYPE_CHECKING:
    from wham_data.corpus import Corpus as Corpus
    from wham_data.corpus.query import query as query
    from wham_data.feed import WindowDataset as WindowDataset
    from wham_data.feed import to_torch as to_torch
    from wham_data.inference.checkpoints.lightning import open_checkpoint as open_checkpoint
    from wham_data.inference.dream import Dream as Dream
    from wham_data.inference.dream import dream as dream
    from wham_data.inference.dream import dream_batch as dream_batch
    from wham_data.inference.gpt.model import GPT as GPT
    from wham_data.inference.gpt.spec import GPTSpec as GPTSpec
    from wham_data.inference.sampling import Sampling as Sampling
    from wham_data.inference.session import LATER as LATER
    from wham_data.inference.session import Context as Context
    from wham_data.inference.session import Session as Session
    from wham_data.inference.session import Step as Step
    from wham_data.inference.session import WorldModel as WorldModel
    from wham_data.inference.tokenizer import Tokenizer as Tokenizer
    from wham_data.inference.tokenizer import load_tokenizer as load_tokenizer
    from wham_data.inference.world_model import load_world_model as load_world_model
    from wham_data.pipelines.export.job import export as export
    from wham_data.pipelines.ingest.job import ingest as ingest
    from wham_data.pipelines.ingest.settings import IngestSettings as IngestSettings
    from wham_data.pipelines.ingest.tokenize import tokenize as tokenize
    from wham_data.pipelines.readers import open_recording as open_recording
    from wham_data.schemas.actions import ActionSpace as ActionSpace
    from wham_data.schemas.actions import load_space as load_space
    from wham_data.schemas.errors import IntegrityError as IntegrityError
    from wham_data.schemas.errors import MismatchError as MismatchError
    from wham_data.schemas.errors import MissingPartError as MissingPartError
    from wham_data.schemas.errors import NoInputsError as NoInputsError
    from wham_data.schemas.errors import Reason as Reason
    from wham_data.schemas.errors import RefusedInput as RefusedInput
    from wham_data.schemas.errors import UsageError as UsageError
    from wham_data.schemas.errors import WhamDataError as WhamDataError
    from wham_data.schemas.wham_tokens import decode_actions as decode_actions
    from wham_data.schemas.wham_tokens import encode_actions as encode_actions
    from wham_data.schemas.wham_tokens import token_ranges as token_ranges

__version__ = "0.1.0"

_HOMES = {
    "ActionSpace": "wham_data.schemas.actions",
    "Context": "wham_data.inference.session",
    "Corpus": "wham_data.corpus",
    "Dream": "wham_data.inference.dream",
    "GPT": "wham_data.inference.gpt.model",
    "GPTSpec": "wham_data.inference.gpt.spec",
    "IngestSettings": "wham_data.pipelines.ingest.settings",
    "LATER": "wham_data.inference.session",
    "IntegrityError": "wham_data.schemas.errors",
    "MismatchError": "wham_data.schemas.errors",
    "MissingPartError": "wham_data.schemas.errors",
    "NoInputsError": "wham_data.schemas.errors",
    "Reason": "wham_data.schemas.errors",
    "RefusedInput": "wham_data.schemas.errors",
    "Sampling": "wham_data.inference.sampling",
    "Session": "wham_data.inference.session",
    "Step": "wham_data.inference.session",
    "Tokenizer": "wham_data.inference.tokenizer",
    "UsageError": "wham_data.schemas.errors",
    "WhamDataError": "wham_data.schemas.errors",
    "WindowDataset": "wham_data.feed",
    "WorldModel": "wham_data.inference.session",
    "decode_actions": "wham_data.schemas.wham_tokens",
    "dream": "wham_data.inference.dream",
    "dream_batch": "wham_data.inference.dream",
    "encode_actions": "wham_data.schemas.wham_tokens",
    "export": "wham_data.pipelines.export.job",
    "ingest": "wham_data.pipelines.ingest.job",
    "load_space": "wham_data.schemas.actions",
    "load_tokenizer": "wham_data.inference.tokenizer",
    "load_world_model": "wham_data.inference.world_model",
    "open_checkpoint": "wham_data.inference.checkpoints.lightning",
    "open_recording": "wham_data.pipelines.readers",
    "query": "wham_data.corpus.query",
    "to_torch": "wham_data.feed",
    "token_ranges": "wham_data.schemas.wham_tokens",
    "tokenize": "wham_data.pipelines.ingest.tokenize",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wham_data' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
