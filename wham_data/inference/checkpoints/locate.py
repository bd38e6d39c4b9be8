"""Finds the model that a person means: a file, a model's folder, or the folder of a clone with one in it.

Nothing is downloaded. An address, or the name of a repository, is refused with the command to run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wham_data.inference.checkpoints.file_names import CONFIG_FILE, WEIGHTS_FILE
from wham_data.inference.checkpoints.shards import INDEX, is_there
from wham_data.schemas.errors import UsageError, printable
from wham_data.schemas.paths import expanded

CHECKPOINT_ENDING: Final = ".ckpt"
MOST_NAMED: Final = 4
MOST_ENTRIES: Final = 10_000
_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/{1,2}(?P<rest>.*)", re.DOTALL)
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_HUB: Final = re.compile(
    r"(?:hf:/{1,2}|https?:/{1,2}(?:www\.)?(?:huggingface\.co|hf\.co)/)(?:models/)?"
    r"(?P<name>[\w.-]+/[\w.-]+)(?:/(?:resolve|blob|tree|raw)/[\w.-]+(?:/(?P<file>[\w./-]+))?)?/?(?:\?.*)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Located:
    """Where a model is.

    note  what was taken, where the person named only the folder around it; else ""
    """

    path: Path
    note: str = ""


def locate_model(ref: str | Path) -> Located:
    """The checkpoint or model folder that `ref` means.

    Args:
        ref: a path as the person gave it. A folder that is no model folder may have one checkpoint or
            model folder in it, or in one of its subfolders. A path where nothing is comes back as it
            is: whoever opens it says so.

    Raises:
        UsageError: `ref` is an address or the name of a repository; or the folder has several models
            in it, or only one of another kind.
    """
    text, path = str(ref), Path(expanded(ref))
    if path.is_dir() and not _is_model_folder(path):
        return _within(path)
    if not path.exists():
        _refuse_elsewhere(text)
    return Located(path)


def _refuse_elsewhere(text: str) -> None:
    """Raise UsageError for an address or the name of a repository."""
    shown = printable(text[:300])
    hub = _HUB.fullmatch(text)
    if hub is not None:
        command = f"hf download {hub['name']}{' ' + hub['file'] if hub['file'] else ''}"
    elif _ADDRESS.fullmatch(text):
        raise UsageError(
            f"{shown}: an address, and nothing is downloaded by itself. Download the file, for example "
            f"with `curl -LO {shown}`, and give its path"
        )
    elif _REPOSITORY.fullmatch(text) and Path(text).suffix != CHECKPOINT_ENDING:
        if Path(text).parent.exists():
            return
        command = f"hf download {text}"
    else:
        return
    raise UsageError(
        f"{shown}: no such file or folder here, and nothing is downloaded by itself. If this is a "
        f"repository of Hugging Face, download it with `{command} --local-dir FOLDER`, and give FOLDER"
    )


def _within(folder: Path) -> Located:
    """The only model in a folder or its subfolders; the folder itself if there is none."""
    models = list(_models_in(folder))
    if not models:
        for below in _folders_in(folder):
            models += _models_in(below)
    names = [str(model.relative_to(folder)) for model in models]
    if len(models) == 1:
        return Located(models[0], printable(f"{folder}: took {names[0]} in it"))
    if models:
        some = ", ".join(names[:MOST_NAMED])
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        raise UsageError(
            printable(f"{folder}: {len(models)} models are in it: give one of {some}{more}")
        )
    index = next((p for p in _entries(folder) if p.name.endswith(INDEX)), None)
    if index is not None:
        raise UsageError(
            printable(
                f"{folder}: {index.name} is the index of a sharded Transformers model, not of a WHAM "
                "model. Give a WHAM checkpoint (.ckpt), or the folder of `wham-data convert`"
            )
        )
    return Located(folder)


def _models_in(folder: Path) -> Iterator[Path]:
    """Checkpoints and model folders directly in a folder, by name."""
    for entry in _entries(folder):
        is_checkpoint = entry.suffix.lower() == CHECKPOINT_ENDING and entry.is_file()
        if is_checkpoint or (entry.is_dir() and _is_model_folder(entry)):
            yield entry


def _folders_in(folder: Path) -> Iterator[Path]:
    return (entry for entry in _entries(folder) if entry.is_dir())


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, by name, without hidden entries."""
    try:
        found = [entry for entry, _ in zip(folder.iterdir(), range(MOST_ENTRIES), strict=False)]
    except OSError as error:
        raise UsageError(printable(f"{folder}: {error.strerror}")) from None
    return sorted(entry for entry in found if not entry.name.startswith("."))


def _is_model_folder(folder: Path) -> bool:
    """Whether a folder has the files of our own format, of which one may be missing."""
    return is_there(folder / WEIGHTS_FILE) or (
        (folder / CONFIG_FILE).is_file() and not _has_checkpoints(folder) and _is_ours(folder)
    )


def _has_checkpoints(folder: Path) -> bool:
    return any(entry.suffix.lower() == CHECKPOINT_ENDING for entry in _entries(folder))


def _is_ours(folder: Path) -> bool:
    """Whether config.json names our format or a tokenizer's family."""
    try:
        with (folder / CONFIG_FILE).open("rb") as file:
            start = file.read(1 << 16)
    except OSError:
        return False
    return b'"wham-data model' in start or b'"family"' in start
