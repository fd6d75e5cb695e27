"""The command line: exit codes, what is told where, and what is not imported."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curate import ops, sources
from curate.builds.build import build
from curate.datasets.dataset import open_dataset
from curate.recipes.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
Run = Callable[..., Any]
STEPS: list[Any] = [
    {"per_class": 8},
    {"noise": {"rate": 0.25}},
    {"caption": {"templates": ["a photo of a {}."]}},
]
HEAVY = ("torch", "torchvision", "open_clip", "timm", "sklearn", "webdataset", "nltk", "matplotlib")


@pytest.fixture
def home(recipe: MakeRecipe, tmp_path: Path) -> Path:
    """A folder with a recipe, an overlay `over` and a dataset `whole`."""
    build(recipe(STEPS, "whole"), tmp_path / "whole", workers=2)
    build(recipe(STEPS, "over"), tmp_path / "over", overlay=True)
    return tmp_path


def loaded_by(script: str, cwd: Path) -> set[str]:
    """Return the modules that a process has loaded after running commands."""
    code = f"import sys\n{script}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = loaded_by(
        "from typer.testing import CliRunner\nfrom train.cli.__main__ import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0",
        tmp_path,
    )
    assert "curate.cli.app" in loaded
    assert loaded.isdisjoint({*HEAVY, "duckdb", "pyarrow", "numpy", "pydantic", "PIL", "yaml", "rich"})


def test_help_says_of_every_command_its_whole_sentence(run_curate: Run) -> None:
    result = run_curate("--help")
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    assert "Check that datasets hold what they say; of other tars, say what readers would fail on." in words
    assert "…" not in words
    assert "..." not in words.replace("[ARGS]...", "")


def test_version_tells_what_a_report_of_a_bug_needs(run_curate: Run) -> None:
    result = run_curate("--version")
    assert result.exit_code == 0
    for name in ("curate-train", "duckdb", "pyarrow", "torch"):
        assert f"{name} {importlib.metadata.version(name)}" in result.stdout
    assert f"Python {platform.python_version()}" in result.stdout


def test_commands_on_datasets_do_not_load_torch(home: Path) -> None:
    commands = [
        ["build", "whole.yaml", "--plan"],
        ["build", "whole.yaml", "--out", "whole", "-q"],
        ["query", "SELECT count(*) FROM whole"],
        ["show", "whole", "--html"],
        ["verify", "whole", "-q"],
        ["diff", "whole", "over"],
        ["ops"],
    ]
    loaded = loaded_by(
        "from typer.testing import CliRunner\nfrom train.cli.__main__ import app\n"
        f"for command in {commands!r}:\n"
        "    result = CliRunner().invoke(app, command)\n"
        "    assert result.exit_code == 0, (command, result.output, result.exception)",
        home,
    )
    assert "curate.builds.build" in loaded
    assert loaded.isdisjoint(HEAVY)


MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "no such recipe": (["build", "nowhere.yaml", "--out", "x"], 2, "nowhere.yaml: cannot be read"),
    "a folder for a recipe": (["build", ".", "--out", "x"], 2, "cannot be read"),
    "no out": (["build", "whole.yaml"], 2, "--out is missing"),
    "an unknown option": (["build", "whole.yaml", "--outt", "x"], 2, "No such option"),
    "an unknown command": (["bild"], 2, "No such command"),
    "no workers": (["build", "whole.yaml", "--out", "x", "--workers", "0"], 2, "--workers"),
    "a setting without a value": (
        ["build", "whole.yaml", "--set", "pool", "--out", "x"],
        2,
        "not NAME=VALUE",
    ),
    "an unknown setting": (["build", "whole.yaml", "--set", "pol=1", "--out", "x"], 2, "no variable 'pol'"),
    "a bad recipe": (["build", "bad.yaml", "--out", "x"], 2, "no operation 'niose'"),
    "a bad recipe, planned": (["build", "bad.yaml", "--plan"], 2, "did you mean 'noise'"),
    "a broken promise": (["build", "promise.yaml", "--out", "x"], 3, "nothing was published"),
    "out that is a file": (["build", "whole.yaml", "--out", "whole.yaml"], 2, "is a file"),
    "out of another name": (["build", "whole.yaml", "--out", "over"], 2, "holds the dataset 'over'"),
    "no dataset": (["show", "."], 2, "not a dataset"),
    "no dataset to check": (["verify", "nowhere"], 2, "not a dataset"),
    "no dataset to shard": (["shard", "nowhere"], 2, "not a dataset"),
    "one dataset to compare": (["diff", "whole"], 2, "two datasets or more"),
    "nothing to compare with": (["diff", "whole", "nowhere"], 2, "nowhere: not a dataset"),
    "bad SQL": (["query", "SELEC 1"], 2, "Parser Error"),
    "an unknown table": (["query", "FROM hole"], 2, "there are classes, datasets, over"),
    "a value that does not convert": (["query", "SELECT 'x'::INT"], 2, "Conversion Error"),
    "no root": (["query", "SELECT 1", "--root", "nowhere"], 2, "nowhere: no such folder"),
    "an unknown operation": (["ops", "nois"], 2, "did you mean 'noise'"),
    "damage": (["show", "damaged"], 3, "damaged/dataset.json"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_told_on_stderr_without_a_traceback(
    write_recipe: Callable[..., Path], pool: Path, tmp_path: Path, run_curate: Run, mistake: str,
    recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    command, code, message = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    source = {"folder": str(pool)}
    write_recipe({"source": source, "steps": [{"niose": {"rate": 1}}]}, "bad")
    write_recipe({"source": source, "expect": {"rows": 1}}, "promise")
    recipe(STEPS, "whole")
    if {"whole", "over"} & set(command) or command[0] == "query":
        for name in ("whole", "over"):
            build(recipe([], name), tmp_path / name, overlay=True)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "dataset.json").write_text("{")
    result = run_curate(*command)
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert message in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "x").exists()


def test_missing_package_has_a_code_of_its_own(
    run_curate: Run, recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    recipe([{"caption": "openai-80"}])
    result = run_curate("build", tmp_path / "set.yaml", "--plan")
    assert result.exit_code == 4
    assert "pip install open_clip_torch" in result.stderr


def test_user_sees_the_error_and_the_hint(curate_process: Run, tmp_path: Path) -> None:
    done = curate_process("build", "nowhere.yaml", "--out", "x", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: nowhere.yaml: cannot be read (No such file or directory)\n  hint: give the path of a recipe\n"
    )


def test_build_in_a_pipe_says_one_line(curate_process: Run, recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe(STEPS)
    done = curate_process("build", "set.yaml", "--out", "set", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("set: 48 rows, 6 classes, 3 shards, ")
    assert done.stdout.count("\n") == 1


def test_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "train.cli", "ops", "noise"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_plan_prints_steps_and_touches_nothing(run_curate: Run, recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe([*STEPS, {"relabel": {"map": {"dog": "pet"}, "others": "keep"}}], expect={"rows": 48})
    result = run_curate("build", tmp_path / "set.yaml", "--plan")
    assert result.exit_code == 0
    assert "2. noise(kind=symmetric, rate=0.25, per=overall, seed=0)" in result.stdout
    assert "result: 6 classes, columns key, file," in result.stdout
    assert "expect: rows 48" in result.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["set.yaml"]


def test_build_and_shard_tell_what_they_did(run_curate: Run, recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe(STEPS)
    out = tmp_path / "set"
    first = run_curate("build", tmp_path / "set.yaml", "--out", out, "--overlay", "--json")
    [told] = json.loads(first.stdout)
    assert (told["name"], told["path"], told["rows"], told["classes"]) == ("set", str(out), 48, 6)
    assert told["unchanged"] is False
    assert (told["shards"], told["shard_bytes"], told["resize"]) == (None, None, None)
    again = run_curate("build", tmp_path / "set.yaml", "--out", out, "--overlay")
    assert "48 rows, 6 classes, overlay; unchanged, nothing to do" in again.stdout
    assert "3 shards" in run_curate("shard", out, "--workers", "1").stdout
    [told] = json.loads(run_curate("shard", out, "--json").stdout)
    tars = list(out.glob("shards/*.tar"))
    assert (told["shards"], told["shard_bytes"]) == (3, sum(tar.stat().st_size for tar in tars))


def test_every_json_is_json(run_curate: Run, home: Path) -> None:
    commands: list[list[Any]] = [
        ["build", home / "whole.yaml", "--out", home / "whole"],
        ["shard", home / "whole"],
        ["verify", home / "whole"],
        ["diff", home / "whole", home / "over"],
        ["query", "SELECT *, now() AS t FROM whole LIMIT 2", "--root", home],
        ["show", home / "whole"],
        ["show", home / "whole", "--html"],
        ["ops"],
        ["ops", "noise"],
    ]
    for command in commands:
        result = run_curate(*command, "--json")
        assert result.exit_code == 0, result.output
        json.loads(result.stdout)


def test_ops_lists_and_explains_the_whole_language(run_curate: Run) -> None:
    listed = run_curate("ops").stdout
    for name in [*ops.names(), *sources.names()]:
        assert f"\t{name}\t" in listed
        assert f"{name}:" in run_curate("ops", name).stdout
    told = {entry["name"]: entry for entry in json.loads(run_curate("ops", "--json").stdout)}
    assert "at least 0 and at most 1" in told["noise"]["options"]["rate"]
    assert told["sample"]["options"].keys() == {"number", "fraction", "allocation", "seed"}


def test_show_tells_noise_classes_and_ledger(run_curate: Run, home: Path) -> None:
    text = run_curate("show", home / "whole").stdout
    for line in (
        "whole: 48 rows, 6 classes, 3 shards",
        "width 40–40 px, median 40",
        "wrong labels 25.0000%",
        "noise\t",
        "a photo of a ",
    ):
        assert line in text
    told = json.loads(run_curate("show", home / "whole", "--json").stdout)
    assert (told["rows"], told["noise_rate"], told["captioned"]) == (48, 0.25, 48)
    assert sum(told["counts"].values()) == 48
    assert sum(n for *_, n in told["confusions"]) <= 12


def test_gallery_has_thumbnails_and_marks_wrong_labels(run_curate: Run, home: Path) -> None:
    assert run_curate("show", home / "over", "--html").exit_code == 0
    page = (home / "over" / "gallery.html").read_text()
    rows = open_dataset(home / "over").table(["label", "clean_label"]).to_pylist()
    first = [row for label in range(6) for row in [r for r in rows if r["label"] == label][:8]]
    assert page.count("data:image/jpeg;base64,") == len(first) > 40
    assert page.count("<h2>") == 6
    assert page.count("class=wrong") == sum(r["label"] != r["clean_label"] for r in first) > 0
    assert "a photo of a" in page
    assert run_curate("verify", home / "over").exit_code == 0  # the page is no part of what it checks


def test_gallery_shows_what_cannot_be_decoded_and_escapes_names(
    run_curate: Run, recipe: MakeRecipe, make_pool: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_pool(tmp_path / "odd", ("<script>alert(1)", "b"), images=2)
    file = folder / "b" / "b_0.jpg"
    file.write_bytes(file.read_bytes()[:-60])
    build(recipe([], source={"folder": str(folder)}), tmp_path / "set", overlay=True)
    assert run_curate("show", tmp_path / "set", "--html").exit_code == 0
    page = (tmp_path / "set" / "gallery.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "truncated" in page


def test_sets_of_a_family_that_are_the_same_are_told(
    run_curate: Run, write_recipe: Callable[..., Path], pool: Path, tmp_path: Path
) -> None:
    content = {
        "source": {"folder": str(pool)},
        "matrix": {"images": [5, 50, 500]},
        "steps": [{"per_class": {"images": "${images}", "short": "keep"}}],
    }
    shown = run_curate("build", write_recipe(content, "grown"), "--out", tmp_path / "out", "--overlay").stdout
    assert "note: 2 sets of this family are the same: grown-images-50, grown-images-500" in shown
    told = run_curate("show", tmp_path / "out" / "grown-images-50").stdout
    assert "6 classes have fewer than 50 images and keep all" in told


def test_a_promise_that_cannot_be_kept_is_refused_before_any_work(
    run_curate: Run, write_recipe: Callable[..., Path], pool: Path, tmp_path: Path
) -> None:
    content = {"source": {"folder": str(pool)}, "steps": [], "expect": {"classes": 1000}}
    result = run_curate("build", write_recipe(content, "promise"), "--out", tmp_path / "out", "--plan")
    assert result.exit_code == 2
    assert "1,000 promised, at most 6 can come out" in result.stderr
