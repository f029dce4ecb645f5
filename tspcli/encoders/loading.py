"""Checkpoints of any known layout into the official one."""

from __future__ import annotations

from pathlib import Path

from tspcli.encoders import weights as registry
from tspcli.encoders.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from tspcli.encoders.encoder import find_checkpoint
from tspcli.encoders.tsp_model import Heads, TspModel
from tspcli.fetch.url import Progress


def convert_checkpoint(
    source: str | Path,
    target: Path,
    *,
    backbone: str | None = None,
    strip_heads: bool = False,
    on_progress: Progress | None = None,
) -> Checkpoint:
    """Write weights in the official layout, with names of classes where they are known.

    Args:
        source: A checkpoint, a run's folder or a name from the registry.
        target: The file to write.
        backbone: The registry name, if it shall not be found from names and shapes.
        strip_heads: Whether to leave the heads out.
        on_progress: Told how far a download is.

    Returns:
        The new checkpoint, read back.

    Raises:
        CheckpointError: If the source cannot be loaded or the target not be written.
        WeightsError: If the source is a name that is unknown or cannot be fetched.
    """
    checkpoint, entry = find_checkpoint(source, backbone, on_progress)
    model = checkpoint.build_model()
    names = checkpoint.class_names
    if names is None and entry is not None and entry.classes is not None:
        names = registry.class_names(entry.classes)
    if strip_heads:
        model = TspModel(checkpoint.backbone, Heads())
        checkpoint.load_into(model, heads=False)
        names = None
    save_checkpoint(
        target,
        model,
        backbone=checkpoint.backbone,
        class_names=names,
        sampling=checkpoint.sampling,
        preprocessing=checkpoint.preprocessing,
    )
    return load_checkpoint(target)
