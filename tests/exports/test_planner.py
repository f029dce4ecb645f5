"""What an export refuses or leaves out before anything is written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.builders.refusals import refused
from tests.exports.conftest import Clip, Export, make_store
from tspcli.errors import ExportError, UsageError
from tspcli.sampling import Sampling


class TestBounds:
    @pytest.mark.parametrize(
        ("options", "option"),
        [
            ({"grid_s": 1e-7}, "--grid-seconds"),
            ({"row_rate": 1e7}, "--row-rate"),
            ({"row_rate": 1e308}, "--row-rate"),
            ({"length": 10**9}, "--length"),
        ],
    )
    def test_rows(
        self, anet_store: Path, export: Export, tmp_path: Path, options: dict, option: str
    ) -> None:
        with refused(ExportError, option=option):
            export(anet_store, "npy", tmp_path / "out", **options)

    @pytest.mark.parametrize("name", ["row_rate", "grid_s"])
    @pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
    def test_numbers(
        self, anet_store: Path, export: Export, tmp_path: Path, name: str, value: float
    ) -> None:
        with refused(UsageError, option=name):
            export(anet_store, "npy", tmp_path / "out", **{name: value})

    def test_channels(self, anet_store: Path, export: Export, tmp_path: Path) -> None:
        with refused(UsageError, option="pad_channels", value=10_000_000):
            export(anet_store, "npy", tmp_path / "out", pad_channels=10_000_000)


class TestSegments:
    """A video of 20 s whose annotations were spoilt."""

    GOOD = (2.0, 5.0)
    SPOILT = (
        [(3.0, 1.0)],
        [(-1.0, 4.0), (-3.0, -2.0)],
        [(25.0, 30.0)],
        [(19.5, 3.5), (-0.5, 1.0), (20.1, 21.0)],
    )

    def written(self, report: object, target: str) -> list[tuple[float, float]]:
        """The segments in the files of a reader."""
        found = []
        for path in map(Path, report.annotations):  # type: ignore[attr-defined]
            if target == "gtad-thumos":
                with open(path, newline="") as file:
                    rows = list(csv.DictReader(file))
                found += [(float(row["start"]), float(row["end"])) for row in rows]
            elif path.suffix == ".json":
                data = json.loads(path.read_text())
                videos = data.get("database", data)
                found += [tuple(a["segment"]) for v in videos.values() for a in v["annotations"]]
        return found

    @pytest.mark.parametrize("spoilt", SPOILT)
    @pytest.mark.parametrize(
        "target", ["actionformer", "opentad", "bmn", "mmaction2", "gtad-anet", "gtad-thumos"]
    )
    def test_spoilt_ones_are_left_out_and_counted(
        self, tmp_path: Path, export: Export, target: str, spoilt: list[tuple[float, float]]
    ) -> None:
        name = "video_validation_1" if target == "gtad-thumos" else "v_a"
        store = make_store(tmp_path / "s.h5", [Clip(name, 20.0, 30.0)], Sampling())
        rows = [f"{name},{start},{end},run,20,train\n" for start, end in (*spoilt, self.GOOD)]
        table = tmp_path / "a.csv"
        table.write_text("video,start,end,label,duration,subset\n" + "".join(rows))
        report = export(store, target, tmp_path / "out", [table])
        assert self.written(report, target) == [self.GOOD]
        notes = [note for note in report.notes if note.startswith("Left out")]
        assert sum(int(note.split(": ")[1].split()[0]) for note in notes) == len(spoilt)

    @pytest.mark.parametrize("spoilt", SPOILT)
    @pytest.mark.parametrize("target", ["bmt", "pdvc"])
    @pytest.mark.parametrize("suffix", [".csv", ".json"])
    def test_spoilt_captions_are_left_out_and_counted(
        self,
        tmp_path: Path,
        export: Export,
        target: str,
        suffix: str,
        spoilt: list[tuple[float, float]],
    ) -> None:
        clips = [Clip("v_a", 20.0, 30.0), Clip("v_b", 20.0, 30.0)]
        store = make_store(tmp_path / "s.h5", clips, Sampling())
        path = tmp_path / f"train{suffix}"
        beyond = (18.0, 40.0)
        given = {"v_a": [*spoilt, self.GOOD, beyond], "v_b": spoilt}
        if suffix == ".json":
            entries = {
                name: {"duration": 20, "timestamps": times, "sentences": ["A dog."] * len(times)}
                for name, times in given.items()
            }
            path.write_text(json.dumps(entries))
        else:
            rows = [
                f"{name}\tA dog.\t{start}\t{end}\t20\ttrain\t0\n"
                for name, times in given.items()
                for start, end in times
            ]
            header = "video_id\tcaption\tstart\tend\tduration\tphase\tidx\n"
            path.write_text(header + "".join(rows))
        report = export(store, target, tmp_path / "out", [path])
        (written,) = map(Path, report.annotations)
        if target == "pdvc":
            found = json.loads(written.read_text())
            assert list(found) == ["v_a"]
            assert found["v_a"]["timestamps"] == [[*self.GOOD], [*beyond]]
            assert len(found["v_a"]["sentences"]) == 2
        else:
            with open(written, newline="") as file:
                lines = list(csv.DictReader(file, delimiter="\t"))
            assert [(float(x["start"]), float(x["end"])) for x in lines] == [self.GOOD, beyond]
            assert [x["idx"] for x in lines] == ["0", "1"]
        notes = [note for note in report.notes if note.startswith("Left out")]
        assert sum(int(note.split(": ")[1].split()[0]) for note in notes) == 2 * len(spoilt)
        assert [note for note in report.notes if note.endswith("end: 1 caption.")]

    @pytest.mark.parametrize("segment", [(4.0, 29.0), (0.0, 21.5), (20.0, 90.0)])
    def test_ones_beyond_the_end_are_kept_and_counted(
        self, tmp_path: Path, export: Export, segment: tuple[float, float]
    ) -> None:
        store = make_store(tmp_path / "s.h5", [Clip("a", 20.0, 30.0)], Sampling())
        table = tmp_path / "a.csv"
        row = "a,{},{},run,20,train\n"
        rows = row.format(*segment) + row.format(4.0, 4.0) + row.format(19, 20.5)
        table.write_text("video,start,end,label,duration,subset\n" + rows)
        report = export(store, "opentad", tmp_path / "out", [table])
        assert self.written(report, "opentad") == [segment, (4.0, 4.0), (19.0, 20.5)]
        assert [note for note in report.notes if note.endswith(": 1 segment.")]
        assert not any(note.startswith("Left out") for note in report.notes)
