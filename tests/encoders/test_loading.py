"""Loading an encoder by names, checkpoints and runs, and converting checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from tests.builders.networks import random_frames
from tspcli.cli.weights import command
from tspcli.core.files import file_sha256
from tspcli.encoders import load_checkpoint, load_encoder, save_checkpoint
from tspcli.encoders.tsp_model import Heads, TspModel
from tspcli.errors import CheckpointError, TspError, UsageError, WeightsError
from tspcli.sampling import Sampling


def test_what_a_run_says_of_itself_is_used(run_dir: Path) -> None:
    encoder = load_encoder(run_dir, device="cpu")
    assert (encoder.backbone, encoder.feature_dim) == ("tiny", 128)
    assert encoder.class_names == ("walk", "run", "jump")
    assert encoder.sampling == Sampling(stride=8)
    assert encoder.provenance == json.loads(json.dumps(encoder.provenance))
    assert encoder.provenance["weights"] == "best.pth"
    assert encoder.provenance["weights_sha256"] == file_sha256(run_dir / "best.pth")
    assert encoder.provenance["frames_dtype"] == "float32"


def test_precision_decides_the_frames(run_dir: Path) -> None:
    auto = load_encoder(run_dir, device="cpu", precision="auto")
    exact = load_encoder(run_dir, device="cpu", precision="fp32")
    rounded = load_encoder(run_dir, device="cpu", precision="bf16")
    assert (auto.precision, auto.frame_spec.dtype) == ("fp32", "float32")
    assert auto.provenance == exact.provenance
    assert (rounded.precision, rounded.frame_spec.dtype) == ("bf16", "uint8")
    frames = random_frames(1, 16, 112, 112, 3)
    assert torch.equal(auto.encode_frames(frames), exact.encode_frames(frames.float()))


def test_random_weights_follow_the_seed() -> None:
    frames = random_frames(1, 16, 112, 112, 3)
    state = torch.random.get_rng_state()
    one, same, other = (
        load_encoder("random", backbone="tiny", device="cpu", seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one.encode_frames(frames), same.encode_frames(frames))
    assert not torch.allclose(one.encode_frames(frames), other.encode_frames(frames))
    assert one.provenance == same.provenance != other.provenance
    assert one.classify(one.encode_frames(frames)) is None


def test_the_embedded_weights_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSPCLI_WEIGHTS_URL", "http://127.0.0.1:9/")
    encoder = load_encoder("tiny", device="cpu")
    assert encoder.provenance["weights"] == "tiny"
    features = encoder.encode_frames(random_frames(2, 16, 112, 112, 3))
    assert torch.isfinite(features).all() and features.std() > 0


def test_plain_form_on_request(run_dir: Path) -> None:
    quick = load_encoder(run_dir, device="cpu")
    plain = load_encoder(run_dir, device="cpu", fast=False)
    frames = random_frames(2, 16, 112, 112, 3)
    torch.testing.assert_close(
        quick.encode_frames(frames), plain.encode_frames(frames), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("choices", "kind", "data"),
    [
        ({"weights": "random"}, UsageError, {"option": "backbone"}),
        ({"weights": "tiny", "backbone": "r3d_18"}, UsageError, {"value": "r3d_18"}),
        ({"weights": "tiny", "seed": 3}, UsageError, {"option": "seed", "value": 3}),
        ({"weights": "tiny", "runtime": "abacus"}, UsageError, {"option": "runtime"}),
        ({"weights": "run", "backbone": "r3d_18"}, CheckpointError, {"backbone": "r3d_18"}),
        ({"weights": "nowhere/x.pth"}, CheckpointError, {"path": Path("nowhere/x.pth")}),
        ({"weights": "tiniest"}, WeightsError, {"value": "tiniest"}),
    ],
)
def test_contradictions_are_refused(
    run_dir: Path, choices: dict[str, Any], kind: type[TspError], data: dict[str, Any]
) -> None:
    if choices["weights"] == "run":
        choices = {**choices, "weights": run_dir}
    with pytest.raises(kind) as caught:
        load_encoder(device="cpu", **choices)
    assert caught.value.data.items() >= data.items()


def test_unknown_weights_name_the_nearest() -> None:
    with pytest.raises(WeightsError) as caught:
        load_encoder("r2plus1d_34-tsp_on_activityne")
    assert "r2plus1d_34-tsp_on_activitynet" in caught.value.data["nearest"]  # type: ignore[operator]  # data are objects


def tsp(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def test_convert(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TspModel("tiny", Heads(7))
    plain = {k.removeprefix("features."): v for k, v in model.state_dict().items()}
    torch.save(plain, tmp_path / "plain.pth")
    source, target = str(tmp_path / "plain.pth"), tmp_path / "out.pth"
    assert tsp("convert", source, str(target)).exit_code == 0
    loaded = load_checkpoint(target)
    assert (loaded.layout, loaded.heads) == ("official", Heads(7))
    assert all(torch.equal(loaded.state[k], v) for k, v in model.state_dict().items())
    assert isinstance(tsp("convert", source, str(target)).exception, UsageError)
    assert tsp("convert", source, str(target), "--overwrite", "--strip-heads").exit_code == 0
    assert load_checkpoint(target).heads == Heads()


def test_convert_a_run(tmp_path: Path) -> None:
    model = TspModel("tiny", Heads(2))
    save_checkpoint(tmp_path / "best.pth", model, backbone="tiny", class_names=("a", "b"))
    assert tsp("convert", str(tmp_path), str(tmp_path / "x.pth")).exit_code == 0
    assert load_checkpoint(tmp_path / "x.pth").class_names == ("a", "b")
