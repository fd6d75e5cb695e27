"""`curate train`, `curate transfer`: the options come from the configs, and mistakes are told as such."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from captioned import described
from handmade import pictures
from typer.testing import CliRunner

from curate.datasets.dataset import Dataset
from train.cli.__main__ import app
from train.methods import registry


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "TERM": "dumb"})
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def trained(dataset: Callable[..., Dataset], tmp_path: Path) -> Path:
    """A run of a few steps, made from the command line."""
    data = dataset(pictures(32), classes=4)
    out = tmp_path / "run"
    options = ["--model", "convnet", "--image-size", 16, "--batch-size", 8, "--epochs", 1]
    code, stdout, stderr = run("train", "supervised", data.path, "--out", out, *options)
    assert code == 0, stderr
    assert "4 steps, 32 samples seen" in stdout
    return out


@pytest.mark.parametrize("method", registry.METHODS)
def test_every_option_of_the_config_is_in_the_help_with_its_meaning(method: str):
    code, stdout, _ = run("train", method, "--help")
    assert code == 0
    assert "--quiet" in stdout
    for option in dataclasses.fields(registry.config_type(method)):
        assert f"--{option.name.replace('_', '-')}" in stdout
    assert "Model, images and loss:" in stdout
    assert "Decay a step of an average of the weights" in stdout
    assert f"Options to begin with: {', '.join(registry.method(method).PRESETS)}" in stdout


def test_preset_changes_the_defaults_and_options_replace_it(dataset: Callable[..., Dataset], tmp_path: Path):
    _, plain, _ = run("train", "supervised", "--help")
    _, preset, _ = run("train", "supervised", "--preset", "huh2016", "--help")
    assert "[default: 90]" in preset
    assert "[default: 90]" not in plain
    data = dataset(pictures(32), classes=4)
    options = ["--model", "convnet", "--image-size", 16, "--batch-size", 8, "--epochs", 1, "--preset=huh2016"]
    code, _, stderr = run("train", "supervised", data.path, "--out", tmp_path / "run", *options)
    assert code == 0, stderr
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert (config["optimizer"], config["schedule"], config["epochs"]) == ("sgd", "step", 1)
    code, _, stderr = run("train", "supervised", data.path, "--out", tmp_path / "other", "--preset", "huh")
    assert code == 2
    assert "no preset 'huh'\n  hint: did you mean 'huh2016'?" in stderr


def test_pairs_are_learned_and_scored_from_the_command_line(dataset: Callable[..., Dataset], tmp_path: Path):
    data = dataset(described(32), classes=4)
    small = ["--image-size", 16, "--model", "convnet", "--batch-size", 8, "--epochs", 1]
    texts = ["--text-width", 32, "--text-layers", 1, "--context-length", 16]
    code, _, stderr = run("train", "clip", data.path, "--out", tmp_path / "clip", *small, *texts)
    assert code == 0, stderr
    code, stdout, stderr = run(
        "train", "score", tmp_path / "clip", data.path, "--out", tmp_path / "s.parquet", "--json"
    )
    assert code == 0, stderr
    told = json.loads(stdout)
    similarity = pq.read_table(tmp_path / "s.parquet")["similarity"].to_pylist()
    assert told["rows"] == len(similarity) == 32
    assert told["similarity"] == pytest.approx(sum(similarity) / 32)
    code, _, stderr = run(
        "train", "simclr", data.path, "--out", tmp_path / "simclr", *small, "--hidden-dim", 32
    )
    assert code == 0, stderr
    code, _, stderr = run("train", "score", tmp_path / "simclr", data.path, "--out", tmp_path / "t.parquet")
    assert code == 2
    assert "a simclr run judges no single samples" in stderr


def test_help_of_the_group_does_not_load_torch():
    code = "import sys; from typer.testing import CliRunner; from train.cli.__main__ import app; " \
        "CliRunner().invoke(app, ['train', '--help']); sys.exit('torch' in sys.modules)"  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_run_tells_what_it_learned_from(trained: Path):
    document = json.loads((trained / "run.json").read_text())
    assert document["method"] == "supervised"
    assert document["dataset"]["digest"].startswith("sha256:")
    assert document["samples_seen"] == 32


def test_transfer_measures_a_run_beside_no_pre_training(trained: Path, tmp_path: Path):
    out = tmp_path / "results.parquet"
    options = ["--task", "figures=digits", "--shots", "2", "--seeds", 1, "--out", out, "--json", "-q"]
    rows = []
    for run_name in (trained, f"scratch:{trained}"):
        code, stdout, stderr = run("transfer", run_name, *options)
        assert code == 0, stderr
        rows += json.loads(stdout)
    assert {row["task"] for row in rows} == {"figures"}
    assert len({row["run_digest"] for row in rows}) == 2
    assert all(row["n"] == rows[0]["n"] > 500 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["transfer", "nowhere", "--task", "digits"], 2, "nowhere"),
        (["transfer", "scratch:convnet", "--task", "dgits"], 2, "did you mean 'digits'"),
        (["transfer", "scratch:convnet", "--task", "digits", "--shots", "0"], 2, "0"),
        (
            ["transfer", "scratch:convnet", "--task", "digits", "--protocol", "liner"],
            2,
            "did you mean 'linear'",
        ),
        (["transfer", "scratch:convnt", "--task", "digits"], 2, "did you mean 'convnet'"),
        (["train", "supervised", "nowhere", "--out", "out"], 2, "not a dataset"),
        (["train", "supervized", "nowhere"], 2, "supervised"),
        (["experiment", "nowhere.yaml", "--out", "out"], 2, "cannot be read"),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    arguments: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    found, stdout, stderr = run(*arguments)
    assert found == code, stderr
    assert said in stderr
    assert "Traceback" not in stdout + stderr
    assert list(tmp_path.iterdir()) == []


def test_unknown_option_and_wrong_value_are_told(dataset: Callable[..., Dataset], tmp_path: Path):
    data = dataset(pictures(8), classes=2)
    for extra, said in (
        (["--modle", "x"], "--modle"),
        (["--lr", "fast"], "Invalid value for '--lr'"),
        (["--lr", "-1"], "lr is -1"),
    ):
        code, _, stderr = run("train", "supervised", data.path, "--out", tmp_path / "run", *extra)
        assert code == 2, stderr
        assert said in stderr
    assert not (tmp_path / "run").exists()
