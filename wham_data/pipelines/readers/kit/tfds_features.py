"""Reads the entries of an episode's step from the `features.json` of TensorFlow Datasets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from wham_data.schemas.errors import Reason, RefusedInput

MOST_LEAVES: Final = 1024
DEEPEST: Final = 16
MOST_WIDTH: Final = 1 << 20

EntryKind = Literal["image", "text", "class", "float", "int", "bool", "other"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One entry of a step.

    path     names joined with "/", such as observation/image
    width    number of values of one step in the list of the file
    size     width and height of an image; (1, 1) if the size may vary
    classes  number of classes, for a class label
    channels, dtype  of an image; 0 channels if the file does not state them
    """

    path: str
    kind: EntryKind
    width: int = 1
    size: tuple[int, int] = (1, 1)
    classes: int = 0
    channels: int = 0
    dtype: str = "uint8"

    @property
    def is_colour(self) -> bool:
        """An image that a person would call one: 8 bits, and three channels or nobody knows."""
        return self.kind == "image" and self.dtype == "uint8" and self.channels in (0, 3)


def leaves_of_step(features: object) -> list[Leaf]:
    """The entries of a step, sorted by path.

    Args:
        features: the content of a features.json.

    Raises:
        RefusedInput: METADATA, it declares no steps, or too many entries.
    """
    steps = _features(features).get("steps")
    sequence = steps.get("sequence") if isinstance(steps, dict) else None
    step = sequence.get("feature") if isinstance(sequence, dict) else None
    found: list[Leaf] = []
    for leaf in _leaves(step, "", 0):
        found.append(leaf)
        if len(found) > MOST_LEAVES:
            raise RefusedInput(Reason.METADATA, f"a step of over {MOST_LEAVES} entries")
    if not found:
        raise RefusedInput(Reason.METADATA, "features.json declares no steps")
    return sorted(found, key=lambda leaf: leaf.path)


def _features(feature: object) -> Mapping[str, Any]:
    inner = feature.get("featuresDict") if isinstance(feature, dict) else None
    found = inner.get("features") if isinstance(inner, dict) else None
    return found if isinstance(found, dict) else {}


def _leaves(feature: object, path: str, depth: int) -> Iterator[Leaf]:
    if depth > DEEPEST:
        raise RefusedInput(Reason.METADATA, f"features nested deeper than {DEEPEST} levels")
    if isinstance(feature, dict) and "featuresDict" in feature:
        for name, inner in _features(feature).items():
            yield from _leaves(inner, f"{path}/{name}" if path else name, depth + 1)
    elif isinstance(feature, dict):
        yield _leaf(feature, path)


def _leaf(feature: Mapping[str, Any], path: str) -> Leaf:
    match feature:
        case {"image": dict()}:
            shape = _shape(feature["image"])
            sized = shape is not None and len(shape) == 3
            return Leaf(
                path,
                "image",
                size=(shape[1], shape[0]) if sized and shape else (1, 1),
                channels=_channels(feature["image"]),
                dtype=str(feature["image"].get("dtype") or "uint8"),
            )
        case {"text": _}:
            return Leaf(path, "text")
        case {"classLabel": {"numClasses": str(count) | int(count)}} if str(count).isdigit():
            return Leaf(path, "class", classes=min(int(str(count)[:9]), MOST_WIDTH))
        case {"tensor": {"dtype": str(dtype), **rest}}:
            shape = _shape(rest)
            is_picture = dtype == "uint8" and shape is not None and len(shape) > 2
            if shape is not None and rest.get("encoding", "none") == "none" and not is_picture:
                kinds: dict[str, EntryKind] = {
                    "bool": "bool",
                    "string": "text",
                    "bfloat16": "other",
                }
                kind: EntryKind = "float" if dtype.startswith("float") else "int"
                return Leaf(path, kinds.get(dtype, kind), math.prod(shape))
    return Leaf(path, "other")


def _channels(declared: Mapping[Any, Any]) -> int:
    """The last of three dimensions of an image, whatever the other two; 0 where it may vary."""
    said = declared.get("shape")
    dimensions = said.get("dimensions") if isinstance(said, dict) else None
    if not isinstance(dimensions, list) or len(dimensions) != 3:
        return 0
    return {"1": 1, "2": 2, "3": 3, "4": 4}.get(str(dimensions[2]), 0)


def _shape(declared: Mapping[Any, Any]) -> tuple[int, ...] | None:
    """A shape; None if it may vary or is invalid."""
    stated = declared.get("shape")
    dimensions = stated.get("dimensions", []) if isinstance(stated, dict) else None
    if not isinstance(dimensions, list) or len(dimensions) > 8:
        return None
    texts = [str(each) for each in dimensions]
    if not all(text.isdecimal() and text.isascii() and 0 < len(text) < 10 for text in texts):
        return None
    shape = tuple(int(text) for text in texts)
    return shape if 0 < math.prod(shape) <= MOST_WIDTH * 64 and min(shape, default=1) > 0 else None
