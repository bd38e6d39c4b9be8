"""The `config.json` of a tokenizer: a family and exactly the fields of that family's configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from wham_data.schemas.errors import IntegrityError


def config_json(family: str, values: Mapping[str, object]) -> str:
    """The canonical text of a configuration: sorted keys, one per line."""
    return json.dumps({"family": family, **values}, indent=2, sort_keys=True) + "\n"


def config_values(
    found: Mapping[str, object], family: str, names: set[str], where: Path
) -> dict[str, object]:
    """The fields in a parsed `config.json`; their values are still to be checked.

    Raises:
        IntegrityError: another family, or a key missing or unknown.
    """
    if found.get("family") != family:
        raise IntegrityError(f"{where}: family {found.get('family')!r}, expected {family!r}")
    values = {name: value for name, value in found.items() if name != "family"}
    if set(values) != names:
        raise IntegrityError(
            f"{where}: keys missing: {sorted(names - set(values))}, "
            f"unknown: {sorted(set(values) - names)}"
        )
    return values
