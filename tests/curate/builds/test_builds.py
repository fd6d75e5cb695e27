"""From a recipe to a folder: the same bytes each time, all or nothing, and nothing of anybody else's touched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from campaigns import masses

from curate.builds.build import build
from curate.builds.sharding import shard
from curate.datasets.dataset import Dataset, open_dataset
from curate.datasets.verification import verify
from curate.errors import DataError, RecipeError
from curate.io.progress import Quiet, Stage
from curate.recipes.recipe import Recipe, load
from curate.rows.manifest import CORE, digest, rows_digest

STEPS: list[Any] = [
    {"where": "NOT ends_with(key, '_9')"},
    {"per_class": 8},
    {"noise": {"rate": 0.25}},
    {"caption": {"templates": ["a photo of a {}.", "art of a {}."]}},
]
MakeRecipe = Callable[..., Recipe]
Tree = Callable[[Path], dict[str, str]]


@pytest.fixture
def own_pool(pool: Path, tmp_path: Path) -> Path:
    """A pool to change."""
    return Path(shutil.copytree(pool, tmp_path / "own"))


def test_ledger_counts_what_each_step_did(built: Callable[..., Dataset]) -> None:
    ledger = [
        (s.step, s.rows_in, s.rows_out, s.classes_in, s.classes_out, s.labels_changed, s.captions_changed)
        for s in built(STEPS).info.ledger
    ]
    assert ledger == [
        ("source", 60, 60, 6, 6, 0, 0),
        ("where", 60, 54, 6, 6, 0, 0),
        ("per_class", 54, 48, 6, 6, 0, 0),
        ("noise", 48, 48, 6, 6, 12, 0),
        ("caption", 48, 48, 6, 6, 0, 48),
    ]


def test_ledger_names_columns_added_and_arguments(built: Callable[..., Dataset]) -> None:
    where, _, noise, caption = built(STEPS).info.ledger[1:]
    assert (noise.columns_added, caption.columns_added) == (["clean_label"], ["template"])
    assert where.arguments == {"condition": "NOT ends_with(key, '_9')"}
    assert noise.arguments == {"kind": "symmetric", "rate": 0.25, "per": "overall"}


def test_class_without_rows_leaves_the_list_with_a_note(built: Callable[..., Dataset]) -> None:
    made = built([{"where": "key NOT LIKE 'n02012849/%'"}])
    assert [c.wnid for c in made.classes] == ["n01440764", "n02084071", "n02121620", "n02958343", "n03126707"]
    last = made.info.ledger[-1]
    assert (last.step, last.classes_in, last.classes_out, last.labels_changed) == ("where", 6, 5, 0)
    assert "n02012849" in last.notes[0]
    labels = {row["key"].split("/")[0]: row["label"] for row in made.table(["key", "label"]).to_pylist()}
    assert labels == {c.wnid: i for i, c in enumerate(made.classes)}


def test_noise_never_brings_back_a_class_that_lost_its_rows(built: Callable[..., Dataset]) -> None:
    made = built([{"where": "key NOT LIKE 'n02012849/%'"}, {"noise": {"rate": 1.0}}])
    assert len(made) > 0
    assert "n02012849" not in {c.wnid for c in made.classes}
    assert len(made.classes) == 5


def test_manifest_has_the_core_first_and_the_order_of_the_recipe(built: Callable[..., Dataset]) -> None:
    shuffled, by_key = built(STEPS, "a"), built(STEPS, "b", order="key")
    assert list(shuffled.info.columns) == [*CORE, "clean_label", "template", "wnid"]
    assert shuffled.table().column_names == list(shuffled.info.columns)
    keys = shuffled.table(["key"])["key"].to_pylist()
    assert keys != sorted(keys)
    assert by_key.table(["key"])["key"].to_pylist() == sorted(keys)


@pytest.mark.parametrize(
    "promise",
    [
        {"rows": 49},
        {"classes": 5},
        {"per_class": 9},
        {"per_class": {"min": 20}},
        {"noise_rate": 0.2},
        {"captions": False},
    ],
)
def test_broken_promise_publishes_nothing(
    recipe: MakeRecipe, tmp_path: Path, promise: dict[str, Any]
) -> None:
    out = tmp_path / "below" / "set"
    with pytest.raises(DataError, match=f"expect: {next(iter(promise))}: .*nothing was published"):
        build(recipe(STEPS, expect=promise), out)
    assert list(out.parent.iterdir()) == []


def test_kept_promises_are_published(built: Callable[..., Dataset]) -> None:
    promises = {
        "rows": 48,
        "classes": 6,
        "noise_rate": 0.25,
        "captions": True,
        "per_class": {"min": 4, "max": 12},
    }
    assert len(built(STEPS, expect=promises)) == 48


@pytest.mark.parametrize(
    "condition",
    [
        "split_part(key, '/', 1)::INT > 3",
        "size + 9223372036854775807 > width",
        "regexp_matches(key, ext || '[')",
    ],
)
def test_condition_that_fails_on_a_row_is_told_with_its_step(
    recipe: MakeRecipe, tmp_path: Path, condition: str
) -> None:
    with pytest.raises(
        RecipeError, match=r"set\.yaml, step 2 \(where\): (Conversion|Out of Range|Invalid Input) Error"
    ):
        build(recipe([{"sample": 20}, {"where": condition}]), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_no_rows_left_is_an_error(recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows are left"):
        build(recipe([{"where": "width > 4000"}]), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_number_of_workers_changes_no_byte(recipe: MakeRecipe, tmp_path: Path, tree: Tree) -> None:
    for workers in (1, 2):
        build(recipe(STEPS), tmp_path / f"w{workers}", workers=workers)
    first, second = tree(tmp_path / "w1"), tree(tmp_path / "w2")
    assert first == second
    assert {"dataset.json", "manifest.parquet", "README.md", "shards/000002.tar"} < set(first)


def test_pool_copied_elsewhere_gives_the_same_digest_and_shards(
    recipe: MakeRecipe, pool: Path, tmp_path: Path, tree: Tree
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(pool, moved, copy_function=shutil.copyfile)  # with times of their own
    [one] = build(recipe(STEPS), tmp_path / "a")
    [two] = build(recipe(STEPS, source={"folder": str(moved)}), tmp_path / "b")
    assert one.dataset.digest == two.dataset.digest
    assert tree(tmp_path / "a" / "shards") == tree(tmp_path / "b" / "shards")
    assert (tmp_path / "a/manifest.parquet").read_bytes() == (tmp_path / "b/manifest.parquet").read_bytes()


def test_digest_changes_with_rows_and_with_classes(built: Callable[..., Dataset]) -> None:
    renamed = {"n02084071": "hound"}
    sets = [
        built([{"sample": 20}], "a"),
        built([{"sample": 21}], "b"),
        built([{"sample": 20}], "c", order="key"),
        built([{"sample": 20}, {"relabel": {"map": renamed, "others": "keep"}}], "d"),
    ]
    assert len({s.digest for s in sets}) == 4
    assert built([{"sample": 20}], "e").digest == sets[0].digest


def test_digest_of_rows_is_what_its_docstring_says() -> None:
    with duckdb.connect() as con:
        con.execute("CREATE TABLE t AS SELECT * FROM (VALUES ('a', 1), ('ü\"', NULL)) t(key, label)")
        found = rows_digest(con, "t", "rowid", ["key", "label"])
    rows = ['{"key":"a","label":1}', '{"key":"ü\\"","label":null}']
    chunk = hashlib.sha256(
        "".join(hashlib.md5(row.encode()).hexdigest() for row in rows).encode()
    ).hexdigest()
    canonical = f'[["key","label"],["{chunk}"]]'
    assert (
        found
        == "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
        == digest([["key", "label"], [chunk]])
    )


def test_second_build_does_nothing(recipe: MakeRecipe, tmp_path: Path) -> None:
    [first] = build(recipe(STEPS), tmp_path / "set")
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "set").rglob("*")}
    [second] = build(recipe(STEPS), tmp_path / "set")
    assert (first.unchanged, second.unchanged) == (False, True)
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "set").rglob("*")} == before


@pytest.mark.parametrize("change", ["steps", "seed", "samples_per_shard", "shard gone", "index gone"])
def test_what_differs_is_built_again(recipe: MakeRecipe, tmp_path: Path, change: str) -> None:
    build(recipe(STEPS), tmp_path / "set")
    steps = [*STEPS, {"sample": 20}] if change == "steps" else STEPS
    rest: dict[str, Any] = {"seed": {"seed": 1}, "samples_per_shard": {"samples_per_shard": 9}}.get(
        change, {}
    )
    if change == "shard gone":
        (tmp_path / "set/shards/000001.tar").unlink()
    if change == "index gone":
        (tmp_path / "set/shards/index.parquet").unlink()
    [again] = build(recipe(steps, **rest), tmp_path / "set")
    assert not again.unchanged
    assert len(again.dataset.table()) == len(again.dataset)


def test_image_changed_in_place_is_seen(recipe: MakeRecipe, own_pool: Path, tmp_path: Path) -> None:
    source = {"folder": str(own_pool)}
    build(recipe([], source=source), tmp_path / "set")
    file = own_pool / "n02084071" / "n02084071_3.jpg"
    old = file.read_bytes()
    file.write_bytes(old[:-3] + b"\x01\xff\xd9")  # of the same length, so only its time tells
    [again] = build(recipe([], source=source), tmp_path / "set")
    assert not again.unchanged
    rows = {row["key"]: row for row in again.dataset.table().to_pylist()}
    row = rows["n02084071/n02084071_3"]
    assert again.dataset.reader().read(row["file"], row["offset"], row["size"]) == file.read_bytes() != old


def test_pool_with_other_times_is_built_again_to_the_same_bytes(
    recipe: MakeRecipe, own_pool: Path, tmp_path: Path, tree: Tree
) -> None:
    source = {"folder": str(own_pool)}
    build(recipe(STEPS, source=source), tmp_path / "set")
    before = tree(tmp_path / "set")
    for file in own_pool.rglob("*.jpg"):
        os.utime(file, (1, 1))
    assert not build(recipe(STEPS, source=source), tmp_path / "set")[0].unchanged
    assert tree(tmp_path / "set") == before


def test_overlay_given_shards_equals_a_direct_build(recipe: MakeRecipe, tmp_path: Path, tree: Tree) -> None:
    build(recipe(STEPS), tmp_path / "direct")
    build(recipe(STEPS), tmp_path / "late", overlay=True)
    assert not (tmp_path / "late" / "shards").exists()
    assert not shard(tmp_path / "late", workers=1).unchanged
    assert tree(tmp_path / "late") == tree(tmp_path / "direct")
    late, direct = (open_dataset(tmp_path / name).build_record() for name in ("late", "direct"))
    assert late.keys() == direct.keys()
    assert [name for name, _ in late["seconds"]] == [name for name, _ in direct["seconds"]]
    assert late["seconds"][-1][0] == "shards"
    assert shard(tmp_path / "late").unchanged
    assert build(recipe(STEPS), tmp_path / "late")[0].unchanged


def test_matrix_builds_each_set_into_its_own_folder(recipe: MakeRecipe, tmp_path: Path) -> None:
    made = build(recipe([{"per_class": "${n}"}], matrix={"n": [3, 5]}), tmp_path / "out", overlay=True)
    assert [(b.dataset.name, len(b.dataset)) for b in made] == [("set-n-3", 18), ("set-n-5", 30)]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["set-n-3", "set-n-5"]
    again = build(recipe([{"per_class": "${n}"}], matrix={"n": [3, 5]}), tmp_path / "out", overlay=True)
    assert all(b.unchanged for b in again)


def test_fault_in_one_set_of_a_matrix_builds_none(recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="n-99"):
        build(recipe([{"classes": "${n}"}], matrix={"n": [3, 99]}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["notes.txt", ".git", "shards"])
def test_folder_of_somebody_else_is_refused_untouched(
    recipe: MakeRecipe, tmp_path: Path, content: str
) -> None:
    out = tmp_path / "home"
    (out / content).mkdir(parents=True)
    with pytest.raises(RecipeError, match=r"is no dataset .*nothing was touched"):
        build(recipe(STEPS), out, replace=True)
    assert [p.name for p in out.iterdir()] == [content]
    assert not list(tmp_path.glob(".home*"))


def test_file_of_somebody_else_in_a_dataset_is_refused(recipe: MakeRecipe, tmp_path: Path) -> None:
    build(recipe(STEPS), tmp_path / "set", overlay=True)
    (tmp_path / "set" / "thesis.tex").write_text("years")
    with pytest.raises(RecipeError, match=r"holds 'thesis.tex', .*nothing was touched"):
        build(recipe([{"sample": 5}]), tmp_path / "set", overlay=True)
    assert (tmp_path / "set" / "thesis.tex").read_text() == "years"
    assert len(open_dataset(tmp_path / "set")) == 48


def test_out_that_is_a_file_is_refused(recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("mine")
    with pytest.raises(RecipeError, match="is a file"):
        build(recipe(STEPS), tmp_path / "f")
    with pytest.raises(RecipeError, match="cannot be written"):
        build(recipe(STEPS), tmp_path / "f" / "below")
    assert (tmp_path / "f").read_text() == "mine"


def test_dataset_of_another_name_is_replaced_only_when_said(recipe: MakeRecipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(recipe([{"sample": 10}], "first"), out, overlay=True)
    with pytest.raises(RecipeError, match=r"holds the dataset 'first', not 'second'(?s:.*)--replace"):
        build(recipe([{"sample": 20}], "second"), out, overlay=True)
    assert open_dataset(out).name == "first"
    build(recipe([{"sample": 20}], "second"), out, overlay=True, replace=True)
    assert (open_dataset(out).name, len(open_dataset(out))) == ("second", 20)


def test_damaged_dataset_is_put_right(recipe: MakeRecipe, tmp_path: Path, tree: Tree) -> None:
    build(recipe(STEPS), tmp_path / "set")
    before = tree(tmp_path / "set")
    (tmp_path / "set" / "dataset.json").write_text("{")
    assert not build(recipe(STEPS), tmp_path / "set")[0].unchanged
    assert tree(tmp_path / "set") == before


class Meanwhile(Quiet):
    """Does something while shards are written."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Stage]:
        if title == "writing shards":
            self.action()
        yield Stage()


def test_second_build_of_one_result_is_refused_while_the_first_works(
    recipe: MakeRecipe, tmp_path: Path
) -> None:
    def second() -> None:
        with pytest.raises(RecipeError, match="another build is writing it"):
            build(recipe(STEPS), tmp_path / "set")
        build(recipe(STEPS), tmp_path / "other", overlay=True)
        build(recipe(STEPS), tmp_path / "other", overlay=True)

    [first] = build(recipe(STEPS), tmp_path / "set", progress=Meanwhile(second))
    assert len(first.dataset) == 48
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "set", "set.yaml"]


@pytest.mark.parametrize("overlay", [True, False])
def test_dataset_is_not_built_over_its_own_source(
    recipe: MakeRecipe, tmp_path: Path, tree: Tree, overlay: bool
) -> None:
    out = tmp_path / "set"
    build(recipe(STEPS), out, overlay=overlay)
    before = tree(out)
    with pytest.raises(RecipeError, match="would replace its own source"):
        build(recipe([{"sample": 5}], source={"dataset": str(out)}), out, overlay=overlay)
    assert tree(out) == before


def test_current_folder_is_not_replaced_under_ones_feet(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(RecipeError, match="is the current folder"):
        build(recipe(STEPS), Path("."), overlay=True)
    assert [p.name for p in tmp_path.rglob("*building*")] == []


@pytest.mark.parametrize("name", masses(["s?t", "s*", "s[ae]t"], kept=lambda name: name == "s*"))
def test_folder_named_like_a_pattern_holds_its_own_set(
    recipe: MakeRecipe, tmp_path: Path, tree: Tree, name: str, run_curate: Callable[..., Any]
) -> None:
    build(recipe([{"sample": 3}], "other"), tmp_path / "set", overlay=True)  # which the pattern matches
    (tmp_path / ".set.building").mkdir()
    shutil.copy(tmp_path / "set" / "manifest.parquet", tmp_path / ".set.building")
    build(recipe(STEPS), tmp_path / "plain" / "a")
    [made] = build(recipe(STEPS), tmp_path / name)
    assert tree(tmp_path / name / "shards") == tree(tmp_path / "plain" / "a" / "shards")
    assert verify(made.dataset.path) == []
    asked = run_curate("query", "SELECT count(*) AS n FROM set", "--root", tmp_path / name, "--json")
    assert json.loads(asked.stdout) == [{"n": 48}]


def test_card_tells_how_it_was_made(built: Callable[..., Dataset], tmp_path: Path) -> None:
    text = (built(STEPS).path / "README.md").read_text()
    assert "48 samples, 6 classes" in text
    assert "| noise | 48 | 6 | 12 | 0 | clean_label |" in text
    assert "rate: 0.25" in text


def test_build_record_stands_apart_from_what_is_reproducible(built: Callable[..., Dataset]) -> None:
    folder = built(STEPS).path
    record = json.loads((folder / "build.json").read_text())
    assert [name for name, _ in record["seconds"]] == ["where", "per_class", "noise", "caption"]
    assert record["versions"]["duckdb"] == duckdb.__version__
    assert pq.read_table(folder / "manifest.parquet").num_rows == 48


def test_recipe_inside_a_dataset_builds_it_again(built: Callable[..., Dataset], tmp_path: Path) -> None:
    first = built(STEPS)
    (tmp_path / "again.yaml").write_text(json.dumps(first.info.recipe))
    [second] = build(load(tmp_path / "again.yaml"), tmp_path / "again", overlay=True)
    assert second.dataset.digest == first.digest
