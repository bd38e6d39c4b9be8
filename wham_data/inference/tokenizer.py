"""Find, identify and load tokenizers. Importing this module does not import torch.

A tokenizer is a folder with `tokenizer.safetensors` (float32 or float16 tensors, nothing executable)
and `config.json`, or a part of a WHAM checkpoint. Its fingerprint identifies it: it changes with any
bit of the weights or the configuration, and with the arithmetic of this release. A corpus stores the
fingerprint of the tokenizer that made its tokens.
"""

from __future__ import annotations

from pathlib import Path

from wham_data.inference.checkpoints.file_names import CONFIG_FILE, WEIGHTS_FILE
from wham_data.inference.tokenizers.contract import Tokenizer, TokenizerFiles
from wham_data.schemas.corpus_info import TokenizerInfo
from wham_data.schemas.errors import MismatchError, MissingPartError, UsageError

__all__ = [
    "BUNDLED",
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "Tokenizer",
    "TokenizerInfo",
    "decoding_tokenizer",
    "load_tokenizer",
    "tokenizer_info",
    "tokenizer_note",
]

BUNDLED = {"wham-tiny": Path(__file__).parent / "weights" / "wham-tiny"}
"""The tokenizers that come with the package, by name."""


def tokenizer_info(ref: str) -> TokenizerInfo:
    """The same as `load_tokenizer(ref).info`, read from the files without torch.

    Raises:
        UsageError: there is no bundled tokenizer, file or folder of that name.
        IntegrityError: a file is damaged, too large or unsafe, or its tensors are not those that
            its configuration needs.
    """
    return _files(ref).info()


def tokenizer_note(ref: str) -> str:
    """The folder and what is taken in it, if `ref` is only the folder around a model; else "".

    Raises:
        UsageError: as `tokenizer_info`.
    """
    from wham_data.inference.checkpoints.locate import locate_model

    return "" if ref in BUNDLED else locate_model(ref).note


def load_tokenizer(ref: str, device: str = "auto") -> Tokenizer:
    """Load a tokenizer to a device.

    Args:
        ref: "wham-tiny", a folder with `tokenizer.safetensors` and `config.json`, or a WHAM
            checkpoint (`.ckpt`).
        device: "cpu", "cuda", "cuda:1", ..., or "auto": a GPU if there is one that torch can use.

    Raises:
        UsageError: as `tokenizer_info`, or `device` is not the name of a device.
        IntegrityError: as `tokenizer_info`.
        MissingPartError: torch is not installed, or `device` is "cuda" and there is no CUDA.
        DeviceError: it does not fit into the memory of the device, or that fails.
    """
    files = _files(ref)
    try:
        from wham_data.inference.tokenizers.frame_tokenizer import FrameTokenizer
    except ModuleNotFoundError as missing:
        if missing.name != "torch":
            raise
        raise MissingPartError(
            "tokenizers need torch, which is not installed: `pip install torch` "
            "(or ingest with --tokenizer none)"
        ) from missing
    return FrameTokenizer.load(files, device)


def decoding_tokenizer(info: TokenizerInfo, ref: str | None, where: str) -> str:
    """The reference of the tokenizer that decodes the tokens of a corpus.

    Args:
        info: the tokenizer that made them, as the corpus describes it.
        ref: the tokenizer to use; None: the bundled one of that name.
        where: location of the corpus, for messages.

    Raises:
        UsageError: the location of the tokenizer is not known.
        MismatchError: `ref` is another tokenizer.
    """
    if ref is None and info.name not in BUNDLED:
        raise UsageError(
            f"{where}: stores no pictures, and its tokens were made by {info.name}: say where that "
            "lies with --tokenizer"
        )
    found = tokenizer_info(ref or info.name)
    if found.fingerprint != info.fingerprint:
        raise MismatchError(
            f"tokenizer {ref or info.name} ({found.fingerprint[:12]}) is not the one that made the "
            f"tokens of {where} ({info.fingerprint[:12]})"
        )
    return ref or info.name


def _files(ref: str) -> TokenizerFiles:
    from wham_data.inference.checkpoints.lightning import open_tokenizer
    from wham_data.inference.checkpoints.locate import locate_model
    from wham_data.inference.checkpoints.shards import is_there

    path = BUNDLED[ref] if ref in BUNDLED else locate_model(ref).path
    if not path.is_file() and not is_there(path / WEIGHTS_FILE):
        raise UsageError(
            f"tokenizer {ref!r}: no {WEIGHTS_FILE} in {path}. Give {' or '.join(sorted(BUNDLED))}, "
            f"a folder with {WEIGHTS_FILE} and {CONFIG_FILE}, or a WHAM checkpoint."
        )
    return open_tokenizer(path)
