"""Options that all writers of videos share."""

from __future__ import annotations

from typing import Any, Final

from wham_data.pipelines.readers.kit.options import count_option, option

WORST: Final = 51
MOST_FRAMES: Final = 10_001


def crf_option() -> Any:
    """A field that holds x264's constant rate factor."""

    about = "constant rate factor of the H.264 videos: smaller is better, and larger in bytes"
    return count_option(18, about=about, least=0, most=WORST)


def clip_option(default: int, step: int = 1) -> Any:
    """A field that holds the number of frames of a clip: a multiple of `step`, and one more."""

    def parse(text: str) -> int:
        frames = int(text)
        if not 2 <= frames <= MOST_FRAMES or (frames - 1) % step:
            raise ValueError
        return frames

    expects = f"a whole number from 2 to {MOST_FRAMES}"
    if step > 1:
        expects += f", a multiple of {step} and one more ({default - step}, {default}, ...)"
    return option(default, about="frames of a clip", expects=expects, parse=parse)
