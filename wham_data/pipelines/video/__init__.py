"""Reading and writing videos. Only this package imports PyAV.

    source      opens an untrusted file
    bitstream   reads from a packet what its picture is (pure functions)
    packets     when each picture is shown, and which packets the picked frames need (pure functions)
    matroska    finds bytes of a Matroska file that belong to no packet (pure functions)
    wrapped     coded pictures of another file as a video file
    h264_gaps   finds where pictures are missing in H.264 (pure functions)
    index       `index_video`: one pass over the packet headers; one picture is decoded
    hardware    decoding on an NVIDIA GPU
    scale       orientation, colour and size of frames
    decode      `decode_frames`: one forward pass; the decoder gets only what the picked frames need
    write       writes clips and single pictures, reads single pictures
    gif         writes looping GIFs
    interpolate computes frames between frames, for playback

Decoded frames are bit-identical to a full decode followed by the same scaling.
"""

from wham_data.pipelines.video.audit import DecodeAudit
from wham_data.pipelines.video.decode import decode_frames
from wham_data.pipelines.video.gif import write_gif
from wham_data.pipelines.video.hardware import need_gpu, why_no_gpu
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
    "need_gpu",
    "refuse_by_content",
    "why_no_gpu",
    "write_gif",
    "write_video",
]
