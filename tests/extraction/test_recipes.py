"""Features by a recipe: the rows it says, and a store that names it and every deviation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from tests.builders.videos import make_video
from tspcli.cli.main import cli
from tspcli.encoders import backbones
from tspcli.encoders.backbones import BACKBONES, backbone_spec
from tspcli.encoders.backbones.slowfast import SlowFast
from tspcli.encoders.backbones.videomae import VideoVit
from tspcli.encoders.state_dicts import digest_of_keys, shapes_of
from tspcli.errors import CheckpointError
from tspcli.extraction import ExtractConfig, extract
from tspcli.extraction.extract_config import load_configured_encoder
from tspcli.recipes.catalog import recipe_names
from tspcli.recipes.feature_recipe import feature_recipe
from tspcli.store import open_store


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    make_video(folder / "a.mp4", n_frames=36)
    make_video(folder / "b.mkv", n_frames=30, fps=25)
    return folder


NARROW: dict[str, Callable[[], nn.Module]] = {
    "videomae_b": lambda: VideoVit(48, 1, 3, 16, 48),
    "videomae_l": lambda: VideoVit(48, 1, 3, 16, 48),
    "videomae_v2_g": lambda: VideoVit(48, 1, 3, 14, 48),
    "slowfast_r101": lambda: SlowFast((1, 1, 1, 1), 5, 16),
}
"""Networks of the same kind in the place of those that would take minutes."""


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, build in NARROW.items():
        width = 576 if name.startswith("slowfast") else 48
        spec = replace(backbone_spec(name), build=build, feature_dim=width, keys=None)
        attribute = f"NARROW_{name}"
        monkeypatch.setattr(backbones, attribute, spec, raising=False)
        entry = BACKBONES[name]._replace(spec=f"tspcli.encoders.backbones:{attribute}")
        monkeypatch.setitem(BACKBONES, name, entry)


@pytest.mark.parametrize("name", recipe_names("features"))
def test_rows_are_as_many_and_when_the_recipe_says(
    name: str, videos: Path, tmp_path: Path, narrow: None
) -> None:
    recipe = feature_recipe(name)
    config = ExtractConfig.of_recipe(name, weights="random", device="cpu", workers=1)
    extract(videos, tmp_path / "s.h5", config=config)
    with open_store(tmp_path / "s.h5") as store:
        assert store.metadata.recipe == {
            "name": name,
            "digest": recipe.digest,
            "deviations": [f"weights: {recipe.weights}, not random"],
        }
        assert store.metadata.sampling == recipe.sampling
        for key, seconds in (("a", 1.2), ("b", 1.2)):
            sampling = store[key].sampling
            n_ticks = round(seconds * float(sampling.grid_rate))
            assert store[key].n_rows == max(1, sampling.n_clips(n_ticks))
            centre = float(sampling.clip_center_s(0))
            assert store[key].center_s[0] == pytest.approx(centre, abs=1e-6)


def test_a_file_that_fits_several_networks_is_the_recipes(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = NARROW["videomae_b"]()
    keys = digest_of_keys(shapes_of(network.state_dict()))
    for name in ("videomae_b", "videomae_v2_b"):
        spec = replace(
            backbone_spec(name), build=NARROW["videomae_b"], feature_dim=48, keys=keys, convert=None
        )
        monkeypatch.setattr(backbones, f"NARROW_{name}", spec, raising=False)
        entry = BACKBONES[name]._replace(spec=f"tspcli.encoders.backbones:NARROW_{name}")
        monkeypatch.setitem(BACKBONES, name, entry)
    torch.save({"model": network.state_dict()}, tmp_path / "mine.pth")
    chosen = {"weights": str(tmp_path / "mine.pth"), "device": "cpu", "workers": 1}
    with pytest.raises(CheckpointError) as refusal:
        load_configured_encoder(ExtractConfig(**chosen))
    assert refusal.value.data["backbones"] == ["videomae_b", "videomae_v2_b"]
    encoder = load_configured_encoder(ExtractConfig.of_recipe("thumos14-videomae-b", **chosen))
    assert encoder.provenance["backbone"] == "videomae_b"


def test_a_store_shows_its_recipe_and_what_was_chosen_otherwise(
    videos: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "s.h5")
    chosen = ["--weights", "random", "--backbone", "tiny", "--stride", "8"]
    arguments = ["extract", "--videos", str(videos), "--out", out, "--recipe", "tsp-activitynet"]
    assert CliRunner().invoke(cli, [*arguments, *chosen], catch_exceptions=False).exit_code == 0
    shown = " ".join(CliRunner().invoke(cli, ["inspect", out]).output.split())
    assert "tsp-activitynet, but backbone: r2plus1d_34, not tiny" in shown
    assert "sampling.stride: 16, not 8" in shown
