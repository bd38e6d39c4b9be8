"""The sheet on which a dream is judged: truth left, dream right, the controls below."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wham_data.pipelines.media.canvas import Canvas
from wham_data.pipelines.media.controls import PANEL, QUIET, WIDTH, Controls, middle_of
from wham_data.pipelines.media.picture import FAINT, INK, PAPER
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.recording import Frames

HEIGHT = 360
PICTURE = (300, 180)
TRUTH, DREAM = (13, 26, 313, 206), (327, 26, 627, 206)
CAPTION_Y, CONTROLS_Y = 13, 210


class Overlay:
    """Draws the steps of a dream one by one, 640 x 360 times `scale`.

    Args:
        actions: float32 [K, A] measured; NaN where not known.
        space: of the actions.
        model: its name, over the dream.
        scale: whole factor, at least 1.
    """

    def __init__(
        self, actions: NDArray[np.float32], space: ActionSpace, model: str, scale: int
    ) -> None:
        self._controls = Controls(actions, space)
        self._model, self._scale = model, scale

    @property
    def left_out(self) -> tuple[int, int]:
        """Buttons and other dimensions that there is no room for."""
        return self._controls.left_out

    def fitted(self, frame: Frames) -> Frames:
        """`frame`, uint8 [h, w, 3], as large as its panel allows, its sides in proportion."""
        height, width = frame.shape[:2]
        factor = min(PICTURE[0] / width, PICTURE[1] / height) * self._scale
        size = max(1, round(width * factor)), max(1, round(height * factor))
        return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))

    def sheet(self, step: int, truth: Frames | None, dream: Frames) -> Frames:
        """One step, uint8 [360 * scale, 640 * scale, 3].

        Args:
            step: from 0.
            truth: what was recorded at this step, as `fitted` made it; None if nothing was.
            dream: what was dreamt, as `fitted` made it.
        """
        canvas = Canvas(WIDTH, HEIGHT, self._scale, PAPER)
        canvas.text((TRUTH[0], CAPTION_Y), "recorded", INK, size=12)
        canvas.text((DREAM[0], CAPTION_Y), "dreamt", INK, size=12)
        canvas.text((DREAM[2], CAPTION_Y), self._model, QUIET, anchor="rm")
        for box, picture in ((TRUTH, truth), (DREAM, dream)):
            canvas.panel(box, PANEL, radius=0)
            if picture is None:
                canvas.text(middle_of(box), "no recording", FAINT, size=13, anchor="mm")
            else:
                canvas.picture(middle_of(box), picture)
        self._controls.draw(canvas, step, CONTROLS_Y)
        return canvas.pixels()
