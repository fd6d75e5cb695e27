"""Keys: every name has one, and no two names share it."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from curate.rows.manifest import KEY_LIMIT
from curate.sources._index_cache import class_list, make_key

# File names are bytes to the system; those that are not UTF-8 come as lone surrogates.
NAMES = st.one_of(
    st.text(min_size=1),
    st.text("_x.aAF09/ -", min_size=1),
    st.binary(min_size=1).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
).filter(lambda name: not any("\ud800" <= c < "\udc80" or "\udcff" < c <= "\udfff" for c in name))


@given(NAMES)
@example("a" * 300)
@example("ü" * 90)
def test_key_is_plain_and_short(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_/-]+", make_key(name))
    assert len(make_key(name)) <= KEY_LIMIT


@given(NAMES, NAMES)
@example("a.b", "a_x2Eb")
@example("_x2E", ".")
@example("_x5Fx2E", "_x2E")
@example("__x2E", "_.")
@example("é", "e\u0301")
@example("n" * 250 + "a", "n" * 250 + "b")
@example("a b" * 80, "a_x20b" * 80)
def test_different_names_have_different_keys(first: str, second: str) -> None:
    assert (make_key(first) == make_key(second)) == (first == second)


@given(st.lists(NAMES, max_size=40, unique=True), st.sampled_from(["n", "n_x", ".", "n."]))
def test_related_names_have_different_keys(names: list[str], prefix: str) -> None:
    keys = {make_key(prefix + name) for name in names}
    assert len(keys) == len(names)


@given(st.from_regex(r"[A-Za-z0-9/-]+(_[a-z0-9]+)?", fullmatch=True).filter(lambda n: len(n) <= KEY_LIMIT))
@example("n01440764/n01440764_10026")
def test_plain_name_is_its_own_key(name: str) -> None:
    assert make_key(name) == name


def test_a_key_can_be_read_back() -> None:
    assert make_key("cats & dogs/IMG 1.final") == "cats_x20_x26_x20dogs/IMG_x201_x2Efinal"
    assert make_key("ü") == "_xC3_xBC"


FOLDERS = ["n01440764", "tench", "tench (folder)", "n02012849", "crane", "x"]


@given(st.lists(st.sampled_from(FOLDERS), unique=True))
def test_classes_of_different_folders_have_different_names(folders: list[str]) -> None:
    names = [c.name for c in class_list(folders)]
    assert len(set(names)) == len(folders)
