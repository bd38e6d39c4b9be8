"""Videos: what is in a file, and its frames on a grid. The only home of PyAV.

    source      opening a file that nobody vouches for
    bitstream   what a packet says about its picture (pure)
    packets     which picture is shown when, and which packets a pick of frames needs (pure)
    index       `index_video`: one pass over the packet headers, one picture decoded
    scale       orientation, colour and size
    decode      `decode_frames`: one forward pass that gives the decoder only what the picked frames need
    write       clips and single pictures out, single pictures in
    gif         looping GIFs out
    interpolate frames between frames, for playback

The frames are bit-identical to a full decode followed by the same scaling.
"""

from wham_data.pipelines.video.decode import DecodeAudit, decode_frames
from wham_data.pipelines.video.gif import write_gif
from wham_data.pipelines.video.index import VideoIndex, index_video
from wham_data.pipelines.video.interpolate import SMALLEST_SIDE, interpolated
from wham_data.pipelines.video.scale import Fit, Frames, inner_size
from wham_data.pipelines.video.source import HEAD_BYTES, VideoLimits, decoders, refuse_by_content
from wham_data.pipelines.video.write import (
    VideoWriter,
    decode_image,
    encode_image,
    encode_jpeg,
    encode_png,
    write_video,
)

__all__ = [
    "HEAD_BYTES",
    "SMALLEST_SIDE",
    "DecodeAudit",
    "Fit",
    "Frames",
    "VideoIndex",
    "VideoLimits",
    "VideoWriter",
    "decode_frames",
    "decode_image",
    "decoders",
    "encode_image",
    "encode_jpeg",
    "encode_png",
    "index_video",
    "inner_size",
    "interpolated",
    "refuse_by_content",
    "write_gif",
    "write_video",
]
