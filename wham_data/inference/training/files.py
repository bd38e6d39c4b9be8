"""What the trainers share: the learning rate's course, and files that are there whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from wham_data.files.whole import written_whole
from wham_data.schemas.errors import IntegrityError, MismatchError

CHECKPOINT_FILE = "training.safetensors"
CURVES_FILE = "curves.json"

Named = Sequence[tuple[str, nn.Parameter]]

_LENGTHS = ("steps", "minutes")
"""The settings that may differ when a run is resumed."""


def rate_factor(step: int, share_done: float, warm_up: int) -> float:
    """The learning rate by its peak: a linear rise over `warm_up` steps, a cosine down to 2 %."""
    return min((step + 1) / warm_up, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share_done)))


def share_done(step: int, minutes: float, of_steps: int | None, of_minutes: float | None) -> float:
    """How much of a run is behind it, whose length is given in steps or else in minutes."""
    if of_steps is not None:
        return step / of_steps
    assert of_minutes is not None, "one of the two is given"
    return minutes / of_minutes


def moments_of(optimizer: torch.optim.AdamW, learned: Named) -> dict[str, Tensor]:
    """Adam's running means, by the names of what it moves, which are in the optimizer's order."""
    state = optimizer.state_dict()["state"]
    return {
        f"{kind}.{name}": state[index][kind].cpu()
        for index, (name, _) in enumerate(learned)
        for kind in ("exp_avg", "exp_avg_sq")
    }


def restore_moments(
    optimizer: torch.optim.AdamW, learned: Named, tensors: dict[str, Tensor], step: int
) -> None:
    """Give the optimizer back what `moments_of` took, as of after `step` steps."""
    state = optimizer.state_dict()
    state["state"] = {
        index: {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"exp_avg.{name}"],
            "exp_avg_sq": tensors[f"exp_avg_sq.{name}"],
        }
        for index, (name, _) in enumerate(learned)
    }
    optimizer.load_state_dict(state)


def write_checkpoint(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Everything a resumed run needs, in one file. `state` holds its `settings`."""
    replace_tensors(path, tensors, {"state": json.dumps(state)})


def read_checkpoint(
    path: Path,
    settings: dict[str, Any],
    device: str,
    restore: Callable[[dict[str, Tensor], dict[str, Any]], None],
) -> None:
    """Hand a checkpoint's tensors and state to `restore`.

    Raises:
        MismatchError: it was made with other settings; only the length of the run may differ.
        IntegrityError: it is damaged, or `restore` can't use it.
    """
    try:
        with safe_open(path, framework="pt", device=device) as file:
            state: dict[str, Any] = json.loads(file.metadata()["state"])
            names: list[str] = list(file.keys())
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
        wanted = json.loads(json.dumps(settings))  # tuples as lists, as they were stored
        made_with: dict[str, Any] = state["settings"]
        changed = sorted(key for key in wanted if wanted[key] != made_with.get(key))
        if changed := [key for key in changed if key not in _LENGTHS]:
            raise MismatchError(
                f"{path}: made with other settings ({', '.join(changed)}). "
                "Give the same ones, or another folder."
            )
        restore(tensors, state)
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as damaged:
        raise IntegrityError(
            f"{path}: no usable checkpoint ({damaged}). Remove it to start afresh."
        ) from damaged


def replace_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all."""
    with written_whole(path) as beside:
        beside.write_bytes(save(tensors, metadata))


def replace_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")
