"""OpenVINO computes what torch computes, and tells nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.builders.networks import clips, relative, shaken
from tests.builders.videos import make_video
from tspcli.encoders import load_encoder
from tspcli.encoders.backbones import build_backbone
from tspcli.encoders.runtimes import OpenVinoForm
from tspcli.errors import DependencyError, UsageError
from tspcli.extraction import extract
from tspcli.store import open_store

HERE = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def openvino() -> None:
    try:
        OpenVinoForm(torch.nn.Identity())
    except DependencyError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ["tiny", "r2plus1d_18", "i3d"])
def test_equal_to_the_plain_module(openvino: None, name: str) -> None:
    torch.manual_seed(7)
    plain = shaken(build_backbone(name))
    form = OpenVinoForm(plain)
    with torch.inference_mode():
        # The shapes of whole batches, of the last one of a run, and of other clips.
        for count, frames, size in ((3, 16, 64), (1, 16, 64), (2, 8, 80), (3, 16, 64)):
            x = clips(count, frames, size)
            before = x.clone()
            found, expected = form(x), plain(x)
            errors = (found - expected).norm(dim=1) / expected.norm(dim=1)
            assert errors.max() <= 1e-5
            assert torch.equal(x, before)


def test_rows_are_not_overwritten_by_the_next_batch(openvino: None) -> None:
    form = OpenVinoForm(shaken(build_backbone("tiny")))
    x = clips(2, 16, 64)
    with torch.inference_mode():
        first = form(x)
        kept = first.clone()
        form(x.flip(0))
    assert torch.equal(first, kept)


def test_a_store_holds_the_same_rows_whichever_runtime_adds_to_it(
    openvino: None, tmp_path: Path
) -> None:
    one, two = (make_video(tmp_path / f"{name}.mp4", fps=30, n_frames=90) for name in "ab")
    torch_rows, both = tmp_path / "torch.h5", tmp_path / "both.h5"
    extract([one, two], torch_rows, weights="tiny", device="cpu", workers=1)
    extract(one, both, weights="tiny", device="cpu", workers=1)
    report = extract([one, two], both, weights="tiny", workers=1, runtime="openvino")
    assert {video.key: video.status for video in report.videos} == {"a": "kept", "b": "done"}
    assert report.to_dict()["runtime"] == "openvino"
    loaded = load_encoder("tiny", runtime="openvino")
    assert extract(one, tmp_path / "own.h5", encoder=loaded, workers=1).runtime == "openvino"
    with open_store(torch_rows) as expected, open_store(both) as found:
        assert found.metadata.settings == expected.metadata.settings
        rows, theirs = (torch.from_numpy(store["b"].rows[:]) for store in (found, expected))
    assert rows.shape == theirs.shape and relative(rows, theirs) <= 1e-5


def test_nothing_is_reported_to_its_maker(openvino: None) -> None:
    code = (
        "import sys, torch\n"
        "from tspcli.encoders.runtimes import OpenVinoForm\n"
        "form = OpenVinoForm(torch.nn.Conv3d(3, 4, 3))\n"
        "form(torch.zeros(1, 3, 4, 8, 8))\n"
        "assert 'openvino' in sys.modules\n"
        "print('TOLD', [name for name in sys.modules if 'telemetry' in name and 'stub' not in name"
        " and not name.startswith('openvino.tools')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE, check=True
    )
    assert done.stdout.splitlines()[-1] == "TOLD []"


def test_signals_arrive_after_encoders_are_gone(openvino: None) -> None:
    # The fault handler lets signals run on a stack of their own, which OpenVINO replaces.
    code = (
        "import faulthandler, gc, os, signal, torch\n"
        "from tspcli.encoders.runtimes import OpenVinoForm\n"
        "faulthandler.enable()\n"
        "came = []\n"
        "signal.signal(signal.SIGUSR1, lambda *_: came.append(1))\n"
        "forms = [OpenVinoForm(torch.nn.Conv3d(3, 4, 3)) for _ in range(3)]\n"
        "rows = [form(torch.zeros(1, 3, 4, 8, 8)) for form in forms]\n"
        "for _ in range(3):\n"
        "    del forms[0]\n"
        "    gc.collect()\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "print('CAME', len(came))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["CAME 3"]), done.stderr


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DependencyError, match=r"tspcli\[openvino\].*--runtime torch"):
        load_encoder("tiny", device="cpu", runtime="openvino")


@pytest.mark.parametrize(
    ("choices", "named"),
    [
        ({"runtime": "abacus"}, "no runtime 'abacus'"),
        ({"runtime": "openvino", "device": "cuda:1"}, "not on cuda:1"),
        ({"runtime": "openvino", "precision": "bf16"}, "not in bf16"),
    ],
)
def test_what_it_cannot_do_is_refused(choices: dict[str, str], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        load_encoder("tiny", **choices)


def test_clips_that_overlap_come_one_by_one(openvino: None) -> None:
    from tspcli.sampling import Sampling

    assert load_encoder("tiny", device="cpu").supports_series(Sampling(stride=1))
    assert not load_encoder("tiny", device="cpu", runtime="openvino").supports_series(
        Sampling(stride=1)
    )


def test_it_is_what_runs_whatever_form_torch_would_have(openvino: None) -> None:
    encoder = load_encoder("tiny", device="cpu", runtime="openvino", fast=False)
    assert isinstance(encoder.form, OpenVinoForm)


def test_a_backbone_that_it_cannot_run_is_named(openvino: None) -> None:
    class Bending(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((1, 2, 3)) if x.sum() > 0 else x.amax((1, 2, 3))

    with pytest.raises(UsageError, match=r"cannot run this backbone: .*--runtime torch"):
        OpenVinoForm(Bending())(clips(2, 4, 8))
