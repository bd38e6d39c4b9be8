"""The engines that `collect` plays: one file each, which imports its engine when a game starts."""

from __future__ import annotations

from typing import Final

from wham_data.pipelines.collect.engine import EngineKind
from wham_data.pipelines.collect.engines import ale, dmlab2d, miniworld, procgen, retro, vizdoom
from wham_data.schemas.errors import UsageError

ENGINES: Final[tuple[EngineKind, ...]] = (
    vizdoom.KIND,
    procgen.KIND,
    ale.KIND,
    retro.KIND,
    dmlab2d.KIND,
    miniworld.KIND,
)


def engine_named(name: str) -> EngineKind:
    """The engine with this name.

    Raises:
        UsageError: there is none; the message lists the known names.
    """
    for kind in ENGINES:
        if kind.name == name:
            return kind
    known = ", ".join(kind.name for kind in ENGINES)
    raise UsageError(f"no engine called {name[:60]!r}; known engines: {known}")
