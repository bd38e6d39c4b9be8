"""The `config.json` of a tokenizer: a family and exactly the fields of that family's configuration.

No torch here.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar, Self

from wham_data.schemas.errors import IntegrityError

MOST_TOKENS = 16384
"""Per frame. A configuration with more is damaged or hostile."""


@dataclass(frozen=True, slots=True)
class FamilyConfig(ABC):
    """What the configurations of all families share; each is a frozen dataclass with its own fields."""

    FAMILY: ClassVar[str]
    """The name of the family in `config.json`."""

    LARGEST: ClassVar[Mapping[str, int]]
    """The integer fields and their largest values. A configuration with more is damaged or hostile."""

    TUPLES: ClassVar[tuple[str, ...]] = ()
    """The fields that hold a tuple here and a list in JSON."""

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens in a frame."""

    @property
    def tokens(self) -> int:
        """Tokens per frame, row-major over the grid."""
        rows, columns = self.grid
        return rows * columns

    def check_integers(self) -> None:
        """Check the fields in `LARGEST`; to be called when a configuration is built.

        Raises:
            IntegrityError: a field is not an integer from 1 to its largest value.
        """
        for name, largest in self.LARGEST.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= largest:
                raise wrong_config(f"{name} is {value!r}, expected an integer in 1..{largest}")

    def to_json(self) -> str:
        """The canonical text of the configuration: sorted keys, one per line."""
        return config_json(self.FAMILY, asdict(self))

    @classmethod
    def from_mapping(cls, values: Mapping[str, object], where: Path) -> Self:
        """The configuration in a parsed `config.json`.

        Raises:
            IntegrityError: another family, a key missing or unknown, or a value out of bounds.
        """
        given = config_values(values, cls.FAMILY, {field.name for field in fields(cls)}, where)
        for name in cls.TUPLES:
            if isinstance(listed := given[name], list):
                given[name] = tuple(listed)
        return cls(**given)


def wrong_config(what: str) -> IntegrityError:
    """The error about a configuration that no tokenizer can have."""
    return IntegrityError(f"tokenizer config: {what}")


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
