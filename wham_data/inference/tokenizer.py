"""What a tokenizer is, and how one is found, identified and loaded. Importing this imports no
torch.

A tokenizer is a folder, `tokenizer.safetensors` (float32 or float16 tensors, nothing executable)
and `config.json`, or lies in a WHAM checkpoint. It is known by its fingerprint, which changes with
any bit of either and with the arithmetic of this release, so a corpus can say which tokenizer its
tokens belong to.
"""

from __future__ import annotations

from pathlib import Path

from wham_data.inference.checkpoints.file_names import CONFIG_FILE, WEIGHTS_FILE
from wham_data.inference.tokenizers.contract import Tokenizer, TokenizerFiles
from wham_data.schemas.corpus_info import TokenizerInfo
from wham_data.schemas.errors import MissingPartError, UsageError

__all__ = [
    "BUNDLED",
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "Tokenizer",
    "TokenizerInfo",
    "load_tokenizer",
    "tokenizer_info",
]

BUNDLED = {"wham-tiny": Path(__file__).parent / "weights" / "wham-tiny"}
"""The tokenizers that come with the package, by name."""


def tokenizer_info(ref: str) -> TokenizerInfo:
    """What `load_tokenizer(ref).info` would say, from the files alone and without torch.

    Raises:
        UsageError: no tokenizer is bundled under that name, and there is no such file or folder.
        IntegrityError: a file is damaged, oversized or unsafe, or holds other tensors than its
            configuration demands.
    """
    return _files(ref).info()


def load_tokenizer(ref: str, device: str = "auto") -> Tokenizer:
    """Load a tokenizer, ready to encode.

    Args:
        ref: "wham-tiny", a folder with `tokenizer.safetensors` and `config.json`, or a WHAM
            checkpoint (`.ckpt`).
        device: "cpu", "cuda", "cuda:1", ..., or "auto": a GPU where there is one.

    Raises:
        UsageError, IntegrityError: as `tokenizer_info`, and for a device of another name.
        MissingPartError: torch is not installed, or CUDA was asked for and is not there.
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


def _files(ref: str) -> TokenizerFiles:
    from wham_data.inference.checkpoints.lightning import open_tokenizer

    path = BUNDLED.get(ref, Path(ref))
    if not path.is_file() and not (path / WEIGHTS_FILE).is_file():
        raise UsageError(
            f"tokenizer {ref!r}: no {WEIGHTS_FILE} in {path}. Give {' or '.join(sorted(BUNDLED))}, "
            f"a folder with {WEIGHTS_FILE} and {CONFIG_FILE}, or a WHAM checkpoint."
        )
    return open_tokenizer(path)
