"""An experiment from its file to its report, small enough for a test."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import duckdb
import pytest
import torch
import yaml
from handmade import picture
from typer.testing import CliRunner

from curate.errors import RecipeError
from train.cli.__main__ import app
from train.experiments.experiment import bundled, run_experiment
from train.experiments.grid import load_experiment

FAMILIES = {
    "n02276258": "n02274259",
    "n02277742": "n02274259",
    "n01728920": "n01726692",
    "n01734418": "n01726692",
}
TRAIN = {"where": "split = 'train'"}
FOUR = {"classes": {"names": list(FAMILIES)}}
DOCUMENT = {
    "name": "a small experiment",
    "seed": 0,
    "set": {"samples": 32},
    "source": {"synthetic": {"images": 8, "val_images": 3, "size": 32}},
    "datasets": {
        "all": {"steps": [TRAIN, FOUR], "expect": {"classes": 4, "per_class": 8}},
        "coarse": {"steps": [TRAIN, FOUR, {"relabel": {"map": FAMILIES}}], "expect": {"classes": 2}},
        "tars": {"steps": [TRAIN, FOUR], "shards": True, "pretrain": False},
    },
    "validation": {"steps": [{"where": "split = 'val'"}, FOUR]},
    "coarse": "coarse",
    "pretrain": {"model": "convnet", "image_size": 32, "samples": "${samples}", "batch_size": 16},
    "transfer": {
        "tasks": {"figures": "digits"},
        "measure": [
            {"protocol": "linear", "shots": [1, 2], "seeds": 2},
            {
                "protocol": {"finetune": {"lrs": [0.003], "epochs": 1, "min_steps": 2}},
                "shots": [1],
                "seeds": 1,
            },
        ],
    },
}


def written(folder: Path, **changes: object) -> Path:
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(DOCUMENT | changes, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the experiment, run once from the command line."""
    folder = tmp_path_factory.mktemp("experiment")
    for split, label, number in itertools.product(("train", "test"), range(4), range(5)):
        file = folder / "figures" / split / f"colour {label}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(label + 4 * number + 100 * len(split), label))
    transfer = DOCUMENT["transfer"] | {"tasks": {"figures": f"folder:{folder / 'figures'}"}}  # type: ignore[operator]
    torch.set_num_threads(1)  # as in each test: sums of floats depend on how they are shared out
    arguments = ["experiment", str(written(folder, transfer=transfer)), "--out", str(folder / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "nothing" in result.stdout
    return folder / "out"


def test_every_run_is_measured_on_every_task_and_shot_count(done: Path):
    counts = duckdb.sql(
        f"SELECT run, protocol, shots, count(*) FROM read_parquet('{done}/results.parquet') "
        "WHERE headline GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    runs = sorted({run for run, *_ in counts})
    assert [r for r in runs if r.startswith("scratch-")]
    assert {"all", "coarse"} < set(runs)
    assert "tars" not in runs
    assert counts == [
        (run, *cell)
        for run in runs
        for cell in [("finetune", "1", 1), ("linear", "1", 2), ("linear", "2", 2)]
    ]


def test_shards_hold_the_rows_of_their_overlay(done: Path):
    digests = {
        json.loads((done / "datasets" / n / "dataset.json").read_text())["digest"] for n in ("all", "tars")
    }
    assert len(digests) == 1
    assert (done / "datasets" / "tars" / "shards" / "000000.tar").exists()


def test_accuracy_on_held_out_rows_is_of_whole_images(done: Path):
    accuracy = json.loads((done / "experiment.json").read_text())["accuracy"]
    for run in ("all", "coarse"):
        assert accuracy[run]["n"] == 12
        assert (accuracy[run]["top1"] * 12) % 1 == pytest.approx(0, abs=1e-9)
        assert accuracy[run]["coarse_top1"] >= accuracy[run]["top1"]
    assert accuracy["coarse"]["coarse_top1"] == accuracy["coarse"]["top1"]


def test_report_has_the_figures_the_tables_and_every_number(done: Path):
    page = (done / "report" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "a small experiment" in page
    for png in ("worth.png", "transfer.png", "pretraining.png"):
        assert (done / "report" / png).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    ((mean,),) = duckdb.sql(
        f"SELECT avg(value) * 100 FROM read_parquet('{done}/results.parquet') "
        "WHERE headline AND run = 'all' AND shots = '2' AND protocol = 'linear'"
    ).fetchall()
    assert f"{mean:.1f} ±" in page
    assert f"{mean:.1f} ±" in (done / "report" / "report.md").read_text()


def test_second_call_does_nothing_again(done: Path):
    kept = [*done.glob("runs/*/run.json"), *done.glob("datasets/*/dataset.json"), done / "results.parquet"]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in kept}
    assert len(before) == 7
    run_experiment(load_experiment(done.parent / "experiment.yaml"), done)
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in kept}


def test_same_seed_gives_the_same_numbers(done: Path, tmp_path: Path):
    run_experiment(load_experiment(done.parent / "experiment.yaml"), tmp_path / "again")
    query = "SELECT cell, metric, value FROM read_parquet('{}/results.parquet') ORDER BY ALL"
    first, second = (duckdb.sql(query.format(folder)).fetchall() for folder in (done, tmp_path / "again"))
    assert len(first) > 20
    assert first == second


def test_query_sees_datasets_runs_and_results(done: Path):
    sql = "SELECT DISTINCT d.rows, r.method FROM results s "
    sql += "JOIN runs r ON r.run = s.run JOIN datasets d ON d.name = s.dataset"
    result = CliRunner().invoke(app, ["query", sql + " ORDER BY ALL", "--root", str(done), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == [{"rows": 32, "method": "supervised"}]


def test_report_of_nothing_says_what_makes_something(tmp_path: Path):
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert "no runs and no results" in result.stderr
    assert "hint" in result.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"datsets": {}}, "did you mean 'datasets'"),
        ({"coarse": "course"}, "did you mean 'coarse'"),
        ({"datasets": {}}, "datasets"),
        ({"pretrain": {"modle": "convnet"}}, "did you mean 'model'"),
        ({"pretrain": {"method": "magic"}}, "no method 'magic'"),
        ({"pretrain": {"lr": -1.0}}, "lr is -1.0"),
        ({"transfer": {"tasks": {"x": "dgits"}}}, "did you mean 'digits'"),
        (
            {"transfer": {"tasks": {"x": "digits"}, "measure": [{"protocol": "linaer"}]}},
            "did you mean 'linear'",
        ),
        ({"transfer": {"tasks": {"x": "digits"}, "measure": [{"shots": [0]}]}}, "0"),
        ({"datasets": {"all": {"steps": ["smaple"]}}, "coarse": None}, "did you mean 'sample'"),
        ({"source": None}, "no source"),
        ({"datasets": {"../../x": {"recipe": "one.yaml"}}, "coarse": None}, "'../../x' names no folder"),
        ({"datasets": {"/tmp/x": {"steps": []}}, "coarse": None}, "'/tmp/x' names no folder"),
        ({"datasets": {"..": {"recipe": "one.yaml"}}, "coarse": None}, "'..' names no folder"),
        ({"datasets": {"a\n": {"recipe": "one.yaml"}}, "coarse": None}, "names no folder"),
        ({"datasets": {"a": {"recipe": "several.yaml"}}, "coarse": None}, "makes 3 sets, not one"),
        ({"validation": {"recipe": "several.yaml"}}, "makes 3 sets, not one"),
        (
            {"datasets": {"validation": {"steps": []}}, "coarse": None},
            "is the name of what `validation:` says",
        ),
    ],
)
def test_faults_are_found_before_any_work(tmp_path: Path, change: dict, said: str):
    out = tmp_path / "out"
    one = {"name": "one", "source": DOCUMENT["source"], "steps": [TRAIN, FOUR]}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(one))
    several = one | {"matrix": {"n": [1, 2, 3]}, "steps": [{"per_class": "${n}"}]}
    (tmp_path / "several.yaml").write_text(yaml.safe_dump(several))
    with pytest.raises(RecipeError) as caught:
        run_experiment(load_experiment(written(tmp_path, **change)), out)
    assert said in str(caught.value)
    assert not out.exists()


def test_the_demo_is_a_sound_experiment_of_what_the_page_promises():
    experiment = load_experiment(bundled("demo.yaml"))
    trained = [name for name, part in experiment.datasets.items() if part.pretrain]
    assert trained == ["all", "quarter", "coarse", "noisy", "half"]
    assert [name for name, part in experiment.datasets.items() if part.shards] == ["all-in-shards"]
    assert experiment.transfer is not None
    assert len(experiment.transfer.tasks) == 2
    steps = experiment.datasets["coarse"].steps[-1]["relabel"]["map"]
    assert len(steps) == 24
    assert len(set(steps.values())) == 6
