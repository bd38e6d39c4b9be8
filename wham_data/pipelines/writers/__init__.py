"""Writers: how a corpus is exported to each format.

A writer is one file of this package: docs/add-a-writer.md says how to add one. It declares what it
needs of the steps (`Demands`), divides them into parts, and writes each part into an empty folder.
`pipelines/export/job.py` does the rest: it publishes the files, skips the parts that exist already
and handles bad episodes.
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
    """Writes one format. A frozen dataclass; its options are its fields (`readers/kit/options.py`).

    Attributes:
        name: the format's name for `--to`.
        about: one line for help and documentation.
        demands: what it needs of the steps; may depend on the options.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def about(self) -> str: ...  # noqa: D102

    @property
    def demands(self) -> Demands: ...  # noqa: D102

    def space(self, native: ActionSpace) -> ActionSpace:
        """The action space of the export: that of the corpus (`native`), or the one the format needs.

        If the two differ, the job looks for a declared conversion.
        """
        ...

    def check(self, content: Content) -> Sequence[str]:
        """Notes for the user about this content in this format, one line each.

        Raises:
            UsageError: the format cannot hold this content. The message says what to do.
        """
        ...

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """Divide the episodes into parts, always in the same order; see `parts.one_each`."""
        ...

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write a part.

        Args:
            part: the episodes to write. For an episode that cannot be written, raise
                `Stretch.refuse`: the part is then written again without it.
            place: number of episodes and steps before the part.
            content: what its steps hold.
            folder: an empty folder. A file in it keeps its relative path in the export. Two parts
                must not write the same path.

        Returns:
            Plain values for JSON. `finish` receives them as `Written.facts`.

        Raises:
            Unfit: an episode cannot be written.
        """
        ...

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Write the files that describe the whole export. They replace those of an earlier run.

        Args:
            written: every part with at least one episode, in order.
            content: what all steps hold.
            folder: as in `write`.
        """
        ...


WRITERS: Final = tuple(
    each for each in formats_in(sys.modules[__name__]) if isinstance(each, Writer)
)
"""Every writer, in a fixed order. They are found, not listed: see `kit/listing.py`."""


def chosen_writer(name: str, options: Mapping[str, str]) -> Writer:
    """The writer with the name of `--to`, with these options.

    Raises:
        UsageError: there is no such format, option or value. The message lists those that exist.
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
