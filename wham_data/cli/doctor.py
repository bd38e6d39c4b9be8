"""`wham-data doctor`: what this machine has of what the toolkit can use."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

from wham_data.cli.console import emit
from wham_data.cli.options import Json

NEEDED = (
    *("av", "deltalake", "numpy", "pillow", "polars", "pyarrow", "ray", "rich", "safetensors"),
    *("torch", "typer"),
)
OPTIONAL = {
    package: f"pip install 'wham-data[{extra}]'"
    for package, extra in {
        "flash-attn": "flash",
        "lmdb": "lmdb",
        "vizdoom": "vizdoom",
        "procgen-mirror": "procgen",
        "ale-py": "ale",
        "stable-retro": "retro",
        "dmlab2d": "dmlab2d",
        "miniworld": "miniworld",
    }.items()
}


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
    from wham_data.pipelines.video import decoders

    found: dict[str, Any] = {
        "wham-data": _installed("wham-data"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "disk_free_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "packages": {name: _installed(name) for name in NEEDED},
        "optional": {name: _installed(name) for name in OPTIONAL},
        "decoders": decoders(),
        "gpu": gpu_name(),
        "tokenizer": _tokenizer(),
    }
    missing = [name for name, what in found["packages"].items() if what is None]
    lines = [
        f"wham-data {found['wham-data']}, Python {found['python']}, {found['cores']} cores, "
        f"{found['disk_free_gb']} GB free here",
        *(f"  {name:<14} {what or 'MISSING'}" for name, what in found["packages"].items()),
        *(
            f"  {name:<14} {what or f'not installed (optional): {OPTIONAL[name]}'}"
            for name, what in found["optional"].items()
        ),
        f"  decoders     {', '.join(name if has else f'{name} MISSING' for name, has in found['decoders'].items())}",
        f"  GPU          {found['gpu'] or 'none; everything runs on the CPU'}",
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
