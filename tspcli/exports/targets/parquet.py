"""One Parquet table of all rows with their seconds, for data frames and queries."""

# ruff: noqa: D102 (the methods are described in target.py)
from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tspcli.errors import ExportError
from tspcli.exports.export_options import ExportOptions
from tspcli.exports.export_plan import Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Array, Target, Usage, Writer

FILE = "features.parquet"
_COLUMNS = ("video", "row", "start_s", "center_s", "end_s", "features")


class _TableWriter(Writer):
    """One row group per video."""

    def __init__(self, path: Path, plan: ExportPlan) -> None:
        self._arrow, parquet = _pyarrow()
        arrow = self._arrow
        number = arrow.float16() if plan.options.dtype == "float16" else arrow.float32()
        types = (
            *(arrow.string(), arrow.int32(), arrow.float64(), arrow.float64(), arrow.float64()),
            arrow.list_(number, plan.width),
        )
        self._schema = arrow.schema(list(zip(_COLUMNS, types, strict=True)))
        self._file = parquet.ParquetWriter(path, self._schema)

    def write(self, video: PlannedVideo, rows: Array) -> None:
        arrow, source = self._arrow, video.source
        if source.own_times_s is not None:
            starts, ends = source.own_times_s
        else:
            half_s = float(source.sampling.clip_duration_s) / 2
            starts, ends = source.centers_s - half_s, source.centers_s + half_s
        values = arrow.array(rows.reshape(-1), type=self._schema.field("features").type.value_type)
        columns = (
            [video.name] * len(rows),
            np.arange(len(rows), dtype=np.int32),
            *(np.asarray(times, np.float64) for times in (starts, source.centers_s, ends)),
            arrow.FixedSizeListArray.from_arrays(values, rows.shape[1]),
        )
        table = arrow.table(dict(zip(_COLUMNS, columns, strict=True)), schema=self._schema)
        self._file.write_table(table, row_group_size=max(1, len(rows)))

    def close(self) -> None:
        self._file.close()


class ParquetTable(Target):
    """No reader in particular: a line for each row, with start, centre and end in seconds."""

    trains = False

    def is_file(self, options: ExportOptions, out: Path) -> bool:
        return out.suffix == ".parquet"

    def check(self, plan: ExportPlan) -> None:
        _pyarrow()

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        return _TableWriter(main if self.is_file(plan.options, plan.out) else main / FILE, plan)

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        return {"table": Clock(video.shown_s, video.source.centers_s)}

    def usage(self, plan: ExportPlan) -> Usage:
        path = plan.out if self.is_file(plan.options, plan.out) else plan.out / FILE
        return Usage(
            f"Columns: {', '.join(_COLUMNS)}. One row group holds one video, so that a filter on "
            "video reads no other:\n"
            f"  pandas.read_parquet({str(path)!r}, filters=[('video', '==', NAME)])"
        )


def _pyarrow() -> tuple[Any, Any]:
    """The modules ``pyarrow`` and ``pyarrow.parquet``.

    Raises:
        ExportError: If they are not installed.
    """
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ExportError(
            "Parquet files need pyarrow, which is not installed.",
            remedy="pip install 'tspcli[parquet]'",
            option="--to",
        ) from None
