"""What a stranger's recipe may ask for is bounded before any work is done for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from curate.errors import RecipeError
from curate.io.paths import find_files
from curate.recipes.recipe import load
from train.cli.__main__ import app

Write = Callable[..., Path]
SOURCE = "name: a\nsource: {synthetic: {}}\n"
WIDE = ", ".join(map(str, range(100)))
MANY = ", ".join(["1"] * 5_000)
LONG = "x" * 20_000
USE_A = '"${a}", '


def nested(leaf: str, level: str) -> str:
    """Return YAML of nine levels, each of which has nine times the one before it."""
    names = "abcdefghi"
    lines = [f"{names[0]}: &{names[0]} {leaf}"]
    for below, name in pairwise(names):
        lines.append(f"{name}: &{name} " + level.replace("BELOW", ", ".join([f"*{below}"] * 9)))
    return "\n".join(lines) + "\n"


TOO_MUCH = {
    "makes 1,000,000,000,000 sets, at most 10,000": f"matrix: {{{', '.join(f'v{i}: [{WIDE}]' for i in range(6))}}}",
    "makes 10,001 sets, at most 10,000": "matrix:\n" + "".join(f"  - {{n: {i}}}\n" for i in range(10_001)),
    "at most 5,000,000": f"matrix: {{n: [{MANY}]}}\nsteps: [{'{sample: 3}, ' * 900}]",
    "more than 1,000,000 characters once it is": f"set: {{a: {LONG}}}\nsteps: [{{where: '{'${a}' * 100}'}}]",
    "more than 200,000 values once its variables": f"set: {{a: [{MANY}]}}\nsteps: [{USE_A * 100}]",
    "more than 10,000,000 characters once its variables": f"set: {{a: {LONG}}}\nsteps: [{USE_A * 1_000}]",
    "more than 200,000 values once its aliases": nested("[1, 1, 1, 1, 1, 1]", "[BELOW]"),
    "more than 10,000,000 characters once its aliases": f"a: &a {LONG}\nb: [{'*a, ' * 1_000}]",
    "not plain YAML: could not determine": nested("{x: 1, y: 1}", "{<<: [BELOW]}"),
    "not plain YAML: ": "steps: " + "[" * 3_000,
    "not plain YAML: m": "steps: " + "{a: " * 3_000,
    "a number of 100,000 digits": f"seed: {'9' * 100_000}",
    "more than 4,194,304 bytes": "# " + "x" * (5 << 20),
    "is beyond 1e": f"set: {{n: 9}}\nsteps: [{{sample: '${{n{' * 999999999999' * 10}}}'}}]",
    "at most 30 digits": "steps: [{sample: '${round(5, -1000000000)}'}]",
    r"is beyond 1e\+30": "steps: [{sample: '${1e300 * 1e300}'}]",
    "not a variable or arithmetic": "steps: [{sample: '${9 ** 9 ** 9}'}]",
    "arithmetic takes numbers": "steps: [{sample: '${\"a\" * 1000000000}'}]",
}


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    started = time.process_time()
    yield
    assert time.process_time() - started < 60  # what this size asks for would take hours


@pytest.mark.parametrize("says", TOO_MUCH)
def test_a_recipe_that_asks_for_too_much_is_refused(write_recipe: Write, says: str) -> None:
    path = write_recipe(f"{SOURCE}{TOO_MUCH[says]}\n")
    with pytest.raises(RecipeError, match=says):
        load(path)


BRACES = ["{000..999999999}.tar", "{0..9}" * 9 + ".tar", "{a,b}" * 20, "{1..99999999999999999999}"]


@pytest.mark.parametrize("path", [*BRACES, "{" * 2_000 + "0..3" + "}" * 2_000])
def test_braces_that_stand_for_too_many_paths_are_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"braces that stand for|no such"):
        find_files(str(tmp_path / path), (".tar",), "tar")


@pytest.mark.parametrize(
    "text",
    [
        "steps: [{per_class: {images: 1000000000000000000000000000000}}]",
        "steps: [{sample: {number: 10000000000000000000}}]",
        "steps: [{longtail: {kind: pareto, largest: 9007199254740991, imbalance: 1.0e+300}}]",
        "steps: [{longtail: {kind: exponential, largest: 500, imbalance: 1.0e+400}}]",
        "steps: [{noise: {rate: 1.0e+400}}]",
        "steps: [{budget: {total: 9007199254740991, classes: 3}}]",
        "steps: [{split: {images: {val: 99999999999999999999}}}]",
        "steps: [{top: {by: width, number: 123456789012345678901234567890}}]",
        "steps: [{filter: {min_words: 99999999999999999999}}]",
        "samples_per_shard: 99999999999999999999999",
        "bytes_per_shard: 99999999999999999999999",
        "seed: 99999999999999999999999",
        "resize: {short: 99999999999999999999999}",
        "expect: {rows: 99999999999999999999999, noise_rate: .inf}",
        "source: {synthetic: {images: 99999999999999999999999}}",
    ],
)
def test_numbers_far_out_of_range_are_told_and_are_no_fault_of_ours(write_recipe: Write, text: str) -> None:
    body = text if text.startswith("source") else f"source: {{synthetic: {{}}}}\n{text}"
    path = write_recipe(f"name: a\n{body}\n")
    found = CliRunner().invoke(app, ["build", str(path), "--plan", "--quiet"])
    assert found.exit_code in (0, 2), found.output
    assert found.exception is None or isinstance(found.exception, SystemExit)
