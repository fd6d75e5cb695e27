"""`relabel` by cuts through WordNet, against the label sets that were released."""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from curate.errors import RecipeError
from curate.rows.relation import Rows
from curate.wordnet import cuts, digest, nouns, tree
from curate.wordnet.lists import wnids_of
from curate.wordnet.tables import table_path

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]
Listed = Callable[[Sequence[str]], Rows]
# Sizes of the 21 label sets that Huh et al. released.
BOTTOM_UP = [999, 977, 918, 877, 820, 753, 694, 596, 486, 345, 206, 79, 36, 17, 9, 5, 2, 1]
TOP_DOWN = [127, 10, 2]
PUBLISHED = ["bottom_up_17", "bottom_up_486", "bottom_up_79", "bottom_up_918", "top_down_10", "top_down_127"]


@pytest.fixture(scope="module")
def imagenet() -> tuple[str, ...]:
    return wnids_of("imagenet-1k")


def coarse_of(before: Rows, after: Rows) -> dict[str, str | None]:
    """Return old class → new class, by the `fine` that the new classes remember."""
    fine = {f: c.wnid for c in after.classes for f in c.fine or (c.id,)}
    assert set(fine) == {c.id for c in before.classes}
    return fine


def test_the_packaged_list_of_imagenet_is_that_of_the_shared_data(
    shared: Path, imagenet: tuple[str, ...]
) -> None:
    with (shared / "data/metadata/imagenet1k_classes.csv").open() as lines:
        assert [row["wnid"] for row in csv.DictReader(lines)] == list(imagenet)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_label_set_is_reproduced_class_for_class(
    shared: Path, listed: Listed, apply: Apply, imagenet: tuple[str, ...], name: str
) -> None:
    cut, _, size = name.rpartition("_")
    with (shared / f"data/metadata/wordnet_cuts/{name}.csv").open() as lines:
        published = {row["wnid"]: row["coarse_wnid"] for row in csv.DictReader(lines)}
    assert len(published) == 1000
    rows = listed(imagenet)
    after = apply("relabel", rows, cut=cut, classes=int(size), parents="huh2016")
    assert coarse_of(rows, after) == published


def test_all_21_published_sizes_are_met(imagenet: tuple[str, ...]) -> None:
    hierarchy = tree("huh2016")
    found = {
        "bottom_up": cuts.sizes(cuts.bottom_up(imagenet, hierarchy)),
        "top_down": cuts.sizes(cuts.top_down(imagenet, hierarchy)),
    }
    print(f"\nsizes under huh2016: {found}")  # seen with -s
    assert found == {"bottom_up": BOTTOM_UP, "top_down": TOP_DOWN}
    assert sum(map(len, found.values())) == 21


@pytest.mark.parametrize(
    ("arguments", "classes"),
    [
        ({"cut": "bottom_up", "level": 1}, 999),
        ({"cut": "bottom_up", "level": 9}, 486),
        ({"cut": "bottom_up", "classes": 79}, 79),
        ({"cut": "top_down", "round": 1}, 127),
        ({"cut": "top_down", "classes": 10}, 10),
        ({"cut": "depth", "depth": 4}, 17),  # one a node at depth 4: artifact alone holds 522
    ],
)
def test_relabelled_rows_follow_their_classes(
    listed: Listed,
    apply: Apply,
    content: Content,
    imagenet: tuple[str, ...],
    arguments: dict[str, Any],
    classes: int,
) -> None:
    rows = listed(imagenet)
    after = apply("relabel", rows, parents="huh2016", **arguments)
    assert len(after.classes) == classes == len({c.name for c in after.classes})
    coarse = coarse_of(rows, after)
    labels = {row["key"]: row["label"] for row in content(rows)}
    for row in content(after):
        assert after.classes[row["label"]].wnid == coarse[imagenet[labels[row["key"]]]]
    if arguments.get("depth") == 4:
        assert Counter(coarse.values()).most_common(1) == [("n00021939", 522)]


def test_first_parents_give_other_sets_than_those_published(imagenet: tuple[str, ...]) -> None:
    sizes = cuts.sizes(cuts.bottom_up(imagenet, tree("first")))
    assert len(sizes) == len(BOTTOM_UP)
    assert sizes[:4] == BOTTOM_UP[:4]
    assert sizes != BOTTOM_UP


def test_every_step_of_a_tree_is_an_edge_of_wordnet() -> None:
    hierarchy = tree("huh2016")
    differ = 0
    for wnid in nouns():
        parents = nouns().parents(wnid)
        assert tree("first").parent(wnid) == (parents[0] if parents else None)
        differ += hierarchy.parent(wnid) != tree("first").parent(wnid)
        assert not parents or hierarchy.parent(wnid) in parents
    assert differ == 29  # of the 73 synsets with several parents that the published sets decide


def test_paths_lead_from_a_node_to_the_root() -> None:
    path = tree("breeds").path("n02123045")  # tabby, five steps below entity's child in their tree
    assert path[0] == "n02123045"
    assert path[-1] == "n00001740"
    assert tree("breeds").depth("n02123045") == len(path) - 1
    assert all(path[i] in tree("breeds").children(path[i + 1]) for i in range(len(path) - 1))
    assert "n02123045" in tree("breeds").below([path[2]])
    with pytest.raises(RecipeError, match=r"1 synset that the hierarchy 'breeds' does not have .*n02084732"):
        tree("breeds").path("n02084732")


def test_a_class_that_lies_above_another_is_merged_on_its_own_way() -> None:
    # Terrier (depth d), a kind of terrier (d + 1) and dog (d - 2).
    terrier, below_terrier, dog = "n02092468", "n02093056", "n02084071"
    depths = {wnid: tree("huh2016").depth(wnid) for wnid in (terrier, below_terrier, dog)}
    assert depths[below_terrier] > depths[terrier] > depths[dog]
    levels = cuts.bottom_up(depths, tree("huh2016"))
    assert len(levels) == max(depths.values())
    assert levels[depths[below_terrier] - depths[dog] - 1] == dict.fromkeys(depths, dog)
    # In the first round all go up one, and what dog becomes is above the others.
    assert set(cuts.top_down(depths, tree("huh2016"))[0].values()) == {tree("huh2016").parent(dog)}


def test_a_subset_starts_at_its_own_deepest_class(imagenet: tuple[str, ...]) -> None:
    hierarchy = tree("huh2016")
    shallow = [wnid for wnid in imagenet if hierarchy.depth(wnid) <= 12]
    assert 0 < len(shallow) < 1000
    levels = cuts.bottom_up(shallow, hierarchy)
    assert len(levels) == 12
    assert levels[0] == cuts.depth(shallow, hierarchy, 11)


@pytest.mark.parametrize(
    ("parents", "expected"),
    [
        # A police van is a kind of van, then of truck and of motor vehicle.
        ("first", "n04490091"),
        ("all", "n04490091"),
    ],
)
def test_classes_go_to_the_nearest_given_synset(
    listed: Listed, apply: Apply, parents: str, expected: str
) -> None:
    rows = listed(["n03977966", "n02084071", "n02123045"])
    given = ["truck.n.01", "motor_vehicle.n.01", "dog.n.01", "animal.n.01"]
    after = apply("relabel", rows, cut="synsets", synsets=given, parents=parents)
    assert [c.wnid for c in after.classes] == [expected, "n02084071", "n00015388"]
    assert [c.fine for c in after.classes] == [("n03977966",), (), ("n02123045",)]


def test_over_all_parents_fewer_steps_win_and_then_the_smaller_wnid() -> None:
    person = nouns().ancestors("n00007846")
    pair = [wnid for wnid, far in person.items() if far == 1]
    assert sorted(pair) == ["n00004475", "n00007347"]  # organism, causal agent
    assert cuts.synsets(["n00007846"], pair, "all") == {"n00007846": "n00004475"}
    assert cuts.synsets(["n00007846"], ["n00007347", "n00004258"], "all") == {"n00007846": "n00007347"}
    assert cuts.synsets(["n00007846"], pair, "huh2016") == {"n00007846": "n00007347"}  # along its one parent


def test_classes_under_no_given_synset_are_others(listed: Listed, apply: Apply) -> None:
    rows = listed(["n02084071", "n02958343", "my class"][:2])
    with pytest.raises(RecipeError, match=r"`synsets` leaves out 1 of 2 classes \(such as n02958343\)"):
        apply("relabel", rows, cut="synsets", synsets="animal.n.01")
    kept = apply("relabel", rows, cut="synsets", synsets="animal.n.01", others="keep")
    assert [c.wnid for c in kept.classes] == ["n00015388", "n02958343"]
    dropped = apply("relabel", rows, cut="synsets", synsets="animal.n.01", others="drop")
    assert [c.wnid for c in dropped.classes] == ["n00015388"]
    with pytest.raises(RecipeError, match="leaves out all 2"):
        apply("relabel", rows, cut="synsets", synsets="plant.n.02", others="drop")


def test_a_cut_of_breeds_names_its_dummies(listed: Listed, apply: Apply, imagenet: tuple[str, ...]) -> None:
    kept = apply("classes", listed(imagenet), below="n00001740", parents="breeds")
    assert len(kept.classes) == 890
    after = apply("relabel", kept, cut="depth", depth=2, parents="breeds")
    # Level 2 as the notebook of BREEDS prints it, but for WordNet's names.
    assert {c.name for c in after.classes} == {
        *(
            "plant",
            "person",
            "structure, place",
            "fungus",
            "furnishing",
            "conveyance",
            "paraphernalia",
            "food",
        ),
        *("clothing", "animal"),
    }
    with pytest.raises(RecipeError, match="110 of 1,000 classes are no synsets of the hierarchy of BREEDS"):
        apply("relabel", listed(imagenet), cut="depth", depth=2, parents="breeds")


@pytest.mark.parametrize("cut", [{"cut": "bottom_up", "level": 4}, {"cut": "top_down", "round": 1}])
def test_21_thousand_classes_take_no_time(listed: Listed, apply: Apply, cut: dict[str, Any]) -> None:
    rows = listed(wnids_of("imagenet-21k"))
    assert len(rows.classes) == 21_841
    apply("relabel", rows, **cut)
    started = time.perf_counter()
    after = apply("relabel", rows, **cut)
    assert len(after.classes) < 21_841
    assert time.perf_counter() - started < 60  # 0.4 s on two cores; quadratic would be minutes


WRONG = [
    (
        {"cut": "bottom_up", "level": 99},
        r"no level 99: these classes have 18",
        "levels 1 to 18 leave 999, 977",
    ),
    ({"cut": "bottom_up", "classes": 400}, "no level has 400 classes", "level 9 has 486, level 10 has 345"),
    ({"cut": "bottom_up", "classes": 2000}, "no level has 2000 classes", "level 1 has 999"),
    ({"cut": "top_down", "round": 4}, "no round 4: these classes have 3", "leave 127, 10, 2"),
    ({"cut": "top_down", "classes": 128}, "no round has 128 classes", "round 1 has 127"),
    ({"cut": "depth", "depth": 40}, "no class is at depth 40", "the deepest is at 18"),
    ({"cut": "bottom_up"}, "`cut: bottom_up` takes one of `level` and `classes`", ""),
    ({"cut": "bottom_up", "level": 1, "classes": 999}, "not level and classes", ""),
    (
        {"cut": "bottom_up", "level": 1, "round": 1},
        "option 'round' does not belong to `cut: bottom_up`",
        "level",
    ),
    (
        {"cut": "depth", "depth": 3, "others": "drop"},
        "option 'others' does not belong to `cut: depth`",
        "depth",
    ),
    ({"cut": "top_down", "round": 1, "parents": "all"}, "`parents: all` does not belong", "huh2016"),
    ({"map": "cifar100-20", "level": 1}, "option 'level' does not belong to `map`", "others"),
    ({"map": {"a": "b"}, "cut": "depth"}, "takes one of `map`, `file` and `cut`, not map and cut", ""),
    ({"map": "cifar10-20"}, "no map 'cifar10-20'", "did you mean 'cifar100-20'"),
    ({"cut": "synsets", "synsets": []}, "`synsets` is empty", "name at least one"),
    ({"cut": "synsets", "synsets": ["unicron"]}, "no noun 'unicron'", "unicorn"),
    ({"cut": "synsets", "synsets": ["dummy32"], "parents": "breeds"}, "no noun 'dummy32'", ""),
]


@pytest.mark.parametrize(("arguments", "message", "hint"), WRONG)
def test_wrong_cuts_are_refused_with_what_there_is(
    listed: Listed,
    apply: Apply,
    imagenet: tuple[str, ...],
    arguments: dict[str, Any],
    message: str,
    hint: str,
) -> None:
    parents = {} if "parents" in arguments or "map" in arguments else {"parents": "huh2016"}
    with pytest.raises(RecipeError) as raised:
        apply("relabel", listed(imagenet), **parents, **arguments)
    assert message in raised.value.message or pytest.fail(raised.value.message)
    assert hint in (raised.value.hint or "")


def test_classes_that_are_no_synsets_are_counted(listed: Listed, apply: Apply) -> None:
    with pytest.raises(RecipeError, match=r"2 of 3 classes are no synsets of WordNet \(such as my, other\)"):
        apply("relabel", listed(["my", "n02084071", "other"]), cut="bottom_up", level=1)


def test_digest_of_wordnet_changes_with_every_packaged_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = [*table_path().parent.glob("*.csv"), table_path()]
    tables = sorted(file.name for file in files[:-1])
    assert {"breeds_hierarchy.csv", "huh2016_parents.csv", "voc_synsets.csv"} <= set(tables)
    for file in files:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr("curate.wordnet.tables.table_path", lambda: tmp_path / "nouns.parquet")
    assert digest.__wrapped__() == digest()
    found = set()
    for name in tables:
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(kept.rstrip() + b"x\n")
        found.add(digest.__wrapped__())
        (tmp_path / name).write_bytes(kept)
    assert len(found | {digest()}) == len(tables) + 1


@pytest.mark.parametrize("arguments", [{"cut": "bottom_up", "level": 12}, {"cut": "top_down", "round": 2}])
def test_a_part_of_imagenet_gets_its_part_of_the_published_set(
    listed: Listed, apply: Apply, imagenet: tuple[str, ...], arguments: dict[str, Any]
) -> None:
    whole = listed(imagenet)
    published = coarse_of(whole, apply("relabel", whole, **arguments, parents="huh2016"))
    part = imagenet[100:900:40]
    rows = listed(part)
    after = apply("relabel", rows, **arguments, over="imagenet-1k", parents="huh2016")
    assert coarse_of(rows, after) == {wnid: published[wnid] for wnid in part}


def test_classes_outside_the_list_that_a_cut_is_over_are_refused(listed: Listed, apply: Apply) -> None:
    rows = listed(["n01440764", "n02084071"])  # dog is no ImageNet class, its breeds are
    with pytest.raises(RecipeError, match=r"1 classes are not in imagenet-1k \(such as n02084071\)"):
        apply("relabel", rows, cut="bottom_up", level=1, over="imagenet-1k")
