"""An option that all writers of videos share."""

from __future__ import annotations

from typing import Any, Final

from wham_data.pipelines.readers.kit.options import count_option

WORST: Final = 51


def crf_option() -> Any:
    """A field that holds x264's constant rate factor."""

    about = "constant rate factor of the H.264 videos: smaller is better, and larger in bytes"
    return count_option(18, about=about, least=0, most=WORST)
