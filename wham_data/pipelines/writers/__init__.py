"""Writers: how a corpus is written in each format that others train from.

A writer is one file of this package: docs/add-a-writer.md says how to add one. It says what it asks of the steps
(`Demands`), cuts them into parts, and writes one part after the other into an empty folder; where
that is published, what is there already, and what to do with an episode that is bad is
`pipelines/export/job.py`'s business.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from wham_data.pipelines.readers.kit.listing import formats_in
from wham_data.pipelines.readers.kit.options import configured, options_of
from wham_data.pipelines.writers.parts import Content, Demands, Part, Place, Written
from wham_data.pipelines.writers.stretches import Stretch
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.errors import UsageError


@runtime_checkable
class Writer(Protocol):
    """How one format is written: a frozen dataclass, its options are fields (`readers/kit/options.py`).

    Attributes:
        name: what `--to` calls it.
        about: one line for help and documentation.
        demands: what it asks of the steps; may depend on the options.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def about(self) -> str: ...  # noqa: D102

    @property
    def demands(self) -> Demands: ...  # noqa: D102

    def space(self, native: ActionSpace) -> ActionSpace:
        """The space that the actions of a corpus are written in: its own, or the one it must have.

        Where the two differ a declared conversion is looked for.
        """
        ...

    def check(self, content: Content) -> Sequence[str]:
        """What the user should know of such content in this format, one line each.

        Raises:
            UsageError: it cannot be written so; the line says what to do.
        """
        ...

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """The episodes, each in one part, always in the same order; see `parts.one_each`."""
        ...

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write a part.

        Args:
            part: what to write; an episode that cannot be is named by `Stretch.refuse`, and the
                part is then written again without it.
            place: how much lies before it.
            content: what its steps hold.
            folder: empty; what is put into it keeps its relative path in the export. Several parts
                must not make files of one path.

        Returns:
            Plain values for JSON, which `finish` is given.

        Raises:
            Unfit: an episode cannot be written.
        """
        ...

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Write the files that describe the whole export into an empty folder; they replace.

        Args:
            written: every part with at least one episode, in order.
            content: what all steps hold.
            folder: as in `write`.
        """
        ...


WRITERS: Final = tuple(
    each for each in formats_in(sys.modules[__name__]) if isinstance(each, Writer)
)
"""Every writer, in the order in which they are asked. Found, not listed: see `kit/listing.py`."""


def chosen_writer(name: str, options: Mapping[str, str]) -> Writer:
    """The writer that `--to` calls `name`, with these options.

    Raises:
        UsageError: there is none, or it has no such option or value; the message lists them.
    """
    for writer in WRITERS:
        if writer.name == name:
            own = sorted(options_of(writer))
            for unknown in sorted(set(options) - set(own)):
                found = f"its options are {', '.join(own)}" if own else "it has none"
                raise UsageError(f"--option {unknown[:80]}: no option of {name}; {found}")
            return configured((writer,), options)[0]
    known = ", ".join(writer.name for writer in WRITERS)
    raise UsageError(f"--to {name[:80]!r}: no such format; there are {known}")


__all__ = ["WRITERS", "Content", "Demands", "Part", "Place", "Writer", "Written", "chosen_writer"]
