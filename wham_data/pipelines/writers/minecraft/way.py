"""Actions of Minecraft's variants, in the space of a format: by a bundled conversion, read backwards.

Every variant converts to `vpt` (`schemas/conversions/`). A writer takes its own space as it is, and
`vpt` by the way back, which drops the keys that the format does not have.
"""

from __future__ import annotations

from typing import Final

from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.conversion import Conversion, Rule, find_conversion

VPT: Final = load_space("vpt")


def taken(native: ActionSpace, own: ActionSpace) -> ActionSpace:
    """The space that a writer takes: its own if that is the corpus' (`native`), `vpt` otherwise."""
    return own if native == own else VPT


def way_to(own: ActionSpace, space: ActionSpace) -> Conversion:
    """How actions of `space`, as `taken` chose it, become those of a writer's own space.

    Args:
        own: a variant of Minecraft whose bundled conversion to `vpt` has one source for each rule.
        space: `own` or `vpt`.
    """
    forth = find_conversion(own, space)
    rules = tuple(
        Rule(source, (rule.target,), (1 / scale,))
        for rule in forth.rules
        for source, scale in zip(rule.sources, rule.scales, strict=True)
    )
    return Conversion(space, own, rules)
