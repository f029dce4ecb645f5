"""Loading an encoder and running it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tspcli.core.files import file_sha256
from tspcli.encoders import load_encoder, save_checkpoint
from tspcli.encoders.encoder import resolve_device, resolve_precision
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.encoders.tsp_model import Heads, TspModel
from tspcli.errors import CheckpointError, UsageError, WeightsError
from tspcli.sampling import Sampling


def random_frames(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    save_checkpoint(
        folder / "best.pth",
        TspModel("tiny", Heads(3, region=True, gvf_dim=128)),
        backbone="tiny",
        class_names=("walk", "run", "jump"),
        sampling=Sampling(stride=8),
    )
    return folder


def test_features_are_those_of_the_plain_model(run_dir: Path) -> None:
    encoder = load_encoder(run_dir, device="cpu")
    frames = random_frames(3, 16, 112, 112, 3)
    features = encoder.encode_frames(frames)
    assert features.dtype == torch.float32 and features.shape == (3, 128)
    clips = torch.stack([Preprocessing().center_clip(clip) for clip in frames])
    with torch.inference_mode():
        expected = encoder.module.features(clips)
        logits = encoder.module.fc1(expected)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    found = encoder.classify(features)
    assert found is not None
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-5)


def test_frames_are_normalised_once_and_shared_by_clips(run_dir: Path) -> None:
    encoder = load_encoder(run_dir, device="cpu")
    frames = random_frames(20, 112, 112, 3)
    prepared = encoder.prepare(frames)
    assert prepared.shape == (20, 3, 112, 112)
    clips = torch.stack([prepared[s : s + 16].transpose(0, 1) for s in (0, 4)])
    one_by_one = torch.cat([encoder.encode_frames(frames[None, s : s + 16]) for s in (0, 4)])
    torch.testing.assert_close(encoder.encode(clips), one_by_one, rtol=1e-4, atol=1e-5)


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


def test_fp16_that_overflows_is_an_error(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(run_dir, device="cpu")
    encoder.precision = "fp16"
    monkeypatch.setattr(encoder, "_backbone", lambda clips: torch.full((1, 128), float("inf")))
    with pytest.raises(UsageError, match=r"range of fp16.*--precision bf16"):
        encoder.encode_frames(random_frames(1, 16, 112, 112, 3))


def test_bf16_on_a_cpu_stays_near(run_dir: Path) -> None:
    frames = random_frames(2, 16, 112, 112, 3)
    exact = load_encoder(run_dir, device="cpu").encode_frames(frames)
    encoder = load_encoder(run_dir, device="cpu", precision="bf16")
    assert encoder.prepare(frames[0]).dtype == torch.bfloat16
    found = encoder.encode_frames(frames)
    assert found.dtype == torch.float32
    assert ((found - exact).norm() / exact.norm()).item() < 2e-2


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


def test_contradictions_are_refused(run_dir: Path) -> None:
    with pytest.raises(UsageError, match="need a backbone"):
        load_encoder("random")
    with pytest.raises(UsageError, match="for tiny, not r3d_18"):
        load_encoder("tiny", backbone="r3d_18")
    with pytest.raises(CheckpointError, match="does not fit r3d_18"):
        load_encoder(run_dir, backbone="r3d_18")
    with pytest.raises(WeightsError, match="Similar: r2plus1d_34-tsp_on_activitynet"):
        load_encoder("r2plus1d_34-tsp_on_activityne")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_encoder("nowhere/x.pth")


def test_clip_length_is_checked_before_computing() -> None:
    encoder = load_encoder("random", backbone="mvit_v2_s", device="cpu")
    with pytest.raises(UsageError, match="16 frames, not 8"):
        encoder.encode(torch.zeros(1, 3, 8, 224, 224))


def test_devices_and_precisions() -> None:
    cpu = torch.device("cpu")
    assert resolve_device("cpu") == cpu
    assert resolve_precision("auto", cpu) == "fp32"
    assert resolve_precision("bf16", cpu) == "bf16"
    for device, precision in (("cpu", "fp16"), ("cpu", "tf32"), ("cpu", "fp8")):
        with pytest.raises(UsageError, match=precision):
            resolve_precision(precision, torch.device(device))
    with pytest.raises(UsageError, match="no device"):
        resolve_device("abacus")
    with pytest.raises(UsageError, match="There is no device cuda:99"):
        resolve_device("cuda:99")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["auto", "fp32", "tf32", "bf16", "fp16"])
def test_precisions_on_cuda(run_dir: Path, precision: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    frames = random_frames(4, 16, 112, 112, 3)
    exact = load_encoder(run_dir, device="cpu").encode_frames(frames)
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    found = load_encoder(run_dir, device="cuda", precision=precision).encode_frames(frames)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before
    bar = 1e-5 if precision == "fp32" else 1e-2
    assert ((found - exact).norm(dim=1) / exact.norm(dim=1)).max().item() < bar
