"""Names of videos meet with and without their prefix, and in any Unicode form."""

from __future__ import annotations

import unicodedata

import pytest

from tspcli.core.video_names import find_name, pair_names
from tspcli.errors import AnnotationError


def test_names_are_paired_one_by_one() -> None:
    assert pair_names(["v_a", "b", "odd"], {"a", "v_b", "odd"}) == {
        "v_a": "a",
        "b": "v_b",
        "odd": "odd",
    }
    # An ID may begin with the prefix, and no name is taken from the one that is equal to it.
    assert pair_names(["v_v_a", "v_b", "b"], {"v_a", "b"}) == {"v_v_a": "v_a", "b": "b"}
    assert pair_names(["v_"], {""}) == {}


NAMES = [
    "caf\u00e9",
    "v_\ud55c\uad6d\uc5b4",
    "\u30ac\u30e9\u30b9 2",
    "\u1e69\u0323",
    "\u212bngstr\u00f6m",
]


@pytest.mark.parametrize("name", NAMES)
def test_equivalent_unicode_forms_are_one_name(name: str) -> None:
    forms = {unicodedata.normalize(form, name) for form in ("NFC", "NFD")} | {name}
    for one in forms:
        for other in forms:
            known = {other, "plain", "\u00fc"}
            assert find_name(one, known) == other
            assert pair_names([one, "plain"], known) == {one: other, "plain": "plain"}
            assert find_name(f"v_{one}", {other}) == other
            assert pair_names([one], {f"v_{other}"}) == {one: f"v_{other}"}


def test_equal_names_are_paired_before_equivalent_ones() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    both = {composed, decomposed}
    assert pair_names(sorted(both), both) == {composed: composed, decomposed: decomposed}
    assert pair_names([decomposed, composed], [composed]) == {composed: composed}
    with pytest.raises(AnnotationError):
        find_name(f"v_{composed}", [f"x{composed}", composed, decomposed])
    with pytest.raises(AnnotationError):
        pair_names([composed, decomposed], {f"v_{composed}"})


def test_letters_that_merely_look_alike_are_two_names() -> None:
    assert find_name("a", {"\u0430"}) is None
    assert find_name("\ufb01", {"fi"}) is None
    assert find_name("caf\u00e9", {"cafe"}) is None
