"""What a run can tell beforehand not to fit into memory, where the kernel would end it later."""

from __future__ import annotations

from tspcli.errors import UsageError
from tspcli.extraction.encoding import CPU_BATCH
from tspcli.extraction.facts import EncoderFacts
from tspcli.machine import memory_bytes
from tspcli.timeline import Sampling

AT_LEAST = 8
"""Bytes that encoding a batch takes for each byte of its clips, at least: the first layers' outputs
of all our backbones are larger than that."""


def require_memory(
    sampling: Sampling, facts: EncoderFacts, batch_size: int | None, available: int | None = None
) -> None:
    """Refuse clips of which a batch cannot fit into memory.

    On a GPU, whose memory decides about the batch and is found out by trying, of a single clip.

    Args:
        sampling: The clips.
        facts: The encoder.
        batch_size: Clips at once; None lets the device decide.
        available: Bytes of memory; those of this machine by default.

    Raises:
        UsageError: If the machine has less memory than the clips take at least.
    """
    available = memory_bytes() if available is None else available
    if available is None:
        return
    height, width = facts.frame_spec.output_shape(256, 341)[:2]
    n_clips = (batch_size or CPU_BATCH) if facts.device_type == "cpu" else 1
    needed = AT_LEAST * n_clips * sampling.clip_length * height * width * 3 * 4
    if needed > available:
        clips = "A clip" if n_clips == 1 else f"A batch of {n_clips} clips"
        raise UsageError(
            f"{clips} of {sampling.clip_length} frames of {height} x {width} takes "
            f"{needed / 1e9:.1f} GB of memory at least, this machine has {available / 1e9:.1f} GB.",
            remedy="Give a smaller --clip-length or --batch-size.",
        )
