"""Agents in lines of JSON: who is in a match, what they can do, and from when to when they are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from wham_data.pipelines.readers.kit.declared_actions import ActionPart
from wham_data.schemas.declarations import is_number
from wham_data.schemas.errors import Reason, RefusedInput

ALIVE: Final = "alive"
MOVES: Final = 5
"""Lab2D's `move`: stay, forward, backward, left, right."""
MOST_PARTS: Final = 64
ONE_SHOT: Final = frozenset(
    ("zap", "interact", "jump", "attack", "use", "eat", "claim", "clean", "beam", "shoot", "punish")
)
"""Words that Lab2D's games have for what is done or not done in a step, besides `fire...`."""
MOTIONS: Final = frozenset({"turn", "strafe", "look"})


def agents_of(lines: Iterable[Mapping[str, Any]], most: int) -> list[str]:
    """Everybody whom any line tells of, in the order in which they come; at most `most` and one."""
    found: dict[str, None] = {}
    for line in lines:
        players = line.get("players")
        if isinstance(players, dict) and not players.keys() <= found.keys():
            found.update(dict.fromkeys(players))
            if len(found) > most:
                break
    return [each for each in found if each.isprintable() and 0 < len(each) <= 64]


def said_of(line: Mapping[str, Any], agent: str) -> Mapping[str, Any] | None:
    """What a line tells of an agent's actions, by name; None where it does not tell, or it is gone.

    Args:
        line: of the log.
        agent: whose; "": the only one, whose action has no name.
    """
    if not agent:
        said: Any = {"": line.get("action")} if line.get(ALIVE, True) else None
    else:
        players = line.get("players")
        said = players.get(agent) if isinstance(players, dict) else None
    if not isinstance(said, dict) or not said.get(ALIVE, True) or not _is_there(line, agent):
        return None
    return {name: value for name, value in said.items() if name != ALIVE}


def _is_there(line: Mapping[str, Any], agent: str) -> bool:
    """What a line's own `alive` says of an agent: by name, or a list of those who are there."""
    alive = line.get(ALIVE)
    if isinstance(alive, dict):
        return bool(alive.get(agent, True))
    if isinstance(alive, list) and agent and not any(isinstance(each, bool) for each in alive):
        return agent in map(str, alive)
    return True


def parts_of(lines: Iterable[Mapping[str, Any]], agent: str) -> list[ActionPart]:
    """The actions of an agent, by all that the lines ever tell of it.

    `move` is one of five, `turn` lies in -1..1; what is done in a step or not (`fire...`, `zap`,
    `interact` and the like, and whatever is never anything but 0 or 1 with any agent of the match)
    is a button; the rest are numbers of any size.

    Raises:
        RefusedInput: LOG_COLUMN, there are none, or too many.
    """
    mine: dict[str, None] = {}
    more: set[str] = set()
    for line in lines:
        players = line.get("players")
        for each, said in players.items() if isinstance(players, dict) else ():
            if not isinstance(said, dict) or len(more) > MOST_PARTS:
                continue
            more.update(name for name, value in said.items() if not _is_01(value))
            if each == agent and len(mine) <= MOST_PARTS:
                mine.update(dict.fromkeys(said))
    mine.pop(ALIVE, None)
    if not 1 <= len(mine) <= MOST_PARTS:
        raise RefusedInput(
            Reason.LOG_COLUMN, f"{len(mine)} actions in the lines, expected 1 to {MOST_PARTS}"
        )
    return [_part(name, name not in more) for name in mine]


def _is_01(value: object) -> bool:
    return value is None or isinstance(value, bool) or (is_number(value) and value in (0, 1))


def _part(name: str, only_01: bool) -> ActionPart:
    if name == "move":
        return ActionPart.choice(name, [MOVES])
    if name in MOTIONS:
        return ActionPart.numbers(name, -1, 1, 1)
    if name.lower().startswith("fire") or name.lower() in ONE_SHOT or only_01:
        return ActionPart.switches(name, 1)
    return ActionPart.numbers(name, -np.inf, np.inf, 1)
