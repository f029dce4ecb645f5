"""Videos: which there are, what they hold, and their frames on an exact timeline.

Knows nothing of torch and of encoders. Decoders are imported only when a video is opened.
"""

from __future__ import annotations

from tspcli.core.video_names import store_key
from tspcli.video.decode_pool import DecodePool
from tspcli.video.decoders import DECODERS, is_installed, open_source, resolve_decoders
from tspcli.video.inputs import (
    Listing,
    VideoFile,
    describe_passed_over,
    find_videos,
    list_videos,
    probe,
)
from tspcli.video.messages import (
    Event,
    Failed,
    Finished,
    Frames,
    Idle,
    Opened,
    Restarted,
    SharedPlace,
    Woken,
)
from tspcli.video.sampled import SampledFrame, SampledFrames, read_clip, sampled_frames
from tspcli.video.source import Frame, VideoInfo, VideoSource

__all__ = [
    "DECODERS",
    "DecodePool",
    "Event",
    "Failed",
    "Finished",
    "Frame",
    "Frames",
    "Idle",
    "Listing",
    "Opened",
    "Restarted",
    "SampledFrame",
    "SampledFrames",
    "SharedPlace",
    "VideoFile",
    "VideoInfo",
    "VideoSource",
    "Woken",
    "describe_passed_over",
    "find_videos",
    "is_installed",
    "list_videos",
    "open_source",
    "probe",
    "read_clip",
    "resolve_decoders",
    "sampled_frames",
    "store_key",
]
