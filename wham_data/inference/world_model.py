"""Load a world model from a file or folder; this module finds out which kind of model it contains."""

from __future__ import annotations

from pathlib import Path

from wham_data.inference.checkpoints.lightning import open_checkpoint
from wham_data.inference.device import choose_device
from wham_data.inference.device.failures import NO_ROOM, device_errors
from wham_data.inference.gpt.world_model import DType, GPTWorldModel, torch_dtype
from wham_data.inference.session import WorldModel
from wham_data.inference.tokenizer import BUNDLED, load_tokenizer

__all__ = ["DType", "WorldModel", "load_world_model"]


def load_world_model(
    ref: str | Path,
    device: str = "auto",
    dtype: DType | None = None,
    n_head: int | None = None,
    *,
    compile: bool | None = None,
    fuse: bool = False,
) -> GPTWorldModel:
    """Load a world model and its tokenizer to a device.

    Args:
        ref: name of a bundled model, a WHAM `.ckpt`, the folder of a converted or trained model, or a
            folder with one of these in it.
        device: "cpu", "cuda", "cuda:1", ..., or "auto": a GPU if there is one that torch can use.
        dtype: type in which the transformer computes. None: bf16 on a GPU, which halves what a pass
            reads, and float32 on a CPU. The tokenizer always uses float32.
        n_head: number of attention heads, for a checkpoint that does not contain it.
        compile: give short passes fixed shapes; on a GPU they are recorded once and replayed as CUDA
            graphs. None: only on a GPU, because on a CPU it is slower.
        fuse: such passes go through torch.compile first, which takes minutes once. Only on a GPU;
            `wham-data bench dream --fuse` measures what it gains.

    Raises:
        UsageError: there is no such file or name, it contains no world model, `device` or `dtype`
            has an unknown value, or `fuse` was asked for on a CPU.
        IntegrityError: the file is damaged or unsafe, or is not a WHAM model.
        MissingPartError: `device` is "cuda" and there is no CUDA.
        DeviceError: it does not fit into the memory of the device, or that fails.
    """
    where = choose_device(device)
    kind = torch_dtype(dtype, where)
    checkpoint = open_checkpoint(BUNDLED.get(str(ref), ref), n_head)
    name = str(ref) if str(ref) in BUNDLED else checkpoint.tokenizer.name
    as_what = str(kind).removeprefix("torch.")
    halve = "" if as_what == "bfloat16" else "Use --dtype bf16, which takes half of it. "
    with device_errors(f"loading {name} to {where} as {as_what}", halve + NO_ROOM):
        return GPTWorldModel.from_tensors(
            name=name,
            spec=checkpoint.gpt,
            tensors=checkpoint.world_model_tensors(),
            tokenizer=load_tokenizer(str(checkpoint.path), str(where)),
            device=where,
            dtype=kind,
            wham=checkpoint.wham,
            unexpected=checkpoint.unexpected,
            notes=checkpoint.notes,
            compiled=where.type == "cuda" if compile is None else compile,
            fused=fuse,
        )
