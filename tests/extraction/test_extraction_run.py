"""Whole runs: what is kept, refused, reported; every video ends as rows or as a named reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.builders.refusals import refused
from tests.builders.videos import make_sound, make_video
from tests.extraction.same import assert_same_store
from tspcli.core.run_dir import one_writer
from tspcli.encoders import Encoder
from tspcli.errors import (
    DependencyError,
    StoreError,
    StoreLockedError,
    StoreMismatchError,
    UsageError,
)
from tspcli.extraction import ExtractConfig, extract
from tspcli.store import open_store
from tspcli.store.edit import remove_videos, rename_video
from tspcli.store.merge import merge_stores


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


def test_videos_of_the_store_that_a_run_does_not_have_are_noted(
    sources: Path, encoder: Encoder, tmp_path: Path
) -> None:
    out = tmp_path / "feats.h5"
    first = extract([sources / "a.mp4", sources / "short.mp4"], out, encoder=encoder)
    assert not first.notes
    shutil.copy(sources / "a.mp4", tmp_path / "renamed.mp4")
    moved = [tmp_path / "renamed.mp4", sources / "short.mp4"]
    others, renamed = extract(moved, out, encoder=encoder).notes
    assert "1 video of" in others and "a" in others
    assert f"tsp store rename {out} a renamed" in renamed
    assert not extract([*moved, sources / "a.mp4"], out, encoder=encoder).notes
    remove_videos(out, ["renamed"])
    rename_video(out, "a", "renamed")
    assert extract(moved, out, encoder=encoder).n_clips == 0, "its rows are kept"


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_is_no_store_is_never_destroyed(
    sources: Path, encoder: Encoder, tmp_path: Path, overwrite: bool
) -> None:
    video = tmp_path / "a.mp4"
    shutil.copy(sources / "a.mp4", video)
    with refused(UsageError, option="--out", path=video):
        extract(video, video, encoder=encoder, overwrite=overwrite)
    assert video.read_bytes() == (sources / "a.mp4").read_bytes()


@pytest.mark.parametrize("name", ["x" * 241, "\u00e9" * 121])
def test_an_output_whose_name_leaves_no_room_is_refused_at_once(
    sources: Path, encoder: Encoder, tmp_path: Path, name: str
) -> None:
    with refused(UsageError, option="--out", path=tmp_path / f"{name}.h5"):
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
    with refused(StoreMismatchError, path=out, differences={"sampling.stride": "16, not 8"}):
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
    with refused(StoreMismatchError, path=out):
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
        one_writer(tmp_path / "f.h5"),
        pytest.raises(StoreLockedError, match=f"process {os.getpid()}"),
    ):
        extract(sources, tmp_path / "f.h5", encoder=encoder)


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
    assert any("is unchanged" in note for note in report.notes)


def test_no_video_at_all_is_an_error(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError):
        extract(tmp_path / "nothing", tmp_path / "f.h5", encoder=encoder)


def test_a_full_disk_loses_nothing(sources: Path, encoder: Encoder, tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48k", "none", str(mount)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        with pytest.raises(StoreError):
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
    # A whole sampling is a store's or a recipe's; the command has an option for each part of it.
    assert {field.name for field in fields(ExtractConfig)} - {"sampling"} <= names


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_decoding_on_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4", n_frames=33)
    with refused(DependencyError, option="--decoder", value="torchcodec-cuda"):
        extract(tmp_path / "v.mp4", tmp_path / "f.h5", weights="tiny", decoder="torchcodec-cuda")
