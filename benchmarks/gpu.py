"""Check the CUDA paths against the CPU, and measure them, part by part.

    python benchmarks/gpu.py --json gpu.json              all parts
    python benchmarks/gpu.py --only env,right
    python benchmarks/gpu.py --device cpu                 a dry run of tiny sizes, without a GPU

    env     the machine: memory bandwidth, speed of matrix products, what is installed
    right   the GPU's tokens and dreams against those of the CPU
    attn    ways to compute the attention of one pass over the cached keys
    dream   time per dreamt frame against the floor of `wham_data.inference.gpt.bench`
    tok     frames per second of tokenizers
    oom     what running out of memory looks like, and whether dreams are possible afterwards
    train   steps of training a world model
    nvdec   videos decoded by the GPU against the CPU's frames

Each part should take less than 10 minutes on an H200. They need torch, numpy and Pillow; `train` needs
safetensors too, and `nvdec` PyAV. This package does not have to be installed: in its folder,
PYTHONPATH=. python benchmarks/gpu.py does. Every line says what was measured, what is expected on an
H200 and, if the figure is another one, what to do. At the end there is a table for
benchmarks/README.md. The exit code is 1 if a result is wrong or a part broke off. Slow is not wrong.

DEV and PARTS in the environment are the defaults of --device and --only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from gpu_parts.attention import attn
from gpu_parts.nvdec import nvdec
from gpu_parts.report import Bench, table
from gpu_parts.right import env, right
from gpu_parts.speed import dream, oom, tok, train

from wham_data.inference.device import choose_device
from wham_data.schemas.errors import WhamDataError

Part = Callable[[Bench], None]
PARTS: dict[str, Part] = {
    each.__name__: each for each in (env, right, attn, dream, tok, oom, train, nvdec)
}


def main(arguments: Sequence[str] | None = None, parts: Mapping[str, Part] = PARTS) -> int:
    """Run the parts, print their figures, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--device", default=os.environ.get("DEV", "cuda"), help="cuda, cuda:N or cpu"
    )
    parser.add_argument(
        "--only",
        default=os.environ.get("PARTS", ""),
        help="parts, separated by commas; default: all",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    names = options.only.replace(",", " ").split() or list(parts)
    if unknown := sorted(set(names) - set(parts)):
        parser.error(f"--only {', '.join(unknown)}: expected {', '.join(parts)}")
    try:
        device = choose_device(options.device)
    except WhamDataError as error:
        parser.error(str(error))
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    bench = Bench(device, judges_speed="H200" in card)
    for name in names:
        print(f"\n== {name}")
        bench.part, started = name, time.monotonic()
        try:
            parts[name](bench)
        except Exception as error:  # the other parts are still worth their time
            traceback.print_exc()
            bench.broke_off(error)
        bench.note("time of this part", time.monotonic() - started, "s")
        bench.free()
        if options.json is not None:  # after every part, because the next one may not end
            found = {"device": card, "figures": [asdict(figure) for figure in bench.figures]}
            options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{card}, torch {torch.__version__}\n\n{table(bench.figures)}")
    wrong = [each for each in bench.figures if each.verdict == "WRONG"]
    for each in wrong:
        print(f"WRONG: {each.part}: {each.name.strip()}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
