"""Recipes: what they may say, and what each mistake is told as."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curate.builds.plan import plan
from curate.errors import RecipeError
from curate.recipes.recipe import load

Write = Callable[..., Path]
HEAD = "name: a\nsource: {synthetic: {}}\n"


def nested(levels: int) -> str:
    """Each level an alias ten times: 10**levels values from a few lines."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


BAD_YAML = {
    "not YAML": ("name: [a", "line 1: not plain YAML"),
    "a tab": ("name: a\n\tseed: 1", "line 2: not plain YAML"),
    "an object": ("name: !!python/object/apply:os.system ['true']", "not plain YAML"),
    "a duplicate key": ("name: a\nseed: 1\nseed: 2\n", "line 3: not plain YAML: 'seed' stands twice"),
    "a nested duplicate": (HEAD + "expect: {rows: 1, rows: 2}", "'rows' stands twice"),
    "an alias bomb": (nested(9), "more than 200,000 values"),
    "an alias of itself": ("name: a\nsteps: &s [*s]", "more than 200,000 values"),
    "a merge bomb": ("a: &a {k: 1}\nb: {<<: [*a, *a]}", "not plain YAML"),
    "a deep nest": ("[" * 20_000, "not plain YAML"),
    "a list": ("- name: a", "a recipe is a mapping, got list"),
    "a text": ("hello", "a recipe is a mapping, got str"),
    "nothing": ("", "a recipe is a mapping, got NoneType"),
    "bytes": (b"\xff\xfe\x00", "not plain YAML"),
    "an impossible date": ("name: 2024-13-45", "not plain YAML"),
    "two documents": ("name: a\n---\nname: b", "not plain YAML"),
    "a variable inside braces": ("name: a\nb: {c: ${pool}/x}", r'line 2(?s:.*)hint: .*"\$\{pool\}/x"'),
    "a variable in a list": ("name: '${a}'\nb: [1, ${b}]", r'line 2(?s:.*)hint: .* "\$\{b\}"$'),
    "a quoted variable": ("name: a\nsource: {folder: '${pool}'", "not plain YAML: [^\\n]*$"),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_bad_yaml_is_refused_quickly_with_its_place(write_recipe: Write, case: str) -> None:
    content, message = BAD_YAML[case]
    began = time.monotonic()
    with pytest.raises(RecipeError) as raised:
        load(write_recipe(content))
    assert raised.match(message)
    assert "recipe.yaml" in raised.value.message
    assert time.monotonic() - began < 60  # in whole, it would take hours


BAD_RECIPES = {
    "no name": ("source: {synthetic: {}}", "'name' is missing"),
    "no name, with a matrix": ("source: {synthetic: {}}\nmatrix: {n: [1]}", "'name' is missing"),
    "no source": ("name: a", "'source' is missing"),
    "an unknown key": (HEAD + "stesp: []", "no 'stesp'(?s:.*)did you mean 'steps'"),
    "a key of ours": (HEAD + "base: /etc", "no 'base'"),
    "a bad name": ("name: ../a\nsource: {}", "name: .*not '../a'\\n.*letters, digits, `.`, `_`, `-`"),
    "a name that is a number": ("name: 5\nsource: {synthetic: {}}", "name: .*not 5"),
    "a negative seed": (HEAD + "seed: -1", "seed: .*greater than or equal to 0, not -1"),
    "a true seed": (HEAD + "seed: true", "seed: .*not True"),
    "no number for a share": (
        HEAD + "expect: {noise_rate: .nan}",
        "expect.noise_rate: .*finite number, not nan",
    ),
    "a text for a count": (HEAD + "samples_per_shard: many", "samples_per_shard: .*not 'many'"),
    "a count in floating point": (HEAD + "bytes_per_shard: 1.0e+6", "per_shard: (?s:.*)write 1000000$"),
    "a count with an exponent": (HEAD + "samples_per_shard: 1e4", "per_shard: (?s:.*)write 10000$"),
    "a share for a count": (HEAD + "samples_per_shard: 0.5", "per_shard: .*not 0.5$"),
    "bytes with a unit": (
        HEAD + "bytes_per_shard: 100MB",
        "not '100MB'(?s:.*)whole number of bytes: 100000000",
    ),
    "a bare resize": (
        HEAD + "resize: 224",
        r"resize: should be a mapping, not 224(?s:.*)write `resize: \{short: 224\}`$",
    ),
    "an unknown order": (HEAD + "order: random", "order: .*not 'random'"),
    "an unknown promise": (HEAD + "expect: {row: 3}", "expect: no option 'row'(?s:.*)did you mean 'rows'"),
    "an odd promise": (HEAD + "expect: {xyz: 3}", "it takes rows, classes, per_class, noise_rate, captions$"),
    "a promise's bounds": (HEAD + "expect: {per_class: {mn: 3}}", "per_class: no option 'mn'(?s:.*)'min'"),
    "a promised percentage": (HEAD + "expect: {noise_rate: 7%}", "noise_rate: .*not '7%'(?s:.*)write 0.07$"),
    "a misspelt order": (HEAD + "order: shufled", "order: .*(?s:.*)did you mean 'shuffled'"),
    "a source of no kind": ("name: a\nsource: /x", "source: .*not '/x'(?s:.*)write `source: {folder: /x}`"),
    "a list of sources": ("name: a\nsource: [/x]", r"source: .*(?s:.*)write `source: \{folder: PATH\}`"),
    "steps without dashes": (HEAD + "steps: {sample: 3, clean: }", "steps: (?s:.*)begins with its own dash"),
    "a promise out of range": (HEAD + "expect: {noise_rate: 20}", "expect.noise_rate: .*not 20"),
    "a missing variable": (HEAD + "steps: [{sample: '${n}'}]", r"\$\{n\} has no value(?s:.*)--set n=VALUE"),
    "a matrix that is no mapping": (HEAD + "matrix: [1]", "matrix must be a mapping"),
    "a matrix of no list": (HEAD + "matrix: {n: 5}", "n must be a list of values, got 5"),
    "an empty matrix axis": (HEAD + "matrix: {n: []}", "n must be a list of values"),
}


@pytest.mark.parametrize("case", BAD_RECIPES)
def test_bad_recipe_is_refused(write_recipe: Write, case: str) -> None:
    content, message = BAD_RECIPES[case]
    with pytest.raises(RecipeError) as raised:
        load(write_recipe(content))
    assert raised.match(message)


BAD_STEPS: dict[str, tuple[Any, str]] = {
    "unknown": ({"niose": {"rate": 0.1}}, "step 1: no operation 'niose'(?s:.*)did you mean 'noise'"),
    "unknown and far": ({"xyz": 1}, "no operation 'xyz'(?s:.*)curate ops"),
    "unknown option": (
        {"noise": {"rte": 0.1}},
        r"step 1 \(noise\): no option 'rte'(?s:.*)did you mean 'rate'",
    ),
    "missing option": ({"noise": {"kind": "symmetric"}}, "option 'rate' is missing"),
    "wrong type": ({"sample": {"number": "many"}}, "number: .*not 'many'"),
    "text for a number": ({"per_class": {"images": "8"}}, "images: .*not '8'(?s:.*)write 8$"),
    "a percentage": ({"noise": {"rate": "20%"}}, "rate: .*not '20%'(?s:.*)write 0.2$"),
    "a percentage for a count": ({"per_class": {"images": "20%"}}, "images: .*not '20%'$"),
    "a bare share": ({"sample": 0.5}, r"number: .*not 0.5\n.*did you mean \{fraction: 0.5\}"),
    "a bare percentage": ({"sample": "50%"}, r"number: .*not '50%'\n.*did you mean \{fraction: 0.5\}"),
    "a bare rate": ({"noise": 0.2}, r"kind: .*not 0.2\n.*did you mean \{rate: 0.2\}"),
    "a bare mapping": ({"split": {"val": 30}}, r'shares.val: .*not 30\n.*\{images: \{"val": 30\}\}'),
    "a bare value that does not do": ({"top": 3}, "by: .*not 3\\n.*such a value is for number"),
    "a bare value for none": ({"per_class": [8]}, r"images: .*not \[8\]$"),
    "a bare misspelt choice": ({"noise": "symetric"}, "kind: .*(?s:.*)did you mean 'symmetric'"),
    "a bare choice of none": ({"noise": "zzz"}, "kind: .*not 'zzz'$"),
    "a fraction for a count": ({"per_class": {"images": 2.5}}, "images: .*not 2.5"),
    "true for a count": ({"per_class": {"images": True}}, "images: .*not True"),
    "out of range": ({"noise": {"rate": 1.5}}, "rate: .*less than or equal to 1, not 1.5"),
    "not a number": ({"noise": {"rate": float("nan")}}, "rate: .*not nan"),
    "nothing wanted": ({"per_class": {"images": 0}}, "images: .*greater than or equal to 1, not 0"),
    "not a choice": ({"noise": {"rate": 0.1, "kind": "odd"}}, "kind: .*not 'odd'"),
    "resize for a step": ({"resize": {"short": 256}}, "(?s:.*)`resize:` stands beside `steps:`, not in it"),
    "a promise for a step": ({"expect": {"rows": 3}}, "(?s:.*)`expect:` stands beside `steps:`"),
    "two operations": ({"noise": {"rate": 0.1}, "sample": 3}, "a step is one operation"),
    "a number": (7, "a step is one operation"),
    "no argument": ("where", "option 'condition' is missing"),
    "bad SQL": ({"where": "width + 'a'[1] > 'x'::DATE"}, r"step 1 \(where\)"),
    "an absent column": ({"where": "heigth > 3"}, "no column 'heigth'(?s:.*)did you mean 'height'"),
    "too many classes": ({"classes": 99}, "99 classes wanted of 6"),
}


@pytest.mark.parametrize("case", BAD_STEPS)
def test_bad_step_is_found_while_planning(recipe: Callable[..., Any], case: str) -> None:
    step, message = BAD_STEPS[case]
    with pytest.raises(RecipeError) as raised:
        plan(recipe([step]))
    assert raised.match(message)
    assert "set.yaml, step 1" in raised.value.message


def test_fault_of_a_later_step_is_named_by_its_number(recipe: Callable[..., Any]) -> None:
    steps = [{"noise": {"rate": 0.1}}, {"sample": 10}, {"noise": {"rate": 0.1}}]
    with pytest.raises(RecipeError, match=r"step 3 \(noise\): .*noise already"):
        plan(recipe(steps))


BAD_SOURCES: dict[str, tuple[Any, str]] = {
    "unknown": ({"foldr": "x"}, "no source 'foldr'(?s:.*)did you mean 'folder'"),
    "none": ({}, "no source ''"),
    "two": ({"folder": ".", "shards": "."}, "takes one source"),
    "absent folder": ({"folder": "nowhere"}, "nowhere: no such folder"),
    "absent split": ({"folder": ".", "split": "trian"}, "no split 'trian'"),
    "unknown option": ({"folder": ".", "splt": "train"}, "no option 'splt'(?s:.*)did you mean 'split'"),
    "absent tar": ({"shards": "a.tar"}, "a.tar: no such tar"),
    "tars that match nothing": ({"shards": "*.tar"}, "no tars at"),
    "no dataset": ({"dataset": "nowhere"}, "not a dataset"),
    "a wrong type": ({"folder": 5}, "path: .*not 5"),
}


@pytest.mark.parametrize("case", BAD_SOURCES)
def test_bad_source_is_found_while_planning(write_recipe: Write, case: str) -> None:
    source, message = BAD_SOURCES[case]
    with pytest.raises(RecipeError) as raised:
        plan(load(write_recipe({"source": source})))
    assert raised.match(message)
    assert "recipe.yaml, source" in raised.value.message


def test_variable_alone_has_its_own_type(write_recipe: Write) -> None:
    path = write_recipe({"source": {"folder": "${root}"}, "set": {"n": 5}, "steps": [{"sample": "${n}"}]})
    assert load(path, {"root": "x"}).steps == [{"sample": 5}]
    assert load(path, {"root": "x", "n": "7"}).steps == [{"sample": 7}]
    assert load(path, {"root": "x", "n": "{fraction: 0.5}"}).steps == [{"sample": {"fraction": 0.5}}]


def test_variable_inside_a_text_is_text(write_recipe: Write) -> None:
    path = write_recipe({"source": {"folder": "${root}/train"}, "steps": [{"where": "width > ${n}"}]})
    loaded = load(path, {"root": "/data/5", "n": "32"})
    assert loaded.source == {"folder": "/data/5/train"}
    assert loaded.steps == [{"where": "width > 32"}]


@pytest.mark.parametrize("value", ["[", "2024-13-45", "a: b: c", "[" * 5000, "'", "%x"])
def test_setting_that_is_no_yaml_is_a_text(write_recipe: Write, value: str) -> None:
    path = write_recipe({"source": {"folder": "${root}"}})
    assert load(path, {"root": value}).source == {"folder": value}


def test_setting_of_no_variable_is_refused(write_recipe: Write) -> None:
    path = write_recipe({"source": {"folder": "${root}"}, "set": {"images": 3}})
    with pytest.raises(RecipeError, match=r"no variable 'imgaes'(?s:.*)did you mean 'images'"):
        load(path, {"root": "x", "imgaes": "3"})


def test_seed_and_name_can_be_set(write_recipe: Write) -> None:
    loaded = load(write_recipe({"source": {"synthetic": {}}}), {"seed": "9", "name": "b"})
    assert (loaded.seed, loaded.name) == (9, "b")


def test_step_takes_the_recipes_seed_unless_it_has_its_own(recipe: Callable[..., Any]) -> None:
    steps = [{"sample": {"number": 9}}, {"noise": {"rate": 0.5, "seed": 4}}]
    seeds = [step.arguments["seed"] for step in plan(recipe(steps, seed=3)).steps]
    assert seeds == [3, 4]


def test_matrix_is_the_product_of_its_axes(write_recipe: Write) -> None:
    content = {
        "source": {"synthetic": {}},
        "steps": [{"per_class": "${images}"}, {"noise": {"rate": "${rate}"}}],
        "matrix": {"images": [50, 100], "rate": [0.0, 0.2, 0.4]},
    }
    family = load(write_recipe(content)).family
    assert [r.name for r in family] == [
        f"recipe-images-{images}-rate-{rate}" for images in (50, 100) for rate in (0.0, 0.2, 0.4)
    ]
    assert family[4].steps == [{"per_class": 100}, {"noise": {"rate": 0.2}}]
    pinned = load(write_recipe(content), {"rate": "0.4"}).family
    assert [r.name for r in pinned] == ["recipe-images-50-rate-0.4", "recipe-images-100-rate-0.4"]


def test_only_true_and_false_are_truth_values(write_recipe: Write) -> None:
    text = HEAD + "steps: [{f: {language: no, on: yes, a: true, true_label: falsework, c: false}}]"
    [step] = load(write_recipe(text)).steps
    assert step == {"f": {"language": "no", "on": "yes", "a": True, "true_label": "falsework", "c": False}}


@pytest.fixture
def mapped(write_recipe: Write, pool: Path) -> Callable[..., None]:
    """Plan a recipe whose step reads a file: `mapped(file, settings)`."""

    def make(file: str, settings: dict[str, str] | None = None) -> None:
        steps = [{"relabel": {"file": file, "others": "keep"}}]
        plan(load(write_recipe({"source": {"folder": str(pool)}, "steps": steps}), settings))

    return make


def test_file_beside_the_recipe_may_be_read(mapped: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "a.csv").write_text("old,new\ndog,pet\n")
    mapped("maps/a.csv")


@pytest.mark.parametrize(
    "file", ["../secret.csv", "/etc/hostname", "maps/../../secret.csv", "link.csv", "~/x.csv"]
)
def test_file_elsewhere_is_refused(mapped: Callable[..., None], tmp_path: Path, file: str) -> None:
    (tmp_path.parent / "secret.csv").write_text("old,new\ndog,pet\n")
    (tmp_path / "link.csv").symlink_to(tmp_path.parent / "secret.csv")
    with pytest.raises(RecipeError, match=r"outside the recipe's folder(?s:.*)--set"):
        mapped(file)


def test_file_elsewhere_may_be_given_by_set(mapped: Callable[..., None], tmp_path: Path) -> None:
    secret = tmp_path.parent / "given.csv"
    secret.write_text("old,new\ndog,pet\n")
    mapped("${map}", {"map": str(secret)})
    with pytest.raises(RecipeError, match="outside the recipe's folder"):
        mapped("${folder}/given.csv", {"folder": str(tmp_path.parent)})


def test_a_path_given_by_set_starts_where_the_user_is(
    mapped: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pool: Path,
    write_recipe: Write,
) -> None:
    here = tmp_path.parent / "here"
    here.mkdir(exist_ok=True)
    (here / "given.csv").write_text("old,new\ndog,pet\n")
    monkeypatch.chdir(here)
    mapped("${map}", {"map": "given.csv"})
    (here / "pools").mkdir(exist_ok=True)
    if not (here / "pools" / "a").exists():
        (here / "pools" / "a").symlink_to(pool)
    path = write_recipe(
        {"source": {"folder": "${pools}/${which}"}, "steps": [], "set": {"which": "a"}}, "given"
    )
    assert len(plan(load(path, {"pools": "pools"})).classes or ()) == 6
    with pytest.raises(RecipeError, match="no such folder"):
        plan(load(path, {"pools": "pool"}))


def test_absent_file_is_told(mapped: Callable[..., None]) -> None:
    with pytest.raises(RecipeError, match=r"absent.csv: no such file"):
        mapped("absent.csv")
