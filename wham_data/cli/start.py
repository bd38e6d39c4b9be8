"""The commands to start with: `wham-data demo`, `wham-data doctor`."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit
from wham_data.cli.options import Json, Quiet, Workers
from wham_data.pipelines.ingest.report import summary
from wham_data.versions import install_command

NEEDED = (
    *("av", "deltalake", "numpy", "pillow", "polars", "pyarrow", "ray", "rich", "safetensors"),
    *("torch", "typer"),
)
OPTIONAL = {
    "flash-attn": "flash",
    "lmdb": "lmdb",
    "vizdoom": "vizdoom",
    "procgen-mirror": "procgen",
    "ale-py": "ale",
    "stable-retro": "retro",
    "dmlab2d": "dmlab2d",
    "miniworld": "miniworld",
}
"""The extra that installs each package."""


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the corpus, the pictures and the dreams.")
    ] = Path("demo-out"),
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try the toolkit on real gameplay: make a corpus, check it, draw it, and dream on from it.

    Everything needed is in the package, and no network is used: three clips of gameplay (Doom,
    CoinRun, MiniWorld), a tokenizer and a world model. After a minute or two there is a corpus,
    `demo.png`, `demo.mp4`, and a dream of one second from each clip, with its recorded actions.

    \b
    Examples:
      wham-data demo
      wham-data demo --out /tmp/demo --workers 0
    """
    from wham_data.pipelines.demo import run_demo
    from wham_data.pipelines.run.choose import choose_runner

    with progress.shown(quiet=quiet, verbose=False) as watch:
        result = run_demo(out, choose_runner(workers, None, watch=watch), watch, watch)
    text = "\n".join(
        [
            summary(result.report),
            f"  verified: {result.checked} steps, no problem found",
            "",
            f"Look at  {result.picture}",
            f"and at   {result.video}",
            "(source frame, frame on the grid, frame decoded from its tokens, and the pad)",
            "",
            f"Dreamt   {result.dreamt.frames} frames, {result.dreamt.ms_per_frame:.0f} ms each",
            *(f"         {overlay}" for overlay in result.dreams),
            "(what was recorded, what wham-tiny dreamt from the same actions, and the pad)",
            "",
            "Next:",
            f"  wham-data info {result.report.corpus}",
            f"  wham-data stats {result.report.corpus}",
            f"  wham-data dream {result.report.corpus} --model wham-tiny --out dreams "
            "--actions fixed:right_x=-1",
            "  wham-data ingest YOUR_RECORDINGS --out corpus --dry-run",
        ]
    )
    emit(asdict(result), text, as_json=json)


def doctor(
    json: Json = False,
) -> None:
    """Show what this machine has: packages, codecs, GPUs, the bundled tokenizer.

    If there is a GPU that torch cannot use, it says why, and what `--device auto` is then. It also says
    whether flash-attn is used, and if not, why.

    Exits with 5 if a package that is needed is missing.

    \b
    Example:
      wham-data doctor
    """
    from wham_data.inference.device import gpu_problem, gpus_of_driver, usable_gpus
    from wham_data.pipelines.video import decoders, why_no_gpu

    found: dict[str, Any] = {
        "wham-data": _installed("wham-data"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "disk_free_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "packages": {name: _installed(name) for name in NEEDED},
        "optional": {name: _installed(name) for name in OPTIONAL},
        "decoders": decoders(),
        "gpus": usable_gpus(),
        "gpus_of_driver": gpus_of_driver(),
        "gpu_problem": gpu_problem(),
        "flash_attn_problem": _flash_attn_problem(),
        "nvdec": why_no_gpu() or "usable",
        "tokenizer": _tokenizer(),
    }
    missing = [name for name, what in found["packages"].items() if what is None]
    lines = [
        f"wham-data {found['wham-data']}, Python {found['python']}, {found['cores']} cores, "
        f"{found['disk_free_gb']} GB free here",
        *(f"  {name:<14} {what or 'MISSING'}" for name, what in found["packages"].items()),
        *(
            f"  {name:<14} {what or f'not installed (optional): {install_command(OPTIONAL[name])}'}"
            for name, what in found["optional"].items()
        ),
        f"  decoders     {', '.join(name if has else f'{name} MISSING' for name, has in found['decoders'].items())}",
        *gpu_lines(found["gpus"], found["gpus_of_driver"], found["gpu_problem"]),
        f"  attention    {found['flash_attn_problem'] or 'flash-attn, on a GPU in half precision'}",
        f"  nvdec        {found['nvdec']}",
        f"  tokenizer    wham-tiny, fingerprint {found['tokenizer'][:16]}",
    ]
    emit(found, "\n".join(lines), as_json=json)
    if missing:
        raise typer.Exit(5)


def gpu_lines(usable: Sequence[str], listed: Sequence[str], problem: str | None) -> list[str]:
    """What doctor says of GPUs, and of `--device auto`.

    Args:
        usable: names of those that torch finds.
        listed: names of those that the driver lists.
        problem: why torch cannot use the first one; None: it can.
    """
    if not usable and not listed:
        return ["  GPU          none; --device auto is the CPU"]
    lines = [f"  GPU          cuda:{number}  {name}" for number, name in enumerate(usable)]
    if problem is None:
        return [*lines, "               --device auto is cuda:0"]
    if not lines:
        lines = [f"  GPU          {name}" for name in listed]
    return [
        *lines,
        f"               a GPU is there, but torch cannot use it: {problem}",
        "               --device auto is the CPU",
    ]


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _flash_attn_problem() -> str | None:
    """Why SDPA, torch's own attention, is used, and not flash-attn; None: flash-attn is."""
    try:
        from wham_data.inference.device import choose_device
        from wham_data.inference.gpt.flash import flash_problem

        problem = flash_problem(choose_device("auto"))
    except ModuleNotFoundError:
        return "torch is not installed"
    return None if problem is None else f"SDPA, torch's own: {problem}"


def _tokenizer() -> str:
    from wham_data.inference.tokenizer import tokenizer_info

    return tokenizer_info("wham-tiny").fingerprint
