"""The files of a training run: each is written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from wham_data.files.whole import written_whole
from wham_data.schemas.errors import IntegrityError, MismatchError, WhamDataError

CHECKPOINT_FILE = "training.safetensors"
CURVES_FILE = "curves.json"

Restored = TypeVar("Restored")

_MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's names of its running means."""

_LENGTHS = ("steps", "minutes")
"""The settings that may change when a run is resumed."""


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model as a checkpoint holds them, on the CPU, under names with `model.` first."""
    return {f"model.{name}": tensor.cpu() for name, tensor in model.state_dict().items()}


def restore_model(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a model back what `model_tensors` took."""
    model.load_state_dict({name: tensors[f"model.{name}"] for name in model.state_dict()})


def half_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model in float16 on the CPU: half the bytes, and no loss that shows."""
    return {
        name: tensor.detach().cpu().half().contiguous()
        for name, tensor in model.state_dict().items()
    }


def moments_of(optimizer: torch.optim.AdamW, model: nn.Module) -> dict[str, Tensor]:
    """Adam's running means after at least one step, on the CPU.

    The names are `exp_avg.` and `exp_avg_sq.` with the name of the parameter in the model.
    """
    state = optimizer.state_dict()["state"]
    return {
        f"{kind}.{name}": state[index][kind].cpu()
        for index, name in enumerate(_moved(optimizer, model))
        for kind in _MOMENTS
    }


def restore_moments(
    optimizer: torch.optim.AdamW, model: nn.Module, tensors: dict[str, Tensor], step: int
) -> None:
    """Give the optimizer back what `moments_of` took after `step` steps."""
    state = optimizer.state_dict()
    weights = [(w, group) for group in optimizer.param_groups for w in group["params"]]
    state["state"] = {
        index: {
            "step": torch.tensor(float(step), device=weight.device if group["fused"] else "cpu"),
            **{kind: tensors[f"{kind}.{name}"] for kind in _MOMENTS},
        }
        for index, (name, (weight, group)) in enumerate(
            zip(_moved(optimizer, model), weights, strict=True)
        )
    }
    optimizer.load_state_dict(state)


def _moved(optimizer: torch.optim.AdamW, model: nn.Module) -> list[str]:
    """The names of the parameters that the optimizer moves, in its own order."""
    names = {weight: name for name, weight in model.named_parameters()}
    return [names[weight] for group in optimizer.param_groups for weight in group["params"]]


def write_checkpoint(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write everything that a resumed run needs into one file. `state` is for JSON, with `settings`."""
    replace_tensors(path, tensors, {"state": json.dumps(state)})


def read_checkpoint(
    path: Path,
    settings: dict[str, Any],
    restore: Callable[[dict[str, Tensor], dict[str, Any]], Restored],
) -> Restored:
    """Give a checkpoint's tensors and state to `restore`; returns what it returns.

    The tensors are on the CPU: the errors of another device, such as full memory, come from `restore` and
    pass through, because they say nothing of the file.

    Raises:
        MismatchError: the checkpoint has other settings; only the length of the run may differ.
        IntegrityError: the checkpoint is damaged, or `restore` finds that it cannot use it.
        WhamDataError: the file cannot be read at present.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            state: dict[str, Any] = json.loads(file.metadata()["state"])
            names: list[str] = list(file.keys())
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
        present = json.loads(json.dumps(settings))  # tuples become lists, as in the file
        stored: dict[str, Any] = state["settings"]
        changed = sorted(key for key in present if present[key] != stored.get(key))
        if changed := [key for key in changed if key not in _LENGTHS]:
            raise MismatchError(
                f"{path}: made with other settings ({', '.join(changed)}). "
                "Use the same settings, or another folder."
            )
        return restore(tensors, state)
    except (SafetensorError, LookupError, TypeError, ValueError, AttributeError) as damaged:
        raise IntegrityError(
            f"{path}: not a usable checkpoint ({damaged}). Remove it to start again."
        ) from damaged
    except OSError as unread:
        raise WhamDataError(
            f"{path}: the checkpoint cannot be read ({unread.strerror or unread}). It may be sound: see "
            "that the disk works and that you may read the file, then run the same command again"
        ) from unread


def check_tensors(
    model: nn.Module, optimizer: torch.optim.AdamW, tensors: Mapping[str, Tensor]
) -> None:
    """Check that `restore_model` and `restore_moments` find all that they need.

    Raises:
        LookupError: a tensor is missing.
        ValueError: a tensor has another shape.
    """
    shapes = {f"model.{name}": tensor.shape for name, tensor in model.state_dict().items()}
    weights = dict(model.named_parameters())
    for name in _moved(optimizer, model):
        for kind in _MOMENTS:
            shapes[f"{kind}.{name}"] = weights[name].shape
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} is {tuple(tensors[name].shape)}, expected {tuple(shape)}")


def replace_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all."""
    with written_whole(path) as beside:
        beside.write_bytes(save(tensors, metadata))


def replace_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")
