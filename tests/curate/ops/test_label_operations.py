"""`noise`, `relabel`, `caption`: what rows are called."""

from __future__ import annotations

import runpy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from operation_examples import Example

from curate.captions.templates import NAMED, named
from curate.errors import DataError, RecipeError
from curate.rows.relation import Rows

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]
Read = list[dict[str, Any]]
PETS = {"n02084071": "n00015388", "n02121620": "n00015388"}  # dog and cat are animals


def wrong(rows: Read) -> dict[str, int]:
    return {row["key"]: row["label"] for row in rows if row["label"] != row["clean_label"]}


@pytest.mark.parametrize(("rate", "count"), [(0.0, 0), (0.001, 1), (0.2, 120), (0.5, 300), (1.0, 600)])
def test_noise_changes_exactly_the_rate(
    source: Source, apply: Apply, content: Content, rate: float, count: int
) -> None:
    assert len(wrong(content(apply("noise", source(), rate=rate)))) == count


def test_noise_keeps_the_true_label_and_nothing_else_changes(
    source: Source, apply: Apply, content: Content
) -> None:
    before, after = content(source()), content(apply("noise", source(), rate=0.3))
    assert wrong(after)
    assert [row | {"label": row.pop("clean_label")} for row in after] == before


def test_noise_of_a_lower_rate_is_inside_that_of_a_higher_one(
    source: Source, apply: Apply, content: Content
) -> None:
    few, many = (wrong(content(apply("noise", source(), rate=rate))) for rate in (0.1, 0.25))
    assert few
    assert few.items() < many.items()  # the same rows, and the same wrong labels


def test_wrong_labels_are_uniform_over_the_other_classes(
    source: Source, apply: Apply, content: Content
) -> None:
    rows = content(apply("noise", source(12_000), rate=1.0))
    pairs = Counter((row["clean_label"], row["label"]) for row in rows if row["clean_label"] == 1)
    assert set(pairs) == {(1, other) for other in (0, 2, 3, 4, 5)}
    # 2,000 draws over five classes: 400 each, five standard deviations of 17.9
    assert all(abs(count - 400) < 90 for count in pairs.values())


def test_noise_leaves_rows_without_a_label_alone(source: Source, apply: Apply, content: Content) -> None:
    rows = source()
    rows.con.execute("UPDATE source SET label = NULL WHERE label = 0")
    after = content(apply("noise", rows, rate=0.5))
    assert len(wrong(after)) == 225  # half of the 450 labelled ones
    assert all(row["label"] is None for row in after if row["clean_label"] is None)


def test_second_noise_is_refused(source: Source, apply: Apply) -> None:
    with pytest.raises(RecipeError, match="noise already"):
        apply("noise", apply("noise", source(), rate=0.1), rate=0.1)


def test_noise_on_one_class_is_refused(source: Source, apply: Apply) -> None:
    with pytest.raises(RecipeError, match="at least 2 classes"):
        apply("noise", apply("classes", source(), number=1), rate=0.1)


def test_true_labels_follow_a_later_relabel(source: Source, apply: Apply, content: Content) -> None:
    noisy = apply("noise", source(), rate=0.5)
    merged = apply("relabel", noisy, map=PETS, others="keep")
    old = {row["key"]: noisy.classes[row["clean_label"]].wnid for row in content(noisy)}
    for row in content(merged):
        wnid = old[row["key"]]
        assert merged.classes[row["clean_label"]].wnid == PETS.get(wnid or "", wnid)


def test_relabel_merges_and_remembers(source: Source, apply: Apply, content: Content) -> None:
    after = apply("relabel", source(), map=PETS, others="keep")
    assert [c.wnid for c in after.classes] == [
        "n01440764",
        "n02012849",
        "n00015388",
        "n02958343",
        "n03126707",
    ]
    assert after.classes[2].name == "animal"
    assert after.classes[2].fine == ("n02084071", "n02121620")
    assert all(c.fine == () for i, c in enumerate(after.classes) if i != 2)
    old = source()
    names = {row["key"]: old.classes[row["label"]].wnid for row in content(old)}
    for row in content(after):
        wnid = names[row["key"]]
        assert after.classes[row["label"]].wnid == PETS.get(wnid or "", wnid)


def test_relabel_twice_remembers_the_finest(source: Source, apply: Apply) -> None:
    once = apply("relabel", source(), map=PETS, others="keep")
    twice = apply("relabel", once, map={"animal": "thing", "n01440764": "thing"}, others="drop")
    assert [(c.name, c.wnid) for c in twice.classes] == [("thing", None)]
    assert set(twice.classes[0].fine) == {"n01440764", "n02084071", "n02121620"}


def test_relabel_drops_the_rows_of_other_classes(source: Source, apply: Apply, content: Content) -> None:
    after = apply("relabel", source(), map={"dog": "pet", "cat": "pet", "tench": "fish"}, others="drop")
    assert [c.name for c in after.classes] == ["fish", "pet"]
    assert Counter(row["label"] for row in content(after)) == {0: 150, 1: 200}


def test_relabel_refuses_a_map_with_gaps(source: Source, apply: Apply) -> None:
    with pytest.raises(RecipeError, match=r"leaves out 4 of 6 classes \(such as n01440764"):
        apply("relabel", source(), map=PETS)


def test_relabel_reads_a_csv_as_a_map(source: Source, apply: Apply, content: Content, tmp_path: Path) -> None:
    file = tmp_path / "map.csv"
    file.write_text("fine,coarse,note\n" + "".join(f"{old},{new},x\n" for old, new in PETS.items()))
    by_file = apply("relabel", source(), file=str(file), others="keep")
    by_map = apply("relabel", source(), map=PETS, others="keep")
    assert by_file.classes == by_map.classes
    assert content(by_file) == content(by_map)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("old,new\nn02084071\n", "line 2: two columns are needed"),
        ("old,new\ndog,pet\ndog,beast\n", "line 3: 'dog' is mapped twice, to 'pet' and 'beast'"),
        ("old,new\nunicorn,pet\n", "no class 'unicorn'"),
        ("old,new\n", "the map is empty"),
    ],
)
def test_relabel_refuses_a_bad_csv(
    source: Source, apply: Apply, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "map.csv"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecipeError) as raised:
        apply("relabel", source(), file=str(file), others="drop")
    assert raised.match(message)


def test_relabel_names_the_line_of_its_csv_that_is_no_row(
    source: Source, apply: Apply, tmp_path: Path
) -> None:
    for text, message in (("", "is empty"), ("old,new\nn02084071,\xff\n", "line 2: .*not UTF-8"),
                          ('old,new\n"dog"s,pet\n', "line 2: not a row")):  # fmt: skip
        (tmp_path / "map.csv").write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError, match=message):
            apply("relabel", source(), file=str(tmp_path / "map.csv"), others="drop")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_relabel_takes_a_csv_as_excel_writes_it(
    encoding: str, source: Source, apply: Apply, tmp_path: Path
) -> None:
    (tmp_path / "map.csv").write_text("old;new\nn02084071;Tier, groß\n", encoding=encoding)
    made = apply("relabel", source(), file=str(tmp_path / "map.csv"), others="drop")
    assert [c.name for c in made.classes] == ["Tier, groß"]


@pytest.mark.parametrize("arguments", [{}, {"map": PETS, "file": "map.csv"}, {"map": {}}])
def test_relabel_takes_one_map(source: Source, apply: Apply, arguments: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        apply("relabel", source(), **arguments)


def test_one_class_mapped_by_wnid_and_by_name_alike_is_refused(source: Source, apply: Apply) -> None:
    with pytest.raises(RecipeError, match="mapped twice"):
        apply("relabel", source(), map={"n02084071": "pet", "dog": "beast"}, others="drop")


def test_new_classes_of_one_name_are_told_apart(source: Source, apply: Apply) -> None:
    # Both cranes, and a class that is called as WordNet calls the bird.
    targets = {"n02012849": "n02012849", "n03126707": "n03126707", "dog": "crane", "cat": "tench"}
    after = apply("relabel", source(), map=targets, others="keep")
    names = [c.name for c in after.classes]
    assert len(set(names)) == len(names) == 6


@pytest.mark.parametrize(("name", "count"), [("openai-80", 80), ("simple-7", 7)])
def test_named_templates_are_those_of_open_clip(name: str, count: int) -> None:
    [package] = find_spec("open_clip").submodule_search_locations  # type: ignore[union-attr, misc]
    functions = runpy.run_path(f"{package}/zero_shot_metadata.py")[NAMED[name]]  # without torch: 0.1 s, not 8
    texts = named(name)
    assert len(set(texts)) == count
    assert [text.replace("{}", "crane") for text in texts] == [function("crane") for function in functions]


def test_captions_name_the_class_in_the_template_of_the_row(
    source: Source, apply: Apply, content: Content
) -> None:
    texts = named("openai-80")
    after = apply("caption", source(6000), templates="openai-80")
    rows = content(after)
    spoken = {"crane (wading bird)": "crane", "crane (lifting device)": "crane"}
    for row in rows:
        name = after.classes[row["label"]].name
        assert row["caption"] == texts[row["template"]].replace("{}", spoken.get(name, name))
    used = Counter(row["template"] for row in rows)
    # 6,000 draws over 80 templates: 75 each, six standard deviations of 8.6
    assert set(used) == set(range(80))
    assert all(abs(count - 75) < 52 for count in used.values())


def test_captions_follow_wrong_labels(source: Source, apply: Apply, content: Content) -> None:
    noisy = apply("noise", source(), rate=0.5)
    rows = content(apply("caption", noisy, templates="{}"))
    assert wrong(rows)
    assert {row["caption"] for row in rows if row["label"] == 2} == {"dog"}


def test_captions_need_labels(source: Source, apply: Apply) -> None:
    rows = source()
    rows.con.execute("UPDATE source SET label = NULL WHERE label = 0")
    with pytest.raises(DataError, match="150 rows have no label"):
        apply("caption", rows, templates="a {}")


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ("a photo of a dog {}{}", "exactly one"),
        (["a {}", "no name"], "exactly one"),
        ("{name}", "exactly one"),
        ([], "the list is empty"),
        ("openai-81", "did you mean 'openai-80'"),
    ],
)
def test_bad_templates_are_refused(source: Source, apply: Apply, templates: Any, message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        apply("caption", source(), templates=templates)
    assert raised.match(message)


WHOLE = [0, 1, 2, 5, 10, 11]


@pytest.mark.parametrize(
    "values",
    ["{}::BIGINT", "{}::DOUBLE", "{}::FLOAT", "{}::DECIMAL(6,2)", "{}::SMALLINT", "{}::UBIGINT", "'{}'"],
)
def test_numbers_are_classes_in_the_order_of_numbers(
    source: Source, apply: Apply, content: Content, values: str
) -> None:
    cases = " ".join(f"WHEN {i} THEN {values.format(n)}" for i, n in enumerate(WHOLE))
    bare = replace(source(example=Example({}, columns={"y": f"CASE i % 7 {cases} END"})), known=())
    after = apply("label_from", bare, column="y")
    assert [c.name for c in after.classes] == [str(n) for n in WHOLE]
    found = {(r["y"] if r["y"] is None else int(r["y"]), r["label"]) for r in content(after)}
    assert found == {(n, i) for i, n in enumerate(WHOLE)} | {(None, None)}


def test_numbers_below_zero_and_between_are_classes_too(source: Source, apply: Apply) -> None:
    for values, names in (
        ("[-1, 10, 2][i % 3 + 1]", ["-1", "2", "10"]),
        ("[-1.5, 10, 2][i % 3 + 1]::DOUBLE", ["-1.5", "2", "10"]),
        (
            "['010', '2', '10'][i % 3 + 1]",
            ["010", "10", "2"],
        ),  # names, of which one is no number as it stands
        ("['10', 'b', '9'][i % 3 + 1]", ["10", "9", "b"]),
    ):
        bare = replace(source(example=Example({}, columns={"y": values})), known=())
        assert [c.name for c in apply("label_from", bare, column="y").classes] == names


def test_a_number_names_a_class_whatever_its_type(source: Source, apply: Apply, content: Content) -> None:
    rows = source(12, example=Example({}, columns={"y": "[3, 0, NULL][i % 3 + 1]::DOUBLE"}))
    assert [r["label"] for r in content(apply("label_from", rows, column="y"))] == [3, 0, None] * 4
