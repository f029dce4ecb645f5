"""The report's pictures, as PNG in data URIs."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reproduction.measures import ERRORS, FEATURES
from reproduction.outcome import MATCHED, MAX, NONE, TAC, Group, Outcome
from tspcli.annotations import read_actions
from tspcli.errors import DependencyError
from tspcli.store import open_store

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def require_libraries() -> None:
    """Raise unless what the report stands on is installed.

    Raises:
        DependencyError: If matplotlib or scipy is missing.
    """
    for name in ("matplotlib", "scipy"):
        try:
            __import__(name)
        except ImportError as error:
            raise DependencyError(
                f"The report needs {name}, which is not installed.",
                remedy='Install it with: pip install -e ".[reproduce]"',
            ) from error


def png_uri(figure: Figure) -> str:
    """A figure as a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def lead_over_share(outcomes: Sequence[Outcome]) -> str:
    """Leads over TAC with the same steps, and mAP of all arms, over the share of scenes."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    leads, levels = figure.subplots(1, 2)
    for number, arm in enumerate((NONE, MAX)):
        for outcome in outcomes:
            contrast = outcome.contrast(arm, MATCHED)
            share = outcome.group.share
            if contrast is None or share is None:
                continue
            place = share + 0.02 * (2 * number - 1)
            points = 100 * np.asarray(contrast.differences)
            leads.plot(np.full(contrast.n, place), points, ".", color=f"C{number}", alpha=0.5)
            if contrast.n > 1:
                low, high = (100 * value for value in contrast.interval)
                leads.plot([place, place], [low, high], color=f"C{number}", linewidth=2)
            title = outcome.group.titles[arm] if outcome is outcomes[0] else None
            leads.plot(place, 100 * contrast.mean, "D", color=f"C{number}", label=title)
    for number, arm in enumerate(("trimmed", TAC, MATCHED, NONE, MAX)):
        found = [(o.group.share, o.values(arm)) for o in outcomes]
        means = [(s, 100 * np.mean(list(v.values()))) for s, v in found if v and s is not None]
        if means:
            title = outcomes[0].group.titles[arm]
            levels.plot(*zip(*sorted(means), strict=True), marker="o", label=title,
                        color=f"C{number + 2}")  # fmt: skip
    leads.axhline(0, color="0.5", linewidth=0.8)
    leads.set_ylabel("lead over TAC with matched steps, mean mAP")
    levels.set_ylabel("mean mAP, %")
    for axes in (leads, levels):
        axes.set_xlabel("share of videos whose scene belongs to their class")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    return png_uri(figure)


def error_bars(outcome: Outcome) -> str:
    """What is wrong with the best predictions, and which actions are missed, by arm."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots()
    arms = list(outcome.figures)
    left = np.zeros(len(arms))
    for kind in ERRORS:
        values = [outcome.values(arm, f"error_{kind}").values() for arm in arms]
        shares = np.array([100 * np.mean(list(v)) if v else 0.0 for v in values])
        axes.barh(arms, shares, left=left, label=kind)
        left += shares
    for place, arm in enumerate(arms):
        missed = list(outcome.values(arm, "missed").values())
        if missed:
            axes.text(
                left[place] + 0.5, place, f"{100 * np.mean(missed):.0f} % missed", va="center"
            )
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the ten best predictions per action, % (the rest is right)")
    axes.legend(fontsize=8, ncols=len(ERRORS), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return png_uri(figure)


def example_video(group: Group) -> str | None:
    """The first annotated validation video by name, not chosen, of the first seed."""
    seed = group.seeds[0]
    annotated = read_actions(group.annotations[seed], "validation")
    with open_store(group.folders[seed] / f"{NONE}.features" / FEATURES) as store:
        keys = sorted(key for key in store if (name := annotated.find(key)) is not None
                      and annotated[name].segments)  # fmt: skip
    return keys[0] if keys else None


def similarity_picture(group: Group, key: str) -> str:
    """Similarities of the clips of one video, TAC with matched steps and TSP, in one scale."""
    from tspcli.analysis import view_features, write_picture
    from tspcli.analysis.plot_data import PlotData

    seed = group.seeds[0]
    annotated = read_actions(group.annotations[seed], "validation")
    name = annotated.find(key)
    segments = () if name is None else annotated[name].segments
    views = []
    for arm in (MATCHED, NONE):
        with open_store(group.folders[seed] / f"{arm}.features" / FEATURES) as store:
            views.append(view_features(store[key], group.titles[arm], segments))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        write_picture(PlotData(key, views, segments), path, dpi=110)
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
