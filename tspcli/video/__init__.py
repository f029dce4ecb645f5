"""Videos: which there are, what they hold, and their frames on an exact timeline.

Knows nothing of torch or encoders. Names are imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tspcli.core.lazy_face import lazy_face

if TYPE_CHECKING:
    from tspcli.video.decode_pool import DecodePool as DecodePool
    from tspcli.video.decoders import DECODERS as DECODERS
    from tspcli.video.decoders import DecoderEntry as DecoderEntry
    from tspcli.video.decoders import is_installed as is_installed
    from tspcli.video.decoders import open_source as open_source
    from tspcli.video.decoders import resolve_decoders as resolve_decoders
    from tspcli.video.inputs import Listing as Listing
    from tspcli.video.inputs import VideoFile as VideoFile
    from tspcli.video.inputs import describe_skipped as describe_skipped
    from tspcli.video.inputs import find_videos as find_videos
    from tspcli.video.inputs import list_videos as list_videos
    from tspcli.video.inputs import probe as probe
    from tspcli.video.messages import Event as Event
    from tspcli.video.messages import Failed as Failed
    from tspcli.video.messages import Finished as Finished
    from tspcli.video.messages import Frames as Frames
    from tspcli.video.messages import Idle as Idle
    from tspcli.video.messages import Opened as Opened
    from tspcli.video.messages import Restarted as Restarted
    from tspcli.video.messages import Woken as Woken
    from tspcli.video.sampled import SampledFrame as SampledFrame
    from tspcli.video.sampled import SampledFrames as SampledFrames
    from tspcli.video.sampled import read_clip as read_clip
    from tspcli.video.sampled import sampled_frames as sampled_frames
    from tspcli.video.source import Frame as Frame
    from tspcli.video.source import VideoInfo as VideoInfo
    from tspcli.video.source import VideoSource as VideoSource

_MODULES = {
    "DECODERS": "decoders",
    "DecodePool": "decode_pool",
    "DecoderEntry": "decoders",
    "Event": "messages",
    "Failed": "messages",
    "Finished": "messages",
    "Frame": "source",
    "Frames": "messages",
    "Idle": "messages",
    "Listing": "inputs",
    "Opened": "messages",
    "Restarted": "messages",
    "SampledFrame": "sampled",
    "SampledFrames": "sampled",
    "VideoFile": "inputs",
    "VideoInfo": "source",
    "VideoSource": "source",
    "Woken": "messages",
    "describe_skipped": "inputs",
    "find_videos": "inputs",
    "is_installed": "decoders",
    "list_videos": "inputs",
    "open_source": "decoders",
    "probe": "inputs",
    "read_clip": "sampled",
    "resolve_decoders": "decoders",
    "sampled_frames": "sampled",
}
__all__ = sorted(_MODULES)

__getattr__, __dir__ = lazy_face(__name__, _MODULES)
