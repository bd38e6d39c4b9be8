"""Convert decoded pictures to upright RGB frames of one size."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast

import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from wham_data.schemas.errors import Reason, RefusedInput

Frames = NDArray[np.uint8]
Fit = Literal["stretch", "letterbox", "crop"]

AREA = Interpolation.AREA | Interpolation.FULL_CHR_H_INT

# AVColorSpace of the stream -> (name, coefficients for swscale).
_MATRICES: dict[int, tuple[str, Colorspace]] = {
    1: ("bt709", Colorspace.ITU709),
    4: ("fcc", Colorspace.FCC),
    5: ("bt601", Colorspace.ITU601),
    6: ("bt601", Colorspace.ITU601),
    7: ("smpte240m", Colorspace.SMPTE240M),
    9: ("bt2020", Colorspace.BT2020),
    10: ("bt2020", Colorspace.BT2020),
}
COEFFICIENTS = dict(_MATRICES.values())


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """How the pictures of one stream are coded, and how to show them.

    width, height       pixels of the coded picture
    sample_aspect       width of a pixel divided by its height
    mirrored, rotation  to make the picture upright, mirror it left to right if `mirrored`, then turn
                        it clockwise by `rotation` degrees: 0, 90, 180 or 270
    pixel_format        FFmpeg's name
    bit_depth           bits of the largest component
    matrix              YUV coefficients: "bt601", "bt709", ...; from the stream, or the default
    full_range          luma is in 0..255, not 16..235; from the stream, or the default
    """

    width: int
    height: int
    sample_aspect: Fraction
    rotation: int
    mirrored: bool
    pixel_format: str
    bit_depth: int
    matrix: str
    full_range: bool

    @classmethod
    def of(cls, picture: VideoFrame, sample_aspect: Fraction) -> PictureFormat:
        """The format of a decoded picture.

        Args:
            picture: the picture.
            sample_aspect: pixel aspect of the stream; outside 1/8 to 8 it is replaced by 1.
        """
        matrix, full_range = colour_of(picture)
        rotation, mirrored = _orientation_of(picture)
        return cls(
            width=picture.width,
            height=picture.height,
            sample_aspect=sample_aspect if Fraction(1, 8) < sample_aspect < 8 else Fraction(1),
            rotation=rotation,
            mirrored=mirrored,
            pixel_format=picture.format.name,
            bit_depth=max(component.bits for component in picture.format.components),
            matrix=matrix,
            full_range=full_range,
        )

    @property
    def display_size(self) -> tuple[int, int]:
        """(width, height) of the upright picture in square pixels."""
        width, height = max(1, round(self.width * self.sample_aspect)), self.height
        return (height, width) if self.rotation in (90, 270) else (width, height)

    @property
    def has_alpha(self) -> bool:
        """Whether pixels may be transparent; they are shown on black."""
        alphas = ("rgba", "bgra", "argb", "abgr", "gbrap", "yuva", "ya", "pal8")
        return self.pixel_format.startswith(alphas)

    @property
    def is_grey(self) -> bool:
        """Whether the pictures have no colour."""
        return self.pixel_format.startswith(_GREY)


_GREY = ("gray", "ya", "mono")
_RGB = ("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8", "x2")


def colour_of(picture: VideoFrame) -> tuple[str, bool]:
    """The YUV matrix of a picture, and whether its luma has full range.

    Both come from the tags of the picture. Defaults: BT.709 from 720 lines up, BT.601 below; limited
    range. RGB pictures and grey pictures without a tag always have full range.
    """
    name = picture.format.name
    default = "bt709" if picture.height >= 720 else "bt601"
    matrix = _MATRICES[picture.colorspace][0] if picture.colorspace in _MATRICES else default
    untagged = picture.color_range == ColorRange.UNSPECIFIED
    full = picture.color_range == ColorRange.JPEG or name.startswith(("yuvj", *_RGB))
    return matrix, full or (untagged and name.startswith(_GREY))


def _orientation_of(picture: VideoFrame) -> tuple[int, bool]:
    """The rotation (degrees clockwise) and whether to mirror before it, from the display matrix.

    The matrix maps (x, y) to (a x + c y, b x + d y). It is stored as a, b, u, c, d, ... in 16.16
    fixed point.
    """
    matrix = picture.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(cast("SideData", matrix)), "<i4")[:5].tolist()
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    if abs(b) > abs(a):
        return (90 if b > 0 else 270), mirrored
    return (180 if a < 0 else 0), mirrored


class Scaler:
    """Converts decoded pictures to upright RGB frames of one size. Use one object per thread."""

    def __init__(self, source: PictureFormat, size: tuple[int, int], fit: Fit) -> None:
        """Prepare the conversion.

        Args:
            source: format of the pictures.
            size: (width, height) of the frames in pixels.
            fit: "stretch" to the size, "letterbox" on black, or "crop" the middle.
        """
        self._source, self._size = source, size
        inner = size if fit == "stretch" else inner_size(source.display_size, size, fit)
        self._fills_frame = inner == size
        # Scaling, which costs most, is done before rotation, because then it works on coded rows.
        self._scaled_size = inner[::-1] if source.rotation in (90, 270) else inner
        self._matrix = int(COEFFICIENTS[source.matrix])
        self._range = int(ColorRange.JPEG if source.full_range else ColorRange.MPEG)
        self._reformatter, self._flattener = VideoReformatter(), VideoReformatter()

    def picture(self, frame: VideoFrame) -> Frames:
        """Convert one picture.

        Args:
            frame: a decoded picture of the format.

        Returns:
            uint8 [H, W, 3] RGB.

        Raises:
            RefusedInput: the picture has another size than the format.
        """
        width, height = self._source.width, self._source.height
        if (frame.width, frame.height) != (width, height):
            message = f"resolution changes from {width}x{height} to {frame.width}x{frame.height}"
            raise RefusedInput(Reason.RESOLUTION_CHANGE, message)
        source_range = self._range
        if self._source.has_alpha:
            frame, source_range = self._over_black(frame), int(ColorRange.JPEG)
        scaled = self._reformatter.reformat(
            frame,
            width=self._scaled_size[0],
            height=self._scaled_size[1],
            format=rgb_format(frame, self._scaled_size),
            src_colorspace=self._matrix,
            src_color_range=source_range,
            dst_color_range=int(ColorRange.JPEG),
            interpolation=AREA,
            threads=1,
        )
        image = interleave(scaled)
        if self._source.mirrored:
            image = image[:, ::-1]
        if self._source.rotation:
            image = np.rot90(image, -self._source.rotation // 90)
        return image if self._fills_frame else self._place(image)

    def _over_black(self, frame: VideoFrame) -> VideoFrame:
        rgba = self._flattener.reformat(
            frame,
            format="rgba",
            src_colorspace=self._matrix,
            src_color_range=self._range,
            dst_color_range=int(ColorRange.JPEG),
            interpolation=AREA,
            threads=1,
        ).to_ndarray()
        weight = rgba[..., 3:].astype(np.uint16)
        flat = ((rgba[..., :3] * weight + 127) // 255).astype(np.uint8)
        return VideoFrame.from_ndarray(flat, format="rgb24")

    def _place(self, image: Frames) -> Frames:
        """Put the scaled picture in the middle of a black frame, or crop it to the frame."""
        width, height = self._size
        out = np.zeros((height, width, 3), np.uint8)
        top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
        visible = image[max(0, -top) : max(0, -top) + height, max(0, -left) : max(0, -left) + width]
        top, left = max(0, top), max(0, left)
        out[top : top + visible.shape[0], left : left + visible.shape[1]] = visible
        return out


def inner_size(shown: tuple[int, int], size: tuple[int, int], fit: Fit) -> tuple[int, int]:
    """The size to which a picture is scaled before it is put on a black frame or cropped.

    Args:
        shown: (width, height) of the upright picture in square pixels.
        size: (width, height) of the frame.
        fit: "letterbox": the picture fits inside the frame; otherwise it covers the frame.

    Returns:
        (width, height) in pixels, each at least 1 and at most 8 times that of the frame.
    """
    ratios = (size[0] / shown[0], size[1] / shown[1])
    scale = min(ratios) if fit == "letterbox" else max(ratios)
    # The limit of 8 avoids work for parts far outside the frame, if the picture is very wide or tall.
    width, height = (
        min(max(1, round(side * scale)), 8 * own) for side, own in zip(shown, size, strict=True)
    )
    return width, height


def rgb_format(picture: VideoFrame, size: tuple[int, int]) -> str:
    """The RGB pixel format to request from swscale: planar, which is 15 % faster than packed.

    If a picture keeps its size and its width is 1 to 8 more than a multiple of 16, swscale's planar
    conversion does not write the last columns, so the format is packed.

    Args:
        picture: the picture to convert.
        size: (width, height) after the conversion.

    Returns:
        "gbrp" or "rgb24"; `interleave` accepts both.
    """
    planar_fails = (picture.width, picture.height) == size and picture.width % 16 in range(1, 9)
    return "rgb24" if planar_fails else "gbrp"


def interleave(planar: VideoFrame) -> Frames:
    """Convert a picture in one of the formats of `rgb_format` to uint8 [H, W, 3] RGB."""
    if planar.format.name == "rgb24":
        return np.asarray(planar.to_ndarray(), np.uint8)
    out = np.empty((planar.height, planar.width, 3), np.uint8)
    for plane, channel in zip(planar.planes, (1, 2, 0), strict=True):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        out[..., channel] = rows[: planar.height, : planar.width]
    return out
