"""Clips of episodes, and the pictures of a clip as one part of a message.

    sheet   some frames of the clip side by side, as one JPEG: every vision-language model takes it
    mp4     all frames of the clip as a video (H.264), for servers that take `video_url`

The pictures are those that the corpus stores, or else decoded from its tokens.
"""

from __future__ import annotations

import base64
import math
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.corpus.captions.answers import Clip
from wham_data.corpus.shard_view import matrix_of
from wham_data.pipelines.video import decode_image, encode_jpeg, write_video
from wham_data.schemas.errors import IntegrityError, RefusedInput, UsageError
from wham_data.schemas.manifest import EpisodeRow
from wham_data.schemas.recording import Frames
from wham_data.schemas.steps import TOKEN

SentAs = Literal["sheet", "mp4"]
GAP: Final = 4
"""Pixels between two frames of a sheet."""
LONGEST_SIDE: Final = 2_048
"""Frames of a larger sheet are made smaller, by a whole factor. Models do so too."""
MOST_FRAMES: Final = 64

Decode = Callable[[NDArray[np.uint16]], Frames]
"""uint16 [n, N] tokens in, uint8 [n, H, W, 3] pictures out."""


@dataclass(frozen=True, slots=True)
class ClipForm:
    """How a clip is sent.

    sent_as  a sheet of frames, or a video
    frames   frames of a sheet

    Raises:
        UsageError: a sheet of no frames, or of too many.
    """

    sent_as: SentAs = "sheet"
    frames: int = 9

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= MOST_FRAMES:
            raise UsageError(f"--frames {self.frames}: expected 1 to {MOST_FRAMES}")

    def picks(self, clip: Clip) -> list[int]:
        """The steps of a clip whose pictures are sent: all for a video; evenly spaced for a sheet."""
        if self.sent_as == "mp4" or clip.n_steps <= self.frames:
            return list(range(clip.start, clip.stop))
        spread = np.linspace(clip.start, clip.stop - 1, self.frames)
        return [int(step) for step in np.rint(spread)]

    def part(self, pictures: Sequence[Frames], rate: Fraction) -> dict[str, Any]:
        """The part of a message that holds a clip, its bytes as a data URL.

        Args:
            pictures: uint8 [H, W, 3] each.
            rate: steps per second.
        """
        if self.sent_as == "sheet":
            return _part("image_url", "image/jpeg", encode_jpeg(sheet(pictures)))
        with tempfile.TemporaryDirectory(prefix="wham-data-") as folder:
            path = Path(folder) / "clip.mp4"
            write_video(path, pictures, rate)
            return _part("video_url", "video/mp4", path.read_bytes())


def _part(kind: str, media: str, content: bytes) -> dict[str, Any]:
    return {
        "type": kind,
        kind: {"url": f"data:{media};base64,{base64.b64encode(content).decode()}"},
    }


def clips_of(row: EpisodeRow, every: int) -> Iterator[Clip]:
    """An episode in clips of `every` steps; the last one is shorter if it does not come out even.

    Clips without a step in `keep` are left out.
    """
    keep = ((0, row.n_steps),) if row.keep is None else row.keep
    for start in range(0, row.n_steps, every):
        stop = min(start + every, row.n_steps)
        if any(first < stop and start < last for first, last in keep):
            yield Clip(row.recording, row.episode, start, stop)


def sheet(pictures: Sequence[Frames]) -> Frames:
    """Pictures side by side in rows, from left to right and then from top to bottom.

    Args:
        pictures: uint8 [H, W, 3] each, at least one, all of one size.

    Returns:
        uint8 [H', W', 3], at most LONGEST_SIDE on its longer side if frames allow that.
    """
    across = math.ceil(math.sqrt(len(pictures)))
    down = math.ceil(len(pictures) / across)
    height, width = pictures[0].shape[:2]
    factor = math.ceil(max(across * width, down * height) / LONGEST_SIDE)
    small = [_smaller(picture, factor) for picture in pictures]
    height, width = small[0].shape[:2]
    out = np.zeros((down * (height + GAP) - GAP, across * (width + GAP) - GAP, 3), np.uint8)
    for number, picture in enumerate(small):
        row, column = divmod(number, across)
        top, left = row * (height + GAP), column * (width + GAP)
        out[top : top + height, left : left + width] = picture
    return out


def _smaller(picture: Frames, factor: int) -> Frames:
    """The means of squares of `factor` x `factor` pixels."""
    height, width = (max(side // factor, 1) for side in picture.shape[:2])
    if factor == 1 or min(picture.shape[:2]) < factor:
        return picture
    cut = picture[: height * factor, : width * factor]
    squares = cut.reshape(height, factor, width, factor, 3)
    return np.asarray(np.rint(squares.mean(axis=(1, 3))), np.uint8)


def pictures_of(
    corpus: Corpus,
    row: EpisodeRow,
    clips: Sequence[Clip],
    form: ClipForm,
    decode: Decode | None,
) -> Iterator[tuple[Clip, list[Frames]]]:
    """The pictures of some clips of an episode, in one pass over its steps.

    Args:
        corpus: the corpus.
        row: the episode.
        clips: at least one, in order, none overlapping.
        form: which pictures of a clip are sent.
        decode: makes pictures from tokens; None: the stored pictures are read.

    Raises:
        IntegrityError: the shard is damaged, or a picture does not decode.
    """
    view = corpus.open_shard(row.shard)
    view.must_hold(row.episode, row.row_start, row.n_steps)
    column = "frame" if decode is None else "tokens"
    first, stop = clips[0].start, clips[-1].stop
    waiting = deque((clip, form.picks(clip)) for clip in clips)
    taken: list[pa.Array] = []
    for table in view.stream_rows(row.row_start + first, row.row_start + stop, [column]):
        after = first + len(table)
        while waiting:
            clip, picks = waiting[0]
            here = [step - first for step in picks if first <= step < after]
            taken.append(table.column(column).combine_chunks().take(pa.array(here, pa.int64())))
            if picks[-1] >= after:
                break
            where = f"{view.where}: steps {clip.start} to {clip.stop - 1} of {clip.episode}"
            yield clip, _pictures(pa.concat_arrays(taken), corpus.info.size, decode, where)
            taken.clear()
            waiting.popleft()
        first = after


def _pictures(
    coded: pa.Array, size: tuple[int, int], decode: Decode | None, where: str
) -> list[Frames]:
    if decode is not None:
        return list(decode(matrix_of(coded, TOKEN)))
    pictures = []
    for each in coded:
        try:
            pictures.append(decode_image(each.as_py()))
        except RefusedInput as why:
            raise IntegrityError(f"{where}: {why}") from None
        height, width = pictures[-1].shape[:2]
        if (width, height) != size:
            raise IntegrityError(
                f"{where}: a picture of {width}x{height}, expected {size[0]}x{size[1]}"
            )
    return pictures
