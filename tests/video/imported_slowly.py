"""A decoder whose import takes long, as torch's does on a busy machine."""

from __future__ import annotations

import time

from tspcli.video.decoders.pyav_source import PyavSource as Source

time.sleep(4)

__all__ = ["Source"]
