"""`classes` by list and file, `without`, `halves`: which classes are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from curate.errors import DataError, MissingError, RecipeError
from curate.rows.relation import Rows
from curate.wordnet import nouns, tree
from curate.wordnet.lists import wnids_of

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]
Listed = Callable[[Sequence[str]], Rows]


@pytest.fixture(scope="module")
def imagenet() -> tuple[str, ...]:
    return wnids_of("imagenet-1k")


def ids(rows: Rows) -> list[str]:
    return [c.id for c in rows.classes]


@pytest.mark.parametrize(("parents", "left"), [("all", 771), ("huh2016", 771), ("first", 779)])
def test_imagenet_without_voc_has_771_classes(
    listed: Listed, apply: Apply, content: Content, imagenet: tuple[str, ...], parents: str, left: int
) -> None:
    after = apply("without", listed(imagenet), preset="voc", parents=parents)
    assert len(after.classes) == left == len(content(after))
    if parents == "all":
        assert ids(apply("without", listed(imagenet), preset="voc")) == ids(after)
    assert "n02123045" not in ids(after)  # tabby is a cat
    assert "n02129165" in ids(after)  # lion is a big cat, which WordNet does not put below VOC's cat


def test_without_drops_what_is_below_and_leaves_the_rest_alone(
    source: Source, apply: Apply, content: Content
) -> None:
    rows = source()
    rows.con.execute("UPDATE source SET label = NULL WHERE label = 0")
    after = apply("without", rows, below=["animal.n.01"])
    assert ids(after) == ["n02958343", "n03126707"]
    keys = {row["key"] for row in content(after)}
    assert keys == {row["key"] for row in content(rows) if row["label"] in (None, 4, 5)}
    noisy = apply("noise", source(), rate=0.5)
    after = apply("without", noisy, below="animal.n.01")
    assert any(row["clean_label"] is None for row in content(after))


def test_classes_that_are_no_synsets_stay(listed: Listed, apply: Apply) -> None:
    assert ids(apply("without", listed(["my class", "n02084071"]), below="dog.n.01")) == ["my class"]


def test_following_one_parent_leaves_classes_below_another(listed: Listed, apply: Apply) -> None:
    wnid = next(w for w in wnids_of("imagenet-1k") if len(nouns().parents(w)) > 1)
    first, second, *_ = nouns().parents(wnid)
    rows = listed([wnid, first, second, "n00021939"])
    kept = {p: ids(apply("without", rows, below=second, parents=p)) for p in ("all", "first")}
    assert kept["all"] == [first, "n00021939"]
    assert kept["first"] == [wnid, first, "n00021939"]
    under = {p: ids(apply("classes", rows, below=second, parents=p)) for p in ("all", "first")}
    assert under == {"all": [wnid, second], "first": [second]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"below": "plant.n.02"}, "none of the 6 classes is below n00017222 \\(plant\\)"),
        ({"below": "n00001740"}, "all 6 classes are below n00001740 \\(entity\\)"),
        ({}, "without takes one of `below` and `preset`"),
        ({"below": "dog.n.01", "preset": "voc"}, "not below and preset"),
        ({"below": "unicron"}, "no noun 'unicron'"),
        ({"below": "terrier", "parents": "breeds"}, "the hierarchy 'breeds' does not have"),
    ],
)
def test_without_nothing_or_everything_is_refused(
    source: Source, apply: Apply, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        apply("without", source(), **arguments)


def test_minimal_halves_of_imagenet_have_522_and_478_classes(
    listed: Listed, apply: Apply, content: Content, imagenet: tuple[str, ...]
) -> None:
    a, b = (apply("halves", listed(imagenet), split="minimal", half=half) for half in "ab")
    assert (len(a.classes), len(b.classes)) == (522, 478)
    assert sorted(ids(a) + ids(b)) == sorted(imagenet)
    # The paper: they share no node from depth 4 on.
    deep = [{node for w in ids(half) for node in tree("huh2016").path(w)[:-4]} for half in (a, b)]
    assert all(deep)
    assert not deep[0] & deep[1]
    over_first = apply("halves", listed(imagenet), split="minimal", half="a", parents="first")
    assert len(over_first.classes) == 516
    animals = apply("halves", listed(imagenet), split="minimal", half="a", top="animal.n.01")
    assert len(animals.classes) == 398


def test_random_halves_complement_each_other(listed: Listed, apply: Apply, imagenet: tuple[str, ...]) -> None:
    def parts(**options: Any) -> tuple[list[str], list[str]]:
        a, b = (apply("halves", listed(imagenet), split="random", half=h, **options) for h in "ab")
        return ids(a), ids(b)

    a, b = parts()
    assert (len(a), len(b)) == (500, 500)
    assert sorted(a + b) == sorted(imagenet)
    paper = parts(classes=522)
    assert [len(part) for part in paper] == [522, 478]
    assert set(a) < set(paper[0])
    assert set(parts(seed=6)[0]) != set(a)


def test_of_an_odd_number_the_first_half_has_one_more(listed: Listed, apply: Apply) -> None:
    rows = listed(["x", "y", "z"])
    sizes = [len(apply("halves", rows, split="random", half=half).classes) for half in "ab"]
    assert sizes == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "random", "half": "a", "classes": 7}, "7 classes wanted of 6"),
        ({"split": "random", "half": "b", "classes": 6}, "half b has none of the 6 classes"),
        ({"split": "minimal", "half": "a", "top": "plant.n.02"}, "half a has none"),
        ({"split": "minimal", "half": "a", "classes": 3}, "'classes' does not belong to `split: minimal`"),
        ({"split": "random", "half": "a", "top": "dog.n.01"}, "'top' does not belong to `split: random`"),
        ({"split": "random", "half": "a", "parents": "first"}, "'parents' does not belong"),
    ],
)
def test_wrong_halves_are_refused(
    source: Source, apply: Apply, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        apply("halves", source(), **arguments)


def test_minimal_halves_need_synsets(listed: Listed, apply: Apply) -> None:
    with pytest.raises(RecipeError, match=r"1 of 2 classes are no synsets of WordNet \(such as my class\)"):
        apply("halves", listed(["my class", "n02084071"]), split="minimal", half="b")


def test_a_named_list_keeps_its_classes_of_the_source(
    listed: Listed, apply: Apply, imagenet: tuple[str, ...]
) -> None:
    rows = listed(wnids_of("imagenet-21k"))
    assert set(ids(apply("classes", rows, list="imagenet-21k-p"))) == set(wnids_of("imagenet-21k-p"))
    kept = apply("classes", rows, list="imagenet-1k", missing="drop")
    assert set(imagenet) - set(ids(kept)) == {"n04399382"}  # teddy, which the release of autumn 2011 lacks
    hundred = apply("classes", kept, number=100, seed=3)
    assert len(hundred.classes) == 100
    assert set(ids(hundred)) < set(imagenet)


def test_a_list_over_a_source_that_lacks_classes(source: Source, apply: Apply) -> None:
    with pytest.raises(RecipeError, match=r"'imagenet-1k': 997 of 1,000 classes .* \(such as n01443537"):
        apply("classes", source(), list="imagenet-1k")
    assert ids(apply("classes", source(), list="imagenet-1k", missing="drop")) == [
        *("n01440764", "n02012849", "n03126707")
    ]
    assert ids(apply("classes", source(), names=["unicorn", "dog"], missing="drop")) == ["n02084071"]
    with pytest.raises(RecipeError, match="none of 1 classes is in the source"):
        apply("classes", source(), names=["unicorn"], missing="drop")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("kept.txt", "n02084071\n\ncat\n"),
        ("kept.csv", "wnid,superclass\nn02084071,pet\ncat,pet\n"),
        ("kept.csv", "class\ndog\nn02121620\n"),
        ("KEPT.CSV", "\ufeffclass\r\ndog\r\ncat\r\n"),
    ],
)
def test_a_file_names_classes(source: Source, apply: Apply, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert ids(apply("classes", source(), file=str(tmp_path / name))) == ["n02084071", "n02121620"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"n02084071,pet\ncat,pet\n", "line 1: 'n02084071' stands where a CSV has its header"),
        ("a.txt", b"n02084071\nunicorn\n", r"1 of 2 classes are not in the source \(such as unicorn\)"),
        ("a.txt", b"n02084071\n\xff\n", "line 2: not UTF-8"),
        ("a.txt", b"", "none of 0 classes"),
    ],
)
def test_a_bad_file_of_classes_is_refused(
    source: Source, apply: Apply, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((RecipeError, DataError), match=message):
        apply("classes", source(), file=str(tmp_path / name))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"list": "imagenet-2k"}, "no list of classes 'imagenet-2k'"),
        ({"number": 3, "parents": "first"}, "'parents' does not belong to `number`"),
        ({"below": "dog.n.01", "missing": "drop"}, "'missing' does not belong to `below`"),
        ({"list": "imagenet-1k", "number": 3}, "not number and list"),
    ],
)
def test_options_of_another_choice_are_refused(
    source: Source, apply: Apply, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        apply("classes", source(), **arguments)


def test_a_list_that_timm_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.wordnet.lists.LISTS", {"imagenet-1k": ("imagenet_a_synsets.txt", "0" * 12)})
    with pytest.raises(MissingError, match="200 classes, which are not those of 'imagenet-1k'"):
        wnids_of.__wrapped__("imagenet-1k")
