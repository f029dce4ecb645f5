"""The attributes: documented as they are, and through a file as they were."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from tspcli.sampling import Sampling
from tspcli.store.hdf5_values import hdf5_value, plain
from tspcli.store.schema import (
    FileAttributes,
    VideoAttributes,
    exported_attributes,
    gvf_attributes,
    sampling_attributes,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "store.md"


def test_the_document_lists_every_attribute_with_its_meaning() -> None:
    tables = DOCUMENT.read_text().split("## Attributes of ")[1:3]
    for text, attributes in zip(tables, (VideoAttributes, FileAttributes), strict=True):
        rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text.split("\n## ")[0], flags=re.M)
        assert [name for name, _ in rows] == list(attributes.known())
        for name, row in rows:
            about = attributes.known()[name]
            assert about.meaning in row and about.unit in row
            if attributes is VideoAttributes:
                flags = [cell.strip() == "yes" for cell in row.split("|")[1:]]
                assert flags == [about.exported, about.kept_in_gvf], name


def test_typed_attributes_come_back_as_they_were() -> None:
    known = VideoAttributes(
        video="v.mp4",
        source_bytes=3,
        duration_s=1.5,
        warnings=("one", "two"),
        **sampling_attributes(Sampling()),
    )
    assert VideoAttributes.from_hdf5({**known.to_hdf5(), "other": "x"}) == known
    assert known.sampling == Sampling()
    assert VideoAttributes().sampling is None
    with pytest.raises(ValueError, match="long"):
        VideoAttributes.from_hdf5({"duration_s": "long"})


def test_what_exports_and_global_features_take_over() -> None:
    attributes = {"checksum": "x", "decoder": "pyav", "video": "v.mp4", "of another program": 1}
    assert exported_attributes(attributes).keys() == {"decoder", "video", "of another program"}
    assert gvf_attributes(attributes).keys() == {"decoder"}


@pytest.mark.parametrize(
    "value", ["", "text", "ü 漢字", "v_\udcff", "x" * 100_000, 3, 1.5, True, ["a", "bc"], [1, 2]]
)
def test_any_value_comes_back_from_a_file(tmp_path: Path, value: object) -> None:
    with h5py.File(tmp_path / "f.h5", "w", libver=("v110", "v110")) as file:
        file.attrs["a"] = hdf5_value(value)
        assert plain(file.attrs["a"]) == value
        kind = file.attrs.get_id("a").get_type()
        assert not isinstance(kind, h5py.h5t.TypeStringID) or not kind.is_variable_str()
    assert plain(np.float32(0.5)) == 0.5
