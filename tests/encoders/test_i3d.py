"""I3D: TensorFlow's padding, the original's pooling, and the published weights on a real video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.builders.shown import shown_frames
from tspcli.encoders import Encoder, load_encoder
from tspcli.encoders.backbones.i3d import SamePool3d, pool_features, same_padding
from tspcli.encoders.weights import find_weights
from tspcli.sampling import Sampling
from tspcli.sampling.clock import display_end_s

WINDOW = Sampling(frame_rate=Fraction(25), grid_rate=Fraction(25), clip_length=64, stride=64)


@pytest.mark.parametrize("size", range(1, 40))
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (2, 2), (7, 2)])
def test_same_padding(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
    assert after - before in (0, 1)


@pytest.mark.parametrize("shape", [(4, 7, 8), (5, 6, 9), (1, 1, 2)])
def test_padded_pooling_against_plain_loops(shape: tuple[int, int, int]) -> None:
    kernel, stride = (3, 3, 3), (2, 2, 2)
    x = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    found = SamePool3d(kernel, stride)(x)[0, 0]
    starts = [same_padding(n, 3, 2)[0] for n in shape]
    for index in np.ndindex(*found.shape):
        corner = [i * 2 - s for i, s in zip(index, starts, strict=True)]
        window = [slice(max(c, 0), c + 3) for c in corner]
        assert found[index] == x[0, 0][window[0], window[1], window[2]].max()


def test_pooling_is_the_originals() -> None:
    """Averages over 2 x 7 x 7 at stride 1, then the mean over what is left of the time."""
    x = torch.randn(2, 3, 8, 7, 7, generator=torch.Generator().manual_seed(1))
    original = torch.nn.functional.avg_pool3d(x, (2, 7, 7), 1).mean(dim=(2, 3, 4))
    torch.testing.assert_close(pool_features(x), original)
    torch.testing.assert_close(pool_features(x[:, :, :2]), x[:, :, :2].mean(dim=(2, 3, 4)))
    torch.testing.assert_close(pool_features(x[:, :, :1]), x[:, :, :1].mean(dim=(2, 3, 4)))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    entry = find_weights("i3d-kinetics400")
    if not entry.is_local:
        pytest.skip("the I3D weights are not here (tsp weights fetch i3d-kinetics400)")
    return load_encoder("i3d-kinetics400", device="cpu", precision="fp32")


def read_frames(path: Path, encoder: Encoder) -> np.ndarray:
    """Frames at 25 a second, scaled and cropped, decoded without the rest of the program."""
    import av
    import cv2

    frames: list[np.ndarray] = []
    times: list[Fraction] = []
    spec = encoder.frame_spec
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            rgb = frame.to_ndarray(format="rgb24").astype(np.float32)
            height, width = spec.resize.target(*rgb.shape[:2])
            top, left = spec.crop_origin(height, width)
            scaled = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR)
            frames.append(scaled[top : top + 224, left : left + 224])
            assert frame.pts is not None and stream.time_base is not None
            times.append(frame.pts * stream.time_base)
    shown = shown_frames(times, display_end_s(times, None), WINDOW.grid_rate)
    return np.stack(frames)[shown]


def test_published_weights_know_the_clean_and_jerk(encoder: Encoder, shared_data: Path) -> None:
    """The port's proof on a labelled ActivityNet video, in windows of 64 frames."""
    video = shared_data / "v_GGSY1Qvo990.mp4"
    if not video.is_file():
        pytest.skip(f"{video.name} is not in {shared_data}")
    names = encoder.class_names
    assert names is not None and len(names) == 400
    frames = torch.from_numpy(read_frames(video, encoder))
    scores = []
    for clip in range(WINDOW.n_clips(len(frames))):
        features = encoder.encode_frames(frames[list(WINDOW.clip_ticks(clip))][None])
        logits = encoder.classify(features)
        assert logits is not None
        scores.append(logits.softmax(dim=1)[0])
    assert len(scores) == 7
    mean = torch.stack(scores).mean(dim=0)
    assert names[int(mean.argmax())] == "clean and jerk"
    assert mean.max().item() == pytest.approx(0.95, abs=0.02)
    assert all(names[int(s.argmax())] == "clean and jerk" for s in scores)


def test_the_mean_of_float32_is_the_same_in_both_forms() -> None:
    x = torch.randn(2, 8, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(pool_features(x), pool_features(x, torch.float32))
    half = pool_features(x.bfloat16(), torch.float32)
    assert half.dtype == torch.float32
    assert torch.equal(half, pool_features(x.bfloat16().float()))
