"""The commands to start with: `wham-data demo`, `wham-data doctor`."""

from __future__ import annotations

import os
import platform
import shutil
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
    """Show what this machine has: packages, codecs, GPU, the bundled tokenizer.

    Exits with 5 if a package that is needed is missing.

    \b
    Example:
      wham-data doctor
    """
    from wham_data.inference.device import gpu_name
    from wham_data.pipelines.video import decoders, why_no_gpu

    found: dict[str, Any] = {
        "wham-data": _installed("wham-data"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "disk_free_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "packages": {name: _installed(name) for name in NEEDED},
        "optional": {name: _installed(name) for name in OPTIONAL},
        "decoders": decoders(),
        "gpu": gpu_name(),
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
        f"  GPU          {found['gpu'] or 'none; everything runs on the CPU'}",
        f"  nvdec        {found['nvdec']}",
        f"  tokenizer    wham-tiny, fingerprint {found['tokenizer'][:16]}",
    ]
    emit(found, "\n".join(lines), as_json=json)
    if missing:
        raise typer.Exit(5)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _tokenizer() -> str:
    from wham_data.inference.tokenizer import tokenizer_info

    return tokenizer_info("wham-tiny").fingerprint
