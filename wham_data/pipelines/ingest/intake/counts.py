"""How many inputs of each kind a run has found so far. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """How many inputs there were of each kind so far.

    hashed   recordings of which a file was read to identify it
    known    recordings that an earlier run knew, by path, size and times
    """

    to_do: int = 0
    bytes_to_do: int = 0
    already: int = 0
    copies: int = 0
    refused: int = 0
    in_quarantine: int = 0
    forgotten: int = 0
    hashed: int = 0
    known: int = 0

    @property
    def found(self) -> int:
        """Inputs in all."""
        return (
            self.to_do
            + self.already
            + self.copies
            + self.refused
            + self.in_quarantine
            + self.forgotten
        )
