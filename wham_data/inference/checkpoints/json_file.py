"""Reads the JSON files of a model's folder, which are not trusted, within a limit of size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wham_data.files.found import stand_in
from wham_data.schemas.errors import IntegrityError


def read_model_json(path: Path, most_bytes: int) -> Any:
    """The value in a JSON file of a model.

    Raises:
        IntegrityError: it is larger than `most_bytes`, or is no JSON. If the file was not downloaded,
            the message says so.
    """
    if (size := path.stat().st_size) > most_bytes:
        raise IntegrityError(f"{path}: {size} bytes, expected at most {most_bytes}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as damaged:
        why = stand_in(path) or f"not valid JSON ({str(damaged)[:200]})"
        raise IntegrityError(f"{path}: {why}") from None
