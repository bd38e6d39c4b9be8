"""Corpora of real play with what is not play put into it, and the truth step by step."""

# ruff: noqa: ARG001  every maker of a stretch is given the same

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from makers.corpora import rows_for
from wham_data.corpus import Corpus
from wham_data.corpus.shards import shard_id
from wham_data.pipelines.media.picture import font
from wham_data.pipelines.video import decode_image, encode_image, encode_jpeg
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.clock import Grid
from wham_data.schemas.steps import EpisodeSteps

Picture = NDArray[np.uint8]
PLAY = ""


@dataclass(slots=True)
class Made:
    """An episode that is being made: pictures, actions and the kind of each step."""

    pictures: list[Picture] = field(default_factory=list)
    actions: list[NDArray[np.float32]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def add(self, picture: Picture, action: NDArray[np.float32], kind: str = PLAY) -> None:
        self.pictures.append(picture)
        self.actions.append(action)
        self.kinds.append(kind)

    def join(self, other: Made) -> None:
        self.pictures += other.pictures
        self.actions += other.actions
        self.kinds += other.kinds


def interrupted(
    steps: EpisodeSteps,
    space: ActionSpace,
    kinds: Sequence[str],
    rng: np.random.Generator,
    *,
    play: int = 40,
    lengths: tuple[int, int] = (18, 40),
) -> Made:
    """The play of an episode, with a stretch of the next of `kinds` after each `play` steps of it."""
    made, turn, at = Made(), 0, 0
    pictures = [decode_image(each) for each in steps.frames or ()]
    while at < len(pictures):
        for step in range(at, min(at + play, len(pictures))):
            made.add(pictures[step], steps.actions[step])
        at += play
        if at >= len(pictures):
            break
        kind = kinds[turn % len(kinds)]
        length = int(rng.integers(*lengths)) * (4 if kind == "idle" else 1)
        at = PUT[kind](made, pictures, steps.actions, at, length, space, rng)
        turn += 1
    return made


Put = Callable[
    [Made, list[Picture], NDArray[np.float32], int, int, ActionSpace, np.random.Generator], int
]
"""Adds a stretch at a step of the play; returns the step at which the play goes on."""


def _menu(made, pictures, actions, at, length, space, rng) -> int:  # type: ignore[no-untyped-def]
    """A panel over the dimmed picture, with the world frozen behind it or going on."""
    goes_on = bool(rng.integers(2))
    chosen = rng.integers(4, size=length // 6 + 1)
    for step in range(length):
        behind = min(at + step, len(pictures) - 1) if goes_on else at - 1
        action = actions[behind] if goes_on else _tremble(space, rng)
        made.add(_panel(pictures[behind], int(chosen[step // 6])), action, "menu")
    return min(at + length, len(pictures)) if goes_on else at


def _paused(made, pictures, actions, at, length, space, rng) -> int:  # type: ignore[no-untyped-def]
    """The last picture again and again, while the hands go on with what they do."""
    for step in range(length):
        made.add(pictures[at - 1], actions[(at + step) % len(actions)], "paused")
    return at


def _loading(made, pictures, actions, at, length, space, rng) -> int:  # type: ignore[no-untyped-def]
    """A plain screen with a word and a turning mark; the play goes on later."""
    for step in range(length):
        made.add(_screen(pictures[0].shape[:2], step), _tremble(space, rng), "loading")
    return at + 25


def _black(made, pictures, actions, at, length, space, rng) -> int:  # type: ignore[no-untyped-def]
    for _ in range(length // 2):
        made.add(np.zeros_like(pictures[0]), _tremble(space, rng), "black")
    return at


def _idle(made, pictures, actions, at, length, space, rng) -> int:  # type: ignore[no-untyped-def]
    """The world goes on, and a pad that nobody touches trembles around its rest."""
    for step in range(at, min(at + length, len(pictures))):
        made.add(pictures[step], _tremble(space, rng), "idle")
    return at + length


PUT: dict[str, Put] = {
    "menu": _menu,
    "paused": _paused,
    "loading": _loading,
    "black": _black,
    "idle": _idle,
}


def _tremble(space: ActionSpace, rng: np.random.Generator) -> NDArray[np.float32]:
    """Sticks at rest: 0.04 beside 0, with noise."""
    action = space.null()
    sticks = space.of_kind("axis")
    action[sticks] = 0.04 + rng.normal(0, 0.02, len(sticks))
    return action


def _panel(picture: Picture, chosen: int) -> Picture:
    height, width = picture.shape[:2]
    image = Image.fromarray((picture * 0.3).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.rectangle(
        (width // 4, height // 6, width * 3 // 4, height * 5 // 6), (40, 40, 60), (200,) * 3
    )
    for row, text in enumerate(("Resume", "Options", "Save", "Quit")):
        ink = (255, 220, 90) if row == chosen else (180, 180, 180)
        draw.text((width * 0.4, height * (0.25 + 0.13 * row)), text, ink, font(height * 0.09))
    return np.asarray(image)


def _screen(size: tuple[int, int], step: int) -> Picture:
    height, width = size
    image = Image.new("RGB", (width, height), (18, 22, 30))
    draw = ImageDraw.Draw(image)
    draw.text((width * 0.36, height * 0.42), "Loading...", (210, 210, 210), font(height * 0.1))
    turn, at = step * 40, (width * 0.9, height * 0.85)
    draw.arc((at[0] - 8, at[1] - 8, at[0] + 8, at[1] + 8), turn, turn + 270, (210, 210, 210), 2)
    return np.asarray(image)


def rewritten(
    source: Corpus, out: Path, change: Callable[[EpisodeSteps], Made], game: str | None = None
) -> tuple[Corpus, dict[str, list[str]]]:
    """A new corpus with changed episodes, of one game or of all, and the kinds of the steps of each."""
    info = source.info
    corpus = Corpus.create(out, info)
    encode = encode_jpeg if info.frames == "jpeg" else lambda picture: encode_image(picture, "png")
    truth = {}
    for row in source.episodes.rows(named=True):
        if game not in (None, row["game"]):
            continue
        made = change(source.read_episode(row["episode"]))
        truth[row["episode"]] = made.kinds
        actions = np.stack(made.actions).astype(np.float32)
        steps = EpisodeSteps(
            episode=row["episode"],
            time_ns=Grid(row["start_ns"], len(actions), info.rate).edges_ns()[:-1],
            actions=actions,
            action_known=~np.isnan(actions).any(axis=1),
            frames=[encode(picture) for picture in made.pictures],
        )
        shard = corpus.write_shard([steps], shard_id({row["recording"]}, info.settings_hash))
        fields = {name: row[name] for name in ("recording", "game", "player", "match", "split")}
        corpus.commit(rows_for(shard, [steps], info, **fields), tie_to="train")
    return corpus, truth


def labels(parts: Sequence[Sequence[object]], n_steps: int) -> list[str]:
    """The kind of each step, from parts (start, end, kind)."""
    found = [PLAY] * n_steps
    for start, stop, kind in parts:
        found[start:stop] = [kind] * (stop - start)  # type: ignore[misc,operator,index]
    return found


def precision_and_recall(found: list[str], truth: list[str], kind: str) -> tuple[float, float]:
    """By step."""
    said, is_so = np.array(found) == kind, np.array(truth) == kind
    both = (said & is_so).sum()
    return float(both / max(said.sum(), 1)), float(both / max(is_so.sum(), 1))
