"""A model's steps as arrays: image tokens, and actions in the action space that the model declares.

These files of a dream are enough to make all its other files:

    WHAM's action tokens    tokens.npy   int32 [n, N + 16] in the joint vocabulary
    any other actions       tokens.npy   int32 [n, N] image tokens
                            actions.npy  float32 [n, A] in the model's space

A model has WHAM's action tokens if its space is `wham16` and each of its 16 numbers is a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wham_data.inference.session import WorldModel
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.errors import Reason, RefusedInput, UsageError
from wham_data.schemas.wham_tokens import (
    ACTION_SIZE,
    ACTION_SPACE,
    NoTokenError,
    decode_actions,
    encode_actions,
)

Actions = NDArray[np.float32]
Images = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class ModelSteps:
    """The content of a world model's steps.

    image_tokens  N, number of image tokens in a step
    image_vocab   V, number of different image tokens
    space         action space
    wham_tokens   whether the actions are WHAM's tokens, which follow the image tokens
    """

    image_tokens: int
    image_vocab: int
    space: ActionSpace
    wham_tokens: bool

    @classmethod
    def of(cls, model: WorldModel) -> ModelSteps:
        """The steps of a model.

        Raises:
            UsageError: its action space is not declared.
        """
        spec, space = model.spec, load_space(model.action_space)
        wham_tokens = is_wham(space) and spec.tokens_per_step == spec.image_tokens + ACTION_SIZE
        return cls(spec.image_tokens, spec.image_vocab, space, wham_tokens)

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the steps: "tokens", and "actions" if the tokens do not include them."""
        return ("tokens",) if self.wham_tokens else ("tokens", "actions")

    def check(self, actions: Actions) -> None:
        """Refuse actions that the model cannot read.

        Args:
            actions: float32 [n, A] in the model's space.

        Raises:
            RefusedInput: LOG_RANGE, a value is missing or has no token.
        """
        try:
            if self.wham_tokens:
                encode_actions(actions)
        except NoTokenError as why:
            raise RefusedInput(Reason.LOG_RANGE, f"actions out of range: {why}") from None
        if not np.isfinite(actions).all():
            row, column = (int(place) for place in np.argwhere(~np.isfinite(actions))[0])
            raise RefusedInput(
                Reason.LOG_RANGE, f"{self.space.names[column]} is missing in action {row}"
            )

    def to_arrays(self, images: Images, actions: NDArray[np.floating]) -> dict[str, NDArray[Any]]:
        """The arrays to save, by the names in `files`.

        Args:
            images: integer [n, N] image tokens.
            actions: float [n, A] in the model's space.
        """
        if not self.wham_tokens:
            return {"tokens": images.astype(np.int32), "actions": actions.astype(np.float32)}
        codes, _ = encode_actions(actions)
        joint = np.concatenate([images, codes + self.image_vocab], axis=1)
        return {"tokens": joint.astype(np.int32)}

    def from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> tuple[Images, Actions]:
        """Image tokens [n, N] and actions float32 [n, A] from the result of `to_arrays`.

        From WHAM's tokens each stick is at the middle of its bin.

        Raises:
            NoTokenError: a number is not an action token.
        """
        if not self.wham_tokens:
            return arrays["tokens"], arrays["actions"]
        images, codes = np.split(arrays["tokens"], [self.image_tokens], axis=1)
        return images, decode_actions(codes - self.image_vocab)

    def shapes(self, steps: int) -> dict[str, tuple[tuple[int, int], type]]:
        """Shape and dtype of each array in `files`, for this number of steps."""
        if self.wham_tokens:
            return {"tokens": ((steps, self.image_tokens + ACTION_SIZE), np.int32)}
        return {
            "tokens": ((steps, self.image_tokens), np.int32),
            "actions": ((steps, self.space.size), np.float32),
        }


def is_wham(space: ActionSpace) -> bool:
    """Whether a space is `wham16`, that of WHAM's own files and tokens."""
    return space == load_space(ACTION_SPACE)


def check_kinds(space: ActionSpace, kinds: Sequence[str], name: str) -> None:
    """Refuse kinds of files that cannot contain a model's actions.

    Args:
        space: action space of the model.
        kinds: kinds of files to save.
        name: of the model.

    Raises:
        UsageError: "npz" is among them, but the model's actions are not in `wham16`.
    """
    if "npz" in kinds and not is_wham(space):
        raise UsageError(
            f"--save npz: WHAM's .npz file holds actions in {ACTION_SPACE}, but the actions of "
            f"{name} are in {space.name}. Save csv instead"
        )
