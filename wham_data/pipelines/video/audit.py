"""What decoding a video lost, and the refusal of a video that lost too much."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from wham_data.schemas.errors import Reason, RefusedInput


@dataclass(slots=True)
class DecodeAudit:
    """Counts of one decode.

    pictures_needed     shown pictures that the decoder got
    pictures_decoded    of these, pictures that were decoded without damage
    skipped_disposable  shown pictures that were not decoded because no other picture refers to them
    skipped_unneeded    shown pictures that were not decoded because no picked frame depends on them
    errors              packets for which the decoder raised an error
    corrupt             pictures or packets that are marked as damaged
    lost                positions in `picks` of lost frames, for all batches yielded so far
    """

    pictures_needed: int = 0
    pictures_decoded: int = 0
    skipped_disposable: int = 0
    skipped_unneeded: int = 0
    errors: int = 0
    corrupt: int = 0
    lost: list[int] = field(default_factory=list)

    @property
    def amiss(self) -> bool:
        """Whether anything was not decoded as it should be."""
        return bool(self.errors or self.corrupt or self.lost)

    def add(self, other: DecodeAudit) -> None:
        """Add the counts of `other` to this one."""
        for count in fields(self):
            setattr(self, count.name, getattr(self, count.name) + getattr(other, count.name))


def too_much_lost(audit: DecodeAudit, cause: str) -> RefusedInput:
    """The refusal of a video: CORRUPT, with the cause and the counts."""
    return RefusedInput(
        Reason.CORRUPT,
        f"{cause}: decoded {audit.pictures_decoded} of {audit.pictures_needed} frames"
        f" ({audit.errors} errors, {audit.corrupt} flagged corrupt)",
        frames_expected=audit.pictures_needed,
        frames_decoded=audit.pictures_decoded,
    )
