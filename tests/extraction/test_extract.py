"""Whole runs: what is kept, refused, reported; every video ends as rows or as a named reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.extraction.same import assert_same_store
from tests.videos import make_sound, make_video
from tspcli.encoders import Encoder, load_encoder
from tspcli.errors import (
    DependencyError,
    StoreError,
    StoreLockedError,
    StoreMismatchError,
    TspError,
    UsageError,
)
from tspcli.extraction import ExtractConfig, Observer, encoding, extract
from tspcli.extraction.clips import ClipAssembler
from tspcli.features import open_store
from tspcli.features.lock import lock_store
from tspcli.features.merge import merge_stores
from tspcli.timeline import Sampling


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("random", backbone="tiny", seed=1, device="cpu")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for name, fps, n_frames in [("a", 30, 100), ("b", 25, 80), ("short", 30, 12)]:
        make_video(folder / f"{name}.mp4", fps=fps, n_frames=n_frames, width=96, height=64)
    return folder


def test_attributes_tell_how_rows_were_made(
    sources: Path, encoder: Encoder, tmp_path: Path
) -> None:
    report = extract(sources, tmp_path / "feats.h5", encoder=encoder)
    assert [(v.key, v.status) for v in report.videos] == [
        ("a", "done"), ("b", "done"), ("short", "done"),
    ]  # fmt: skip
    with open_store(tmp_path / "feats.h5") as store:
        assert {key: video.n_rows for key, video in store.items()} == {"a": 3, "b": 3, "short": 1}
        attrs = store["b"].attrs
        assert attrs["video"] == "b.mp4"
        assert attrs["source_fps"] == pytest.approx(25)
        assert attrs["duration_s"] == pytest.approx(3.2)
        assert (attrs["frame_rate"], attrs["clip_length"], attrs["stride"]) == (15, 16, 16)
        assert attrs["padding"] == "none"
        assert attrs["decoder"]
        assert store["short"].attrs["padding"] == "repeat-last-frame"
        assert store["short"].attrs["padded_samples"] == 10
        assert "last frame is repeated" in store["short"].warnings[0]
        assert all(video.verify() for video in store.values())
    written = json.loads((tmp_path / "feats.h5.report.json").read_text())
    assert written["counts"] == {"done": 3, "kept": 0, "skipped": 0, "failed": 0}


def test_a_second_run_computes_nothing_again(
    sources: Path, encoder: Encoder, tmp_path: Path
) -> None:
    out = tmp_path / "feats.h5"
    extract([sources / "a.mp4"], out, encoder=encoder)
    with open_store(out) as store:
        before = store["a"].rows
    report = extract(sources, out, encoder=encoder)
    assert {v.key: v.status for v in report.videos} == {"a": "kept", "b": "done", "short": "done"}
    again = extract(sources, out, encoder=encoder)
    assert again.n_clips == 0 and {v.status for v in again.videos} == {"kept"}
    with open_store(out) as store:
        np.testing.assert_array_equal(store["a"].rows, before)


def test_a_video_that_changed_is_computed_again(
    sources: Path, encoder: Encoder, tmp_path: Path
) -> None:
    video = tmp_path / "a.mp4"
    shutil.copy(sources / "a.mp4", video)
    extract(video, tmp_path / "feats.h5", encoder=encoder)
    shutil.copy(sources / "b.mp4", video)
    report = extract(video, tmp_path / "feats.h5", encoder=encoder)
    assert "computed again" in report.notes[0]
    assert report.videos[0].status == "done"
    extract(sources / "b.mp4", tmp_path / "b.h5", encoder=encoder)
    with open_store(tmp_path / "feats.h5") as store, open_store(tmp_path / "b.h5") as expected:
        np.testing.assert_array_equal(store["a"].rows, expected["b"].rows)


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_is_no_store_is_never_destroyed(
    sources: Path, encoder: Encoder, tmp_path: Path, overwrite: bool
) -> None:
    video = tmp_path / "a.mp4"
    shutil.copy(sources / "a.mp4", video)
    with pytest.raises(UsageError, match="is not an HDF5 file; it stays as it is"):
        extract(video, video, encoder=encoder, overwrite=overwrite)
    assert video.read_bytes() == (sources / "a.mp4").read_bytes()


@pytest.mark.parametrize("name", ["x" * 241, "\u00e9" * 121])
def test_an_output_whose_name_leaves_no_room_is_refused_at_once(
    sources: Path, encoder: Encoder, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="too long"):
        extract(sources, tmp_path / f"{name}.h5", encoder=encoder)
    assert list(tmp_path.iterdir()) == []
    report = extract(sources / "a.mp4", tmp_path / f"{name[:-1]}.h5", encoder=encoder)
    assert not report.failed and report.path.is_file()


def test_other_settings_are_refused_by_name(
    sources: Path, encoder: Encoder, tmp_path: Path
) -> None:
    out = tmp_path / "feats.h5"
    extract(sources / "a.mp4", out, encoder=encoder)
    before = out.read_bytes()
    with pytest.raises(StoreMismatchError, match=r"sampling\.stride: 16, not 8"):
        extract(sources / "b.mp4", out, encoder=encoder, stride=8)
    assert out.read_bytes() == before
    extract(sources / "b.mp4", out, encoder=encoder, stride=8, overwrite=True)
    with open_store(out) as store:
        assert list(store) == ["b"]


def test_a_foreign_store_is_not_touched(sources: Path, encoder: Encoder, tmp_path: Path) -> None:
    import h5py

    out = tmp_path / "official.h5"
    with h5py.File(out, "w") as file:
        file.create_dataset("v", data=np.zeros((2, 4), np.float32))
    with pytest.raises(StoreMismatchError, match="does not tell how"):
        extract(sources, out, encoder=encoder)


@pytest.mark.parametrize(("choice", "status"), [("skip", "skipped"), ("fail", "failed")])
def test_short_videos_as_chosen(
    sources: Path, encoder: Encoder, tmp_path: Path, choice: str, status: str
) -> None:
    report = extract(sources, tmp_path / "f.h5", encoder=encoder, short_videos=choice)
    (short,) = (video for video in report.videos if video.key == "short")
    assert (short.status, short.reason) == (status, "too-short")
    with open_store(tmp_path / "f.h5") as store:
        assert "short" not in store


def test_padding_repeats_the_last_frame(sources: Path, encoder: Encoder, tmp_path: Path) -> None:
    from tests.extraction import reference

    extract(sources / "short.mp4", tmp_path / "f.h5", encoder=encoder)
    _, frames, _ = reference.decode(sources / "short.mp4")
    samples = frames[::2]
    samples += [samples[-1]] * (16 - len(samples))
    with torch.inference_mode():
        expected = encoder.module.features(reference.preprocess(samples)[None]).numpy()
    with open_store(tmp_path / "f.h5") as store:
        assert reference.relative_error(store["short"].rows, expected) < 1e-2


def bad_videos(folder: Path, good: Path) -> dict[str, str]:
    """Every kind of file that cannot become features, and the reason that it must end as."""
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video\n" * 100)
    data = good.read_bytes()
    (folder / "header.mp4").write_bytes(data[: len(data) // 50])
    (folder / "zeros.mp4").write_bytes(b"\0" * 50_000)
    make_sound(folder / "audio.mp4")
    return {
        "empty": "empty",
        "text": "not-a-video",
        "header": "damaged",
        "zeros": "not-a-video",
        "audio": "no-video-stream",
    }


def test_every_bad_video_ends_as_a_named_reason(
    sources: Path, encoder: Encoder, tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(sources / "a.mp4", folder / "good.mp4")
    expected = bad_videos(folder, sources / "a.mp4")
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join([str(path) for path in folder.iterdir()] + ["gone.mp4"]))
    report = extract(listed, tmp_path / "f.h5", encoder=encoder)
    assert {v.key: v.reason for v in report.failed} == {**expected, "gone": "missing"}
    assert all(v.detail for v in report.failed)
    with open_store(tmp_path / "f.h5") as store:
        assert list(store) == ["good"]


@pytest.mark.parametrize("audio", [False, True], ids=["alone", "with sound"])
def test_a_truncated_video_keeps_its_rows_and_says_so(
    encoder: Encoder, tmp_path: Path, audio: bool
) -> None:
    whole = tmp_path / "whole.mkv"
    make_video(whole, fps=30, n_frames=300, width=96, height=64, audio=audio, audio_s=10)
    data = whole.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) // 2])
    (result,) = extract(cut, tmp_path / "f.h5", encoder=encoder).videos
    assert result.status == "done" and 0 < result.n_rows < 9
    assert any(text.startswith("truncated: ") for text in result.warnings), result
    (result,) = extract(cut, tmp_path / "g.h5", encoder=encoder, strict=True).videos
    assert (result.status, result.reason) == ("failed", "damaged")
    assert not result.detail.startswith("damaged")


def test_two_videos_with_one_key_are_refused_before_anything_is_decoded(
    sources: Path, encoder: Encoder, tmp_path: Path
) -> None:
    shutil.copy(sources / "a.mp4", tmp_path / "a.mkv")
    with pytest.raises(UsageError, match=r"a\.mp4.*a\.mkv|a\.mkv.*a\.mp4"):
        extract([sources, tmp_path / "a.mkv"], tmp_path / "f.h5", encoder=encoder)
    assert not (tmp_path / "f.h5").exists()


def test_shards_are_disjoint_and_complete(sources: Path, encoder: Encoder, tmp_path: Path) -> None:
    seen: list[str] = []
    for index in (1, 2):
        report = extract(sources, tmp_path / "f.h5", encoder=encoder, shard=(index, 2))
        seen += [video.key for video in report.videos]
        assert report.out.endswith(f"f.shard-{index}-of-2.h5")
    assert sorted(seen) == ["a", "b", "short"]


def test_shards_merge_to_the_store_of_one_run(
    sources: Path, encoder: Encoder, tmp_path: Path
) -> None:
    """Whatever order the videos are named in; one shard has nothing but a damaged video."""
    videos = tmp_path / "videos"
    shutil.copytree(sources, videos)
    (videos / "broken.mp4").write_bytes(b"no video" * 100_000)
    extract(videos, tmp_path / "whole.h5", encoder=encoder)
    named = sorted(videos.iterdir())
    for index in (1, 2, 3, 4, 5):
        named = named[1:] + named[:1]
        extract(named, tmp_path / "f.h5", encoder=encoder, shard=(index, 5))
    shards = sorted(tmp_path.glob("f.shard-*-of-5.h5"))
    report = merge_stores(shards, tmp_path / "f.h5")
    assert sorted(report.n_videos) == [0, 0, 1, 1, 1]
    assert_same_store(tmp_path / "f.h5", tmp_path / "whole.h5")
    written = json.loads((tmp_path / "f.h5.report.json").read_text())
    assert written["counts"] == {"done": 3, "failed": 1}


def test_a_locked_store_is_refused(sources: Path, encoder: Encoder, tmp_path: Path) -> None:
    with (
        lock_store(tmp_path / "f.h5"),
        pytest.raises(StoreLockedError, match=f"process {os.getpid()}"),
    ):
        extract(sources, tmp_path / "f.h5", encoder=encoder)


@pytest.mark.parametrize(("stride", "method"), [(5, "start"), (2, "encode_series")])
def test_out_of_memory_halves_the_batch(
    sources: Path,
    encoder: Encoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stride: int,
    method: str,
) -> None:
    extract(sources / "a.mp4", tmp_path / "plain.h5", encoder=encoder, stride=stride)
    real = getattr(encoder, method)
    sizes: list[int] = []

    def small_device(clips: torch.Tensor, *sampling: Sampling) -> object:
        # A series of n clips has (n - 1) * stride + 16 frames.
        count = (len(clips) - 16) // stride + 1 if sampling else len(clips)
        if count > 2:
            raise torch.OutOfMemoryError("out of memory")
        sizes.append(count)
        return real(clips, *sampling)

    monkeypatch.setattr(encoder, method, small_device)
    report = extract(
        sources / "a.mp4", tmp_path / "small.h5", encoder=encoder, stride=stride, batch_size=8
    )
    assert max(sizes) == 2 and any("batches of 2" in note for note in report.notes)
    with open_store(tmp_path / "plain.h5") as a, open_store(tmp_path / "small.h5") as b:
        np.testing.assert_allclose(a["a"].rows, b["a"].rows, rtol=1e-4, atol=1e-5)


def test_no_memory_for_gathering_is_a_clear_error(
    sources: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object, **__: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr(ClipAssembler, "finish", exhausted)
        with pytest.raises(TspError, match=r"20\.00 GiB.*--batch-size") as caught:
            extract(sources, tmp_path / "f.h5", encoder=encoder)
        assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    assert len(extract(sources, tmp_path / "f.h5", encoder=encoder).failed) == 0


def test_batches_in_flight_change_nothing(
    sources: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(sources, tmp_path / "at_once.h5", encoder=encoder, stride=8, batch_size=3)
    monkeypatch.setitem(encoding._IN_FLIGHT, "cpu", 2)
    report = extract(sources, tmp_path / "later.h5", encoder=encoder, stride=8, batch_size=3)
    assert len(report.with_status("done")) == 3
    with open_store(tmp_path / "at_once.h5") as a, open_store(tmp_path / "later.h5") as b:
        assert list(a) == list(b)
        for key in a:
            np.testing.assert_array_equal(a[key].rows, b[key].rows)


def test_batches_are_filled_up_where_a_size_of_its_own_costs_more(
    sources: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(sources, tmp_path / "as_they_come.h5", encoder=encoder, stride=8, batch_size=5)
    monkeypatch.setattr(encoding, "_STATIC", {"cpu"})
    sizes: list[int] = []
    real = encoder.start
    monkeypatch.setattr(encoder, "start", lambda clips: (sizes.append(len(clips)), real(clips))[1])
    report = extract(sources, tmp_path / "full.h5", encoder=encoder, stride=8, batch_size=5)
    assert report.n_clips % 5 and set(sizes) == {5}
    with open_store(tmp_path / "as_they_come.h5") as a, open_store(tmp_path / "full.h5") as b:
        for key in a:
            np.testing.assert_allclose(a[key].rows, b[key].rows, rtol=1e-4, atol=1e-5)


def test_a_filled_batch_that_is_too_large_is_halved_to_what_fits(
    sources: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(sources / "short.mp4", tmp_path / "plain.h5", encoder=encoder)
    monkeypatch.setattr(encoding, "_STATIC", {"cpu"})
    sizes: list[int] = []
    real = encoder.start

    def small_device(clips: torch.Tensor) -> object:
        sizes.append(len(clips))
        if len(clips) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return real(clips)

    monkeypatch.setattr(encoder, "start", small_device)
    report = extract(sources / "short.mp4", tmp_path / "f.h5", encoder=encoder, batch_size=8)
    assert report.n_clips == 1 and sizes == [8, 4, 2]
    assert report.notes[-1].endswith("batches of 2.")
    with open_store(tmp_path / "plain.h5") as a, open_store(tmp_path / "f.h5") as b:
        np.testing.assert_allclose(a["short"].rows, b["short"].rows, rtol=1e-4, atol=1e-5)


def test_series_too_short_to_pay_are_clips(
    sources: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(frames: torch.Tensor, sampling: Sampling) -> torch.Tensor:
        raise AssertionError("a series")

    monkeypatch.setattr(encoder, "encode_series", refuse)
    report = extract(sources / "a.mp4", tmp_path / "f.h5", encoder=encoder, stride=1, batch_size=2)
    assert len(report.with_status("done")) == 1


def test_an_interrupted_run_keeps_what_is_finished(
    sources: Path, encoder: Encoder, tmp_path: Path
) -> None:
    class Interrupt(Observer):
        def video_ended(self, result: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(sources, tmp_path / "f.h5", encoder=encoder, observer=Interrupt(), workers=1)
    with pytest.raises(StoreError, match="not assembled yet"):
        open_store(tmp_path / "f.h5")
    report = extract(sources, tmp_path / "f.h5", encoder=encoder)
    assert any(video.status == "kept" for video in report.videos)
    with open_store(tmp_path / "f.h5") as store:
        assert sorted(store) == ["a", "b", "short"]


def test_an_interrupted_run_that_overwrites_goes_on_too(
    sources: Path, encoder: Encoder, tmp_path: Path
) -> None:
    class Interrupt(Observer):
        def video_ended(self, result: object) -> None:
            raise KeyboardInterrupt

    def interrupted(**options: Any) -> None:
        with pytest.raises(KeyboardInterrupt):
            extract(sources, out, encoder=encoder, observer=Interrupt(), workers=1, **options)
        assert list(out.with_name("f.h5.parts").glob("*.part"))

    out = tmp_path / "f.h5"
    extract(sources, out, encoder=encoder, stride=8)
    interrupted(overwrite=True)
    report = extract(sources, out, encoder=encoder, overwrite=True)
    assert report.with_status("kept") and report.with_status("done")
    with open_store(out) as store:
        assert sorted(store) == ["a", "b", "short"]
        assert store.metadata.sampling is not None and store.metadata.sampling.stride == 16
    # What is done is replaced all the same, and so is what another run has begun.
    assert not extract(sources, out, encoder=encoder, overwrite=True).with_status("kept")
    out.unlink()
    interrupted()
    assert not extract(sources, out, encoder=encoder, overwrite=True).with_status("kept")
    interrupted(overwrite=True, stride=8)
    assert not extract(sources, out, encoder=encoder, overwrite=True).with_status("kept")


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"stride": 0},
        {"stride": 10**20},
        {"clip_length": 10**20},
        {"shard": (3, 2)},
        {"frame_rate": "x"},
        {"workers": 0},
        {"ray_address": "head:6379"},
    ],
)
def test_senseless_settings_are_refused(
    sources: Path, encoder: Encoder, tmp_path: Path, options: dict[str, object]
) -> None:
    with pytest.raises(UsageError):
        extract(sources, tmp_path / "f.h5", encoder=encoder, **options)


def test_a_store_that_nothing_replaces_stays_and_the_run_says_so(
    sources: Path, encoder: Encoder, tmp_path: Path
) -> None:
    out = tmp_path / "f.h5"
    extract(sources / "b.mp4", out, encoder=encoder)
    before = out.read_bytes()
    report = extract(tmp_path / "gone.mp4", out, encoder=encoder, overwrite=True)
    assert len(report.failed) == 1
    assert out.read_bytes() == before
    assert any("stays as it was" in note for note in report.notes)


def test_a_seed_for_weights_that_are_not_random_is_refused() -> None:
    with pytest.raises(UsageError, match="--seed 3 says nothing: the weights 'tiny'"):
        load_encoder("tiny", device="cpu", seed=3)


def test_no_video_at_all_is_an_error(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match="no video"):
        extract(tmp_path / "nothing", tmp_path / "f.h5", encoder=encoder)


def test_a_full_disk_loses_nothing(sources: Path, encoder: Encoder, tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48k", "none", str(mount)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        with pytest.raises(StoreError, match="disk is full"):
            extract(sources, mount / "f.h5", encoder=encoder, stride=1)
        subprocess.run(["mount", "-o", "remount,size=4m", str(mount)], check=True)
        extract(sources, mount / "f.h5", encoder=encoder, stride=1)
        extract(sources, tmp_path / "roomy.h5", encoder=encoder, stride=1)
        with open_store(mount / "f.h5") as a, open_store(tmp_path / "roomy.h5") as b:
            for key in b:
                np.testing.assert_allclose(a[key].rows, b[key].rows, rtol=1e-4, atol=1e-5)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_script_needs_no_main_guard(sources: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from tspcli import extract, load_encoder, open_store\n"
        "encoder = load_encoder('random', backbone='tiny', seed=1, device='cpu')\n"
        f"extract({str(sources)!r}, {str(tmp_path / 'f.h5')!r}, encoder=encoder)\n"
        f"with open_store({str(tmp_path / 'f.h5')!r}) as store:\n"
        "    print(store['a'].rows.shape, store['a'].center_s[0])\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(3, ")


def test_config_fields_are_all_options_of_the_command() -> None:
    from dataclasses import fields

    from tspcli.cli.extract import command

    names = {parameter.name for parameter in command.params}
    assert {field.name for field in fields(ExtractConfig)} <= names


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_decoding_on_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4", n_frames=33)
    with pytest.raises(DependencyError, match="needs a GPU"):
        extract(tmp_path / "v.mp4", tmp_path / "f.h5", weights="tiny", decoder="torchcodec-cuda")
