"""An option that all writers of videos share."""

from __future__ import annotations

from typing import Any, Final

from wham_data.pipelines.readers.kit.options import option

WORST: Final = 51


def crf_option() -> Any:
    """A field that holds x264's constant rate factor."""

    def parse(text: str) -> int:
        crf = int(text)
        if not 0 <= crf <= WORST:
            raise ValueError
        return crf

    about = "constant rate factor of the H.264 videos: smaller is better, and larger in bytes"
    return option(18, about=about, expects=f"a whole number from 0 to {WORST}", parse=parse)
