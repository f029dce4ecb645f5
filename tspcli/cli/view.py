"""``tsp view``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tspcli.cli.console import say
from tspcli.cli.options import PATH, column_option, row_time_options, row_times
from tspcli.cli.rules import RuledCommand, ruled_option
from tspcli.core.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tspcli.store.store import FeatureStore
    from tspcli.video.inputs import VideoFile
    from tspcli.viewer.workspace import Heads


@click.command("view", cls=RuledCommand, short_help="Look at features in the browser.")
@click.argument("store", metavar="FEATS.h5", type=PATH)
@ruled_option(
    "--videos",
    multiple=True,
    takes_all=True,
    type=PATH,
    help="The videos: files, folders, or .txt lists of paths; repeatable.",
)
@click.option(
    "--annotations",
    "-a",
    type=PATH,
    help="Annotated actions. A CSV or ActivityNet JSON can be edited; it need not exist yet.",
)
@column_option(requires=["annotations"])
@click.option("--predictions", "-p", type=PATH, help="Results of `tsp localize predict`.")
@click.option("--against", type=PATH, help="A second store, drawn under the first.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="a free one",
    help="Port on this machine.",
)
@click.option("--no-browser", is_flag=True, help="Print the address without opening it.")
@row_time_options()
def command(
    store: Path,
    videos: tuple[Path, ...],
    annotations: Path | None,
    columns: dict[str, str],
    predictions: Path | None,
    against: Path | None,
    port: int,
    no_browser: bool,
    frame_rate: str | None,
    stride: int | None,
    clip_length: int | None,
) -> int:
    """Look at videos, features, annotations and predictions on one clock, in the browser.

    The page finds moments like an example and edits annotations. It is served on this machine
    alone until Ctrl-C; nothing is uploaded.

    \b
    Examples:
      tsp view feats.h5 --videos my_videos/
      tsp view feats.h5 --videos my_videos/ -a actions.csv -p results.json
      tsp view tac.h5 --against tsp.h5 --videos my_videos/ --port 8000 --no-browser
    """
    from tspcli.cli.main import EXIT_INTERRUPTED
    from tspcli.core.stop import stoppable
    from tspcli.errors import DependencyError
    from tspcli.store import open_store
    from tspcli.store.store_set import require_agreement_or_use

    try:
        from tspcli.viewer.serve import serve
    except ImportError as error:
        raise DependencyError(
            f"tsp view needs {error.name}, which is not installed.",
            remedy="Install it: pip install 'tspcli[view]'.",
        ) from error
    from tspcli.viewer.workspace import Workspace

    sampling = row_times(frame_rate, stride, clip_length)
    with ExitStack() as stack:
        paths = [store] if against is None else [store, against]
        opened = [stack.enter_context(open_store(path, sampling=sampling)) for path in paths]
        require_agreement_or_use(opened, sampling)
        workspace = Workspace(
            opened,
            files=_files(opened[0], videos),
            annotations_path=annotations,
            columns=columns,
            predictions_path=predictions,
            load_heads=lambda: _heads(opened[0]),
        )
        if videos:
            missing = len(opened[0]) - len(workspace.files)
            if missing:
                say(f"{counted(missing, 'video')} of the store not found in --videos.")
        with stoppable(say) as stopper:
            serve(
                workspace,
                port=port,
                browser=not no_browser,
                say=say,
                stop_requested=stopper.requested,
            )
    # Ctrl-C is how one leaves.
    return 0 if stopper.exit_code == EXIT_INTERRUPTED else stopper.exit_code


def _files(store: FeatureStore, videos: tuple[Path, ...]) -> Mapping[str, VideoFile]:
    """The file of each of the store's videos that has one."""
    from tspcli.core.video_names import pair_names
    from tspcli.video import list_videos

    if not videos:
        return {}
    by_key = {video.key: video for video in list_videos(videos)}
    return {key: by_key[name] for key, name in pair_names(list(store), by_key).items()}


def _heads(store: FeatureStore) -> Heads:
    """The heads of the encoder that made a store's rows, as arrays."""
    import torch

    from tspcli.encoders import load_encoder
    from tspcli.encoders.weights import find_made_with
    from tspcli.viewer.workspace import Heads

    settings, labels = store.metadata.settings, store.metadata.labels
    if store.metadata.weights is None:
        return Heads(note="The store does not state its weights, so no classes are shown.")
    found = find_made_with(
        store.metadata.weights, labels.get("weights_path"), settings.get("weights_sha256")
    )
    encoder = load_encoder(found, backbone=settings.get("backbone"), device="cpu")
    heads, model = encoder.module.heads, encoder.module
    # Heads are linear, whatever they are called: their bias is what they make of zeros.
    probes = torch.cat([torch.zeros(1, encoder.feature_dim), torch.eye(encoder.feature_dim)])
    with torch.inference_mode():
        action = model.action_logits(probes)
        region = model.classify(probes).region if heads.region and not heads.gvf_dim else None
    pairs = [
        None if logits is None else ((logits[1:] - logits[0]).T.numpy(), logits[0].numpy())
        for logits in (action, region)
    ]
    note = ""
    if heads.region and region is None:
        note = "The region head also takes a global feature, so no foreground is shown."
    n_classes = 0 if action is None else action.shape[1]
    names = encoder.class_names or tuple(f"class {number}" for number in range(n_classes))
    return Heads(names, action=pairs[0], region=pairs[1], note=note)
