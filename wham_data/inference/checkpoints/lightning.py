"""Opens a WHAM model without running any code in it: a Lightning `.ckpt`, or its converted folder.

Opening reads the configuration and the names and shapes of the tensors, and checks that every tensor
of the configuration exists. It reads no weights: those are mapped and checked (checksum, finite
values) when they are used. Other parts of a checkpoint, above all the optimizer's state, are never
read. Both forms give the same tokenizer fingerprint. torch is imported only when a world model's
tensors are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from wham_data.files.inert_pickle import TensorRecord
from wham_data.files.torch_archive import TorchArchive
from wham_data.inference.checkpoints import hyper_parameters as wham
from wham_data.inference.checkpoints.locate import locate_model
from wham_data.inference.checkpoints.model_folder import ModelFolder
from wham_data.inference.checkpoints.wrappers import without_wrappers
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.tokenizers.config import Family, Fingerprint, TokenizerConfig
from wham_data.schemas.corpus_info import TokenizerInfo
from wham_data.schemas.errors import IntegrityError, UsageError, WhamDataError

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]

_WORD_TABLE, _HEAD = "transformer.wte.weight", "lm_head.weight"
"""One matrix under two names. If they differ, the published loader uses that of the head."""

_NOT_FOR_INFERENCE = re.compile(
    r"context_encoders\.images\.([01]\.)?(patch_gan|target_patchgan|lpips_model)\."
    r"|context_encoders\.images\..*\.attn\.attn_mask$"
    r"|context_encoders\.images\.([01]\.)?vq_model\.(loss\.|colorize)"
    r"|predictor\.gpt_model\.transformer\.h\.\d+\.attn\.bias$"
)
"""Keys that only training or older releases use."""


class _ImageWeights(Protocol):
    """Where a tokenizer's tensors are read from, by their names in a converted folder."""

    def tokenizer_array(self, name: str) -> NDArray[np.floating]: ...


class _Weights(_ImageWeights, Protocol):
    """Where the tensors of a whole model are read from."""

    def world_model_tensor(self, name: str) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class ModelTokenizerFiles:
    """The image tokenizer of a model on disk, or the pair of them."""

    path: Path
    config: TokenizerConfig
    _weights: _ImageWeights

    def tensors(self) -> Iterator[tuple[str, NDArray[np.floating]]]:
        """All tensors, sorted by name: float32 from a checkpoint, the stored type from a folder.

        Raises:
            IntegrityError: a checksum is wrong, or a value is not finite.
        """
        for name in sorted(self.config.tensor_shapes()):
            yield name, self._weights.tokenizer_array(name)

    def info(self) -> TokenizerInfo:
        """The description that a corpus stores. Reads all weights, for the fingerprint."""
        fingerprint = Fingerprint(self.config)
        for name, values in self.tensors():
            fingerprint.add(name, values)
        return self.config.info(self.name, fingerprint.hex())

    @property
    def name(self) -> str:
        """The file's or folder's name, of a link its own: in a hub's cache the target has none."""
        return (self.path if self.path.is_symlink() else self.path.resolve()).name


@dataclass(frozen=True, slots=True)
class WhamCheckpoint:
    """A world model and its image tokenizer.

    gpt         shape of the world model
    ignored     keys of the state dict that inference does not need
    unexpected  unknown keys of the state dict; they are left out too
    wham        whether it is a WHAM checkpoint, or was converted from one
    notes       what was taken or changed to open it, one line each
    """

    path: Path
    tokenizer: ModelTokenizerFiles
    gpt: GPTSpec
    ignored: tuple[str, ...]
    unexpected: tuple[str, ...]
    wham: bool
    _weights: _Weights
    notes: tuple[str, ...] = ()

    @property
    def family(self) -> Family:
        """The family of the tokenizer (of a pair, the one that encodes)."""
        return self.tokenizer.config.family

    def world_model_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The world model's tensors (`GPTSpec.tensor_shapes`), on the CPU and mapped from the file.

        Their type is float32 from a checkpoint, and the stored type from a folder.

        Raises:
            IntegrityError: a checksum is wrong, or a value is not finite.
        """
        for name in self.gpt.tensor_shapes():
            yield name, self._weights.world_model_tensor(name)


def open_checkpoint(path: Path | str, n_head: int | None = None) -> WhamCheckpoint:
    """Open a WHAM checkpoint or a converted folder.

    Args:
        path: of the checkpoint or folder, or of a folder with one model in it (see `locate_model`).
        n_head: number of attention heads, for a checkpoint that does not contain it.

    Raises:
        UsageError: there is no such file, or no world model in the folder; or `n_head` is needed and
            is None, or differs from the number in the file.
        IntegrityError: the file is damaged, is refused as unsafe, is not a WHAM model, refers to a
            second file, or a tensor is missing or has another shape.
    """
    located = locate_model(path)
    path, notes = located.path, (located.note,) if located.note else ()
    if not path.is_dir():
        opened = _LightningFile.open(path).checkpoint(n_head)
        return replace(opened, notes=(*notes, *opened.notes))
    folder = ModelFolder.open(path)
    if folder.gpt is None:
        raise UsageError(f"{path}: this is a tokenizer without a world model")
    files = ModelTokenizerFiles(path, folder.tokenizer, folder)
    return WhamCheckpoint(path, files, folder.gpt, (), (), folder.wham, folder, notes)


def open_tokenizer(path: Path | str) -> ModelTokenizerFiles:
    """Open the image tokenizer of a WHAM checkpoint, of a converted folder, or alone in a folder.

    Raises:
        UsageError, IntegrityError: as `open_checkpoint`; but a checkpoint's world model is not
            checked.
    """
    path = locate_model(path).path
    if not path.is_dir():
        return _LightningFile.open(path).tokenizer()
    folder = ModelFolder.open(path)
    return ModelTokenizerFiles(path, folder.tokenizer, folder)


@dataclass(frozen=True, slots=True)
class _LightningFile:
    """A checkpoint's hyper-parameters (inert data) and its state dict.

    keys      all keys of the state dict, without the names of wrappers
    records   key -> tensor, for those that are tensors
    wrappers  names of wrapping modules that were taken out of the keys
    """

    archive: TorchArchive
    hyper_parameters: object
    keys: tuple[str, ...]
    records: dict[str, TensorRecord]
    wrappers: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: Path) -> _LightningFile:
        archive = TorchArchive.open(path)
        content = archive.content
        if not isinstance(content, dict):
            raise IntegrityError(
                f"{path}: a {type(content).__name__}, expected a Lightning checkpoint"
            )
        for key in ("state_dict", "hyper_parameters"):
            if key not in content:
                raise IntegrityError(f"{path}: missing {key}, expected a Lightning checkpoint")
        state = content["state_dict"]
        if not isinstance(state, dict):
            raise IntegrityError(f"{path}: state_dict is a {type(state).__name__}, expected a dict")
        plain = without_wrappers([key for key in state if isinstance(key, str)])
        records = {
            key: state[stored]
            for key, stored in plain.keys.items()
            if isinstance(state[stored], TensorRecord)
        }
        keys = (*plain.keys, *(str(key) for key in state if not isinstance(key, str)))
        return cls(archive, content["hyper_parameters"], keys, records, plain.removed)

    def tokenizer(self) -> ModelTokenizerFiles:
        config = self._tokenizer_config()
        keys = _tokenizer_keys(config)
        self._check({keys[name]: shape for name, shape in config.tensor_shapes().items()})
        return ModelTokenizerFiles(self.archive.path, config, _ArchiveWeights(self, keys, {}))

    def checkpoint(self, n_head: int | None) -> WhamCheckpoint:
        path, prefix, tokenizer = self.archive.path, wham.GPT_PREFIX, self.tokenizer()
        shapes = {
            key.removeprefix(prefix): record.shape
            for key, record in self.records.items()
            if key.startswith(prefix)
        }
        try:
            gpt = wham.read_gpt_spec(self.hyper_parameters, tokenizer.config, shapes, n_head)
        except WhamDataError as wrong:
            raise type(wrong)(f"{path}: {wrong}") from None
        expected = {prefix + name: shape for name, shape in gpt.tensor_shapes().items()}
        expected[prefix + _WORD_TABLE] = expected[prefix + _HEAD]
        self._check(expected)
        images = _tokenizer_keys(tokenizer.config)
        used = expected.keys() | images.values()
        rest = [key for key in self.keys if key not in used]
        return WhamCheckpoint(
            path,
            tokenizer,
            gpt,
            ignored=tuple(key for key in rest if _NOT_FOR_INFERENCE.match(key)),
            unexpected=tuple(key for key in rest if not _NOT_FOR_INFERENCE.match(key)),
            wham=True,
            _weights=_ArchiveWeights(self, images, {n: prefix + n for n in gpt.tensor_shapes()}),
            notes=tuple(
                f"{path}: {name}. was taken out of the keys of the state dict (a compiled or "
                "distributed module was saved)"
                for name in self.wrappers
            ),
        )

    def _tokenizer_config(self) -> TokenizerConfig:
        try:
            return wham.read_tokenizer_config(self.hyper_parameters)
        except IntegrityError as wrong:
            raise IntegrityError(f"{self.archive.path}: {wrong}") from None

    def _check(self, expected: Mapping[str, Shape]) -> None:
        """Check that the state dict has tensors with these keys and shapes."""
        missing = [key for key in expected if key not in self.records]
        if missing:
            raise IntegrityError(
                f"{self.archive.path}: {len(missing)} tensors missing from state_dict, "
                f"such as {missing[0]}; {_keys_there(self.keys, expected)}"
            )
        for key, shape in expected.items():
            if (found := self.records[key].shape) != shape:
                raise IntegrityError(
                    f"{self.archive.path}: {key} has shape {found}, expected {shape}"
                )


def _keys_there(keys: Sequence[str], expected: Mapping[str, Shape]) -> str:
    """A key of the state dict that is not expected, for a message about those that are missing."""
    other = next((key for key in keys if key not in expected and "." in key), None)
    return f"it has {other[:120]!r}" if other else "it has no other keys"


@dataclass(frozen=True, slots=True)
class _ArchiveWeights:
    """A checkpoint's tensors by their names in a converted folder."""

    file: _LightningFile
    images: dict[str, str]
    world_model: dict[str, str]

    def tokenizer_array(self, name: str) -> NDArray[np.floating]:
        return self._array(self.images[name])

    def world_model_tensor(self, name: str) -> Tensor:
        import torch

        return torch.from_numpy(self._array(self.world_model[name]))

    def _array(self, key: str) -> NDArray[np.float32]:
        return self.file.archive.array(key, self.file.records[key])


def _tokenizer_keys(config: TokenizerConfig) -> dict[str, str]:
    """The keys in the state dict of the tokenizer's tensors, by their names in a folder."""
    return {
        part + name: wham.image_prefix(config, part) + name
        for part, image in config.parts().items()
        for name in image.tensor_shapes()
    }
