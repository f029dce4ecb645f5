"""The messages that users meet first, word for word; other tests look at types and data."""

from __future__ import annotations

from pathlib import Path

import pytest

from tspcli.cli.main import main

MESSAGES = [
    ("extrakt", 2, "Error: There is no command 'extrakt'. Did you mean 'extract'?"),
    (
        "reproduce",
        2,
        "Error: `tsp reproduce` is now `make reproduce`, in a clone of the repository.",
    ),
    ("extract", 2, "Error: Missing option '--videos' / '-v'."),
    (
        "extract --videos missing.mp4 --out f.h5",
        2,
        "Error: Invalid value for '--videos' / '-v': Path 'missing.mp4' does not exist.",
    ),
    (
        "extract --videos empty --out f.h5",
        2,
        (
            "Error: No video found in: empty.\n"
            "Name video files, folders with videos, or .txt lists of paths."
        ),
    ),
    (
        "extract --videos v --out f.h5 --ray-address h:1",
        2,
        "Error: --ray-address needs --engine ray.",
    ),
    (
        "extract --videos v --out f.h5 --shard 5/4",
        2,
        (
            "Error: Invalid value for '--shard': '5/4' is not a shard such as 1/4 (the first "
            "of four)."
        ),
    ),
    (
        "extract --videos v --out f.h5 --workers 0",
        2,
        (
            "Error: Invalid value for '--workers': '0' is neither a positive whole number "
            "nor 'auto'."
        ),
    ),
    (
        "extract --videos v --out f.h5 --weights nonsense",
        1,
        (
            "Error: There are no weights named 'nonsense', and no such file.\n"
            "See `tsp weights list`, or give the path of a checkpoint."
        ),
    ),
    (
        "extract --videos v/a.mp4 --out v/a.mp4",
        2,
        (
            "Error: --out (v/a.mp4) is the same file as --videos (v/a.mp4), which it would "
            "overwrite.\n"
            "Give --out another path."
        ),
    ),
    ("gvf --out g.h5", 2, "Error: Give either --videos or --features."),
    (
        "gvf --features f.h5 --out g.h5 --stride 1",
        2,
        "Error: --features cannot be combined with --stride.",
    ),
    ("inspect missing.h5", 1, ("Error: missing.h5 does not exist.")),
    (
        "inspect notes.txt",
        1,
        (
            "Error: notes.txt is not an HDF5 file, but text.\n"
            "A store is an HDF5 file with one dataset of shape (rows, width) per video at its "
            "root; docs/store.md shows how to write one from arrays."
        ),
    ),
    ("inspect missing.h5 --neighbours 2", 2, "Error: --neighbours needs VIDEO."),
    ("plot missing.h5 v --own-scales", 2, "Error: --own-scales needs --against."),
    ("plot missing.h5 v --thumbnails 3", 2, "Error: --thumbnails needs --video."),
    ("merge missing.h5 --out all.h5", 1, ("Error: missing.h5 does not exist.")),
    ("doctor --repair", 2, "Error: --repair needs FEATS.h5."),
    (
        "weights fetch nonsense",
        1,
        (
            "Error: There are no weights named 'nonsense', and no such file.\n"
            "See `tsp weights list`, or give the path of a checkpoint."
        ),
    ),
    (
        "annotations convert missing.json --out t",
        1,
        "Error: There is no annotation file missing.json.",
    ),
    (
        "annotations check",
        2,
        ("Error: There is no table to check.\nGive --train, --valid or both."),
    ),
    (
        "pretrain --videos v",
        2,
        ("Error: Missing --train, --valid, --out.\nSee `tsp pretrain --help`."),
    ),
    (
        "pretrain --videos v --train t.csv --valid v.csv --out r --momentum 7",
        2,
        ("Error: Invalid value for '--momentum': '7' is not a finite number from 0 to 0.9999."),
    ),
    (
        "pretrain --videos v --train t.csv --valid v.csv --out r --config typo.toml",
        2,
        ("Error: typo.toml has no setting 'epohcs'.\nDid you mean 'epochs'?"),
    ),
    (
        "pretrain --videos v --train t.csv --valid v.csv --out r --recipe nonsense",
        2,
        (
            "Error: There is no recipe 'nonsense'.\n"
            "Use tac-activitynet, tac-thumos14, tsp-activitynet, tsp-thumos14, or a TOML "
            "file."
        ),
    ),
    ("localize predict --run r --out x.json", 2, "Error: Give either --features or --videos."),
    (
        "localize predict --run r --features f.h5 --videos v --out x.json",
        2,
        "Error: Give either --features or --videos.",
    ),
    (
        "localize predict --run r --features f.h5 --subset x --out x.json",
        2,
        "Error: --subset needs --annotations.",
    ),
    (
        "localize train --features f.h5 --annotations a.json --out r --seed -1",
        2,
        ("Error: Invalid value for '--seed': '-1' is not a whole number from 0 to 4294967295."),
    ),
    (
        "localize train --features f.h5 --annotations a.json --out r --valid-subset x",
        2,
        "Error: --valid-subset needs --valid-annotations.",
    ),
    (
        "export missing.h5 --to npy --out o",
        1,
        ("Error: missing.h5 does not exist."),
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    for name in ("v", "empty"):
        (folder / name).mkdir()
    (folder / "v" / "a.mp4").touch()
    (folder / "notes.txt").write_text("hello\n")
    (folder / "typo.toml").write_text("epohcs = 3\n")
    return folder


@pytest.mark.parametrize(("words", "code", "said"), MESSAGES, ids=[m[0] for m in MESSAGES])
def test_message(
    folder: Path,
    words: str,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == code
    shown = capsys.readouterr().err
    assert shown[shown.index("Error: ") :].rstrip("\n") == said
