"""Names of videos meet with and without their prefix."""

from __future__ import annotations

from tspcli.core.video_names import pair_names


def test_names_are_paired_one_by_one() -> None:
    assert pair_names(["v_a", "b", "odd"], {"a", "v_b", "odd"}) == {
        "v_a": "a",
        "b": "v_b",
        "odd": "odd",
    }
    # An ID may begin with the prefix, and no name is taken from the one that is equal to it.
    assert pair_names(["v_v_a", "v_b", "b"], {"v_a", "b"}) == {"v_v_a": "v_a", "b": "b"}
    assert pair_names(["v_"], {""}) == {}
