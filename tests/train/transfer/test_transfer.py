"""The whole way: a run on tasks, into a file of results."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch

from curate.errors import DataError, MissingError, RecipeError
from train.models.registry import Model, ModelSpec
from train.runs import Run, ScratchRun, finish_run, scratch_run
from train.transfer import Finetune, Grid, Linear, Split, Task, open_run_or_scratch, open_tasks, transfer
from train.transfer import results as results_module
from train.transfer.features import RunFeatures
from train.transfer.images import SquareView, StreamedImages, load_images
from train.transfer.measurements import VERSION
from train.transfer.protocols.linear import Linear as LinearProtocol
from train.transfer.summary import summary_rows, summary_table

QUICK = Finetune(lrs=(1e-3,), min_steps=2, max_steps=2)


def measure(run: Run, task: Task | str, out: Path, **changes: Any) -> list[dict[str, Any]]:
    """Return the rows of a small transfer."""
    options: dict[str, Any] = {"shots": [1, 2], "seeds": 1, "device": "cpu"}
    return transfer(run, [task], out=out, **(options | changes)).to_pylist()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results.parquet"


def test_every_shot_count_is_measured_on_the_whole_test_set(scratch: Run, digits: Task, out: Path) -> None:
    rows = measure(scratch, digits, out, shots=[1, 5, 10, "full"], protocols=["linear", QUICK])
    assert len(rows) == 4 * 2 * 3  # shots, protocols, metrics
    assert {row["n"] for row in rows} == {599}
    images = {(row["shots"], row["protocol"]): row["train_images"] for row in rows}
    for protocol in ("linear", "finetune"):
        assert [images[k, protocol] for k in ("1", "5", "10", "full")] == [10, 50, 100, 1198]


def test_rows_say_what_was_measured(scratch: Run, tiny_task: Task, out: Path) -> None:
    rows = measure(scratch, tiny_task, out, shots=[1, 5, "full"])
    assert [(r["shots"], r["images_per_class"], r["short_classes"], r["select"]) for r in rows[::2]] == [
        ("1", 1, 0, "fixed"),
        ("5", 5, 1, "validation"),
        ("full", None, 0, "validation"),
    ]
    for row in rows:
        assert (row["run"], row["run_digest"], row["dataset"]) == (scratch.name, scratch.digest, None)
        assert (row["task"], row["task_digest"]) == ("tiny", tiny_task.digest)
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert row["headline"] == (row["metric"] == "top1")
        assert json.loads(row["chosen"])["c"] > 0
        assert json.loads(row["config"])["grid"] == "refined"
    assert results_module.read(out).equals(
        results_module.rows_of_measurements(results_module.read(out), [r["cell"] for r in rows])
    )


def test_second_call_measures_nothing_and_answers_the_same(
    scratch: Run, tiny_task: Task, out: Path, monkeypatch
):
    first = measure(scratch, tiny_task, out)
    before = out.read_bytes()

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(LinearProtocol, "measure", refuse)
    assert measure(scratch, tiny_task, out) == first
    assert out.read_bytes() == before
    with pytest.raises(AssertionError, match="measured again"):
        measure(scratch, tiny_task, out, shots=[3])


def test_what_decides_the_value_makes_a_cell_of_its_own(scratch: Run, tiny_task: Task, out: Path) -> None:
    base = measure(scratch, tiny_task, out, shots=[2])
    fewer = Split(tiny_task.test.keys[:-1], tiny_task.test.labels[:-1], tiny_task.test.images)
    fewer = dataclasses.replace(
        fewer, images=dataclasses.replace(fewer.images, pixels=fewer.images.pixels[:-1])
    )
    others = [
        measure(scratch, dataclasses.replace(tiny_task, test=fewer), out, shots=[2]),
        measure(scratch, tiny_task, out, shots=[2], protocols=[Linear(grid="published")]),
        measure(scratch, tiny_task, out, shots=[2], image_size=12),
        measure(scratch_run(scratch.spec, seed=1), tiny_task, out, shots=[2]),
    ]
    assert [len(rows) for rows in (base, *others)] == [2] * 5
    assert results_module.read(out).num_rows == 10
    assert len({row["cell"] for rows in (base, *others) for row in rows}) == 5


def test_broken_off_it_keeps_what_was_measured_and_goes_on(
    scratch: Run, tiny_task: Task, out: Path, monkeypatch
):
    whole = measure(scratch, tiny_task, out.with_name("whole.parquet"), shots=[1, 2, 3], seeds=2)
    calls = 0
    genuine = LinearProtocol.measure

    def stop_at_fourth(self, features, drawn):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return genuine(self, features, drawn)

    monkeypatch.setattr(LinearProtocol, "measure", stop_at_fourth)
    with pytest.raises(KeyboardInterrupt):
        measure(scratch, tiny_task, out, shots=[1, 2, 3], seeds=2)
    assert results_module.read(out).num_rows == 6  # three cells of two metrics
    rows = measure(scratch, tiny_task, out, shots=[1, 2, 3], seeds=2)
    assert calls == 7  # three before, one broken off, three after
    assert [r | {"seconds": 0} for r in rows] == [r | {"seconds": 0} for r in whole]


def test_labels_of_the_test_set_choose_nothing(scratch: Run, dots_task: Task, out: Path) -> None:
    other = tuple((label + 1) % 4 for label in dots_task.test.labels)
    shifted = dataclasses.replace(dots_task, test=dataclasses.replace(dots_task.test, labels=other))
    protocols = ["linear", Finetune(lrs=(1e-3, 3e-3), min_steps=5, max_steps=5)]
    ours, theirs = (
        measure(scratch, task, out, shots=[5, "full"], protocols=protocols) for task in (dots_task, shifted)
    )
    assert [row["chosen"] for row in ours] == [row["chosen"] for row in theirs]
    assert [row["value"] for row in ours] != [row["value"] for row in theirs]


def test_seeds_draw_differently_and_shots_help(scratch: Run, digits: Task, out: Path) -> None:
    rows = [
        r
        for r in measure(scratch, digits, out, shots=[1, 20], seeds=3, protocols=["ridge"])
        if r["metric"] == "top1"
    ]
    values = {k: [r["value"] for r in rows if r["shots"] == k] for k in ("1", "20")}
    assert len(set(values["1"])) == 3
    assert min(values["20"]) > max(values["1"]) > 0.1


def test_trained_run_is_named_with_its_dataset(
    tmp_path: Path, tiny_task: Task, out: Path, scratch: Run
) -> None:
    info = scratch.info.model_dump(exclude={"name", "weights", "code"})
    info |= {"method": "supervised"}
    info["dataset"] = {"name": "pool", "digest": "sha256:0", "rows": 9, "classes": 3, "path": "pool"}
    run = finish_run(tmp_path, info, scratch.weights())
    rows = measure(run, tiny_task, out)
    assert {(r["dataset"], r["dataset_digest"]) for r in rows} == {("pool", "sha256:0")}
    values = [[r["value"] for r in found] for found in (rows, measure(scratch, tiny_task, out))]
    assert values[0] == values[1]  # the same weights, in a file and out of it
    assert {r["run"] for r in rows} != {scratch.name}


def test_progress_tells_each_measurement_and_what_was_left_out(scratch: Run, make_folder, out: Path) -> None:
    root = make_folder({"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 2})
    (root / "train" / "a" / "copy.png").write_bytes((root / "test" / "b" / "0.png").read_bytes())
    lines: list[str] = []
    rows = measure(scratch, f"folder:{root}", out, progress=lines.append)
    assert lines[0].startswith("pictures: train: 1 images left out, identical to test images")
    assert f"{scratch.name} · pictures · 1-shot · linear · seed 0: " in lines[1]
    assert json.loads(rows[0]["notes"]) == [lines[0].removeprefix("pictures: ")]
    measure(scratch, f"folder:{root}", out, progress=lines.append)
    assert lines[-1] == f"{scratch.name} · pictures: 2 of 2 measured already"


class Diverged(ScratchRun):
    """A run whose weights are not numbers."""

    def model(self, *args: Any, **kwargs: Any) -> Model:
        model = super().model(*args, **kwargs)
        torch.nn.init.constant_(next(model.backbone.parameters()), float("nan"))
        return model


@pytest.mark.parametrize("protocol", ["linear", QUICK])
def test_run_that_diverged_is_refused(scratch: Run, tiny_task: Task, out: Path, protocol) -> None:
    run = Diverged(scratch.path, scratch.info)
    with pytest.raises(DataError, match=r"on task 'tiny'.* (not finite|diverged)"):
        measure(run, tiny_task, out, protocols=[protocol])
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"shots": [0]}, RecipeError, "0 is no number of images a class"),
        ({"shots": []}, RecipeError, "no shots"),
        ({"seeds": 0}, RecipeError, "seeds: 0"),
        ({"protocols": ["linnear"]}, RecipeError, "did you mean 'linear'"),
        ({"protocols": ["knn(k=0)"]}, RecipeError, "k is 0"),
        ({"protocols": ["knn(neighbours=3)"]}, RecipeError, "no option 'neighbours'"),
        ({"protocols": ["knn(k"]}, RecipeError, "cannot be read"),
        ({"protocols": ["finetune:kornblit"]}, RecipeError, "no preset 'kornblit'"),
        ({"protocols": ["faster-rcnn"]}, RecipeError, "faster-rcnn is for detection, and task tiny"),
        ({"executor": "rey"}, RecipeError, "did you mean 'ray'"),
        ({"device": "tpu9"}, RecipeError, "no device"),
        ({"image_size": 0}, RecipeError, "image_size"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(
    scratch: Run, tiny_task: Task, out: Path, changes: dict, error: type, says: str
) -> None:
    with pytest.raises(error, match=says):
        measure(scratch, tiny_task, out, **changes)
    assert not out.exists()


def test_unknown_task_is_refused_before_the_first_is_measured(
    scratch: Run, tiny_task: Task, out: Path
) -> None:
    with pytest.raises(RecipeError, match="no task 'digitz'"):
        transfer(scratch, [tiny_task, "digitz"], shots=[1], seeds=1, out=out)
    assert not out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_device_that_is_not_there_is_named(scratch: Run, tiny_task: Task, out: Path) -> None:
    with pytest.raises(MissingError, match="cuda"):
        measure(scratch, tiny_task, out, device="cuda")


def test_scratch_is_named_by_a_model_or_by_the_run_it_is_compared_with(tmp_path: Path, scratch: Run) -> None:
    assert open_run_or_scratch("scratch:convnet", 32).spec == ModelSpec("convnet", "imagenet", 0, 32)
    info = scratch.info.model_dump(exclude={"name", "weights", "code"})
    finish_run(tmp_path, info | {"method": "supervised"}, scratch.weights())
    untrained = open_run_or_scratch(f"scratch:{tmp_path}")
    assert (untrained.spec, untrained.info.method) == (scratch.spec, "scratch")
    assert open_run_or_scratch(str(tmp_path)).info.method == "supervised"
    for wrong in ("scratch:resnet19", str(tmp_path / "none")):
        with pytest.raises(RecipeError):
            open_run_or_scratch(wrong, 32)


def test_scenes(scratch: Run, shared: Path, tmp_path: Path, out: Path) -> None:
    with tarfile.open(shared / "data" / "scene15.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    rows = measure(
        scratch, f"folder:{tmp_path / 'scene15'}", out, shots=[5, "full"], seeds=2, protocols=["ridge"]
    )
    top1 = [row for row in rows if row["metric"] == "top1"]
    assert {(row["task"], row["n"]) for row in rows} == {("scene15", 150)}
    assert [row["train_images"] for row in top1 if row["shots"] == "5"] == [75, 75]
    assert np.mean([row["value"] for row in top1]) > 1.5 / 15  # random weights; chance is 1 in 15
    assert duckdb.sql(f"SELECT count(DISTINCT shots) FROM '{out}'").fetchall() == [(2,)]


def test_protocols_without_chance_at_full_are_measured_once(scratch: Run, tiny_task: Task, out: Path) -> None:
    rows = measure(scratch, tiny_task, out, shots=[2, "full"], seeds=3, protocols=["knn", "linear"])
    counts = {(r["protocol"], r["shots"]): 0 for r in rows}
    for row in rows:
        counts[row["protocol"], row["shots"]] += row["headline"]
    assert counts == {("knn", "2"): 3, ("knn", "full"): 1, ("linear", "2"): 3, ("linear", "full"): 3}


def test_choice_by_the_test_set_is_marked_in_every_row_and_in_the_table(
    scratch: Run, tiny_task: Task, out: Path
) -> None:
    protocols = ["linear", "knn", dataclasses.replace(QUICK, epochs=(1,))]
    rows = measure(scratch, tiny_task, out, shots=[2], protocols=protocols, select="test")
    assert {(r["protocol"], r["select"]) for r in rows} == {
        ("linear", "test"), ("finetune", "test"), ("knn", "none")
    }  # fmt: skip
    columns, lines = summary_table(results_module.read(out))
    values = {line[columns.index("protocol")]: line for line in lines}
    assert sum("†" in line[4] for line in lines) == 2
    assert "†" not in values["knn"][4]
    with pytest.raises(RecipeError, match="did you mean 'test'"):
        measure(scratch, tiny_task, out, select="tests")


def test_drawing_with_replacement_makes_a_cell_of_its_own_and_says_so(
    scratch: Run, tiny_task: Task, out: Path
) -> None:
    plain = measure(scratch, tiny_task, out, shots=[4])
    again = measure(scratch, tiny_task, out, shots=[4], sampling="replacement")
    assert [(r["sampling"], r["train_images"], r["short_classes"]) for r in (plain[0], again[0])] == [
        ("distinct", 10, 1),
        ("replacement", 12, 1),
    ]
    assert any("drawn with replacement" in line[2] for line in summary_table(results_module.read(out))[1])


def test_partitions_of_a_task_are_averaged(scratch: Run, tiny_task: Task, out: Path) -> None:
    turned = dataclasses.replace(tiny_task, train=tiny_task.test, test=tiny_task.train)
    parts = [dataclasses.replace(t, partition=p) for t, p in ((tiny_task, "1"), (turned, "2"))]
    rows = transfer(scratch, parts, shots=["full"], seeds=1, protocols=["knn"], out=out, device="cpu")
    assert {(r["partition"], r["n"]) for r in rows.to_pylist()} == {("1", 12), ("2", 14)}
    (cell,) = summary_rows(rows)
    values = [r["value"] for r in rows.to_pylist() if r["headline"]]
    assert (cell.mean, cell.seeds) == (pytest.approx(np.mean(values)), 2)


def test_images_that_do_not_fit_in_memory_are_read_again_to_the_same_numbers(
    scratch: Run, dots_task: Task, out: Path, monkeypatch
) -> None:
    protocols = ["linear", "knn", QUICK]
    kept = measure(scratch, dots_task, out, shots=[2, "full"], protocols=protocols)
    monkeypatch.setattr("train.transfer.images.MEMORY_SHARE", 0.0)
    fresh = dataclasses.replace(dots_task)
    streamed = measure(
        scratch, fresh, out.with_name("streamed.parquet"), shots=[2, "full"], protocols=protocols
    )
    found = next(iter(fresh.__dict__["_images"].values()))
    assert isinstance(found.train.squares, StreamedImages)
    assert [r["value"] for r in streamed] == [r["value"] for r in kept]


def test_image_that_does_not_decode_stops_a_stream_with_its_number(
    scratch: Run, make_folder, out: Path, monkeypatch
) -> None:
    root = make_folder({"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 2})
    picture = root / "test" / "b" / "1.png"
    picture.write_bytes(picture.read_bytes()[:45])
    monkeypatch.setattr("train.transfer.images.MEMORY_SHARE", 0.0)
    with pytest.raises(DataError, match="image test/b/1 does not decode"):
        measure(scratch, f"folder:{root}", out)


@pytest.mark.slow
def test_ray_gives_the_rows_that_one_process_gives(
    cluster: Any, scratch: Run, tiny_task: Task, out: Path
) -> None:
    asked: dict[str, Any] = {"shots": [1], "seeds": 1, "protocols": ["knn", QUICK], "device": "cpu"}
    here = transfer(scratch, [tiny_task], out=out, **asked).to_pylist()
    lines: list[str] = []
    ray_out = out.with_name("ray.parquet")
    there = transfer(
        scratch, [tiny_task], out=ray_out, executor="ray", progress=lines.append, **asked
    ).to_pylist()
    key = lambda row: (row["cell"], row["metric"])  # noqa: E731
    alike = [sorted(({**r, "seconds": 0} for r in rows), key=key) for rows in (here, there)]
    assert alike[0] == alike[1]
    assert len(lines) == 2
    protocols = ["knn(k=2)", "linear(layer=nope)"]
    with pytest.raises(RecipeError, match="no layer"):  # and what was measured before is kept
        transfer(scratch, [tiny_task], out=ray_out, executor="ray", **asked | {"protocols": protocols})
    assert {r["config"] for r in results_module.read(ray_out).to_pylist() if '"k": 2' in r["config"]}


def test_several_grids_share_a_runs_features_and_a_cell_of_both_is_measured_once(
    scratch: Run, tiny_task: Task, out: Path, monkeypatch
) -> None:
    passes: list[int] = []
    genuine = RunFeatures._forward
    monkeypatch.setattr(RunFeatures, "_forward", lambda self, *rest: passes.append(1) or genuine(self, *rest))
    grids = [Grid([1, 2], 1, ["knn"]), Grid([2], 1, ["knn", "ridge"])]
    rows = transfer(scratch, [tiny_task], grids, out=out, device="cpu").to_pylist()
    assert len(passes) == 2  # of train and test
    assert sorted((r["protocol"], r["shots"]) for r in rows if r["headline"]) == [
        ("knn", "1"),
        ("knn", "2"),
        ("ridge", "2"),
    ]


def test_several_runs_share_a_task(scratch: Run, tiny_task: Task, out: Path) -> None:
    other = scratch_run(scratch.spec, seed=1)
    rows = transfer([scratch, other], [tiny_task], shots=[1], seeds=1, out=out, device="cpu").to_pylist()
    assert {row["run"] for row in rows} == {scratch.name, other.name}
    columns, (line,) = summary_table(results_module.read(out))
    assert columns[-2:] == [scratch.name, other.name]
    values = [row["value"] for row in rows if row["headline"]]
    assert [float(cell.split(" ± ")[0]) for cell in line[-2:]] == [round(value * 100, 1) for value in values]


def test_sizes_of_several_grids_are_each_measured_at_their_own(
    scratch: Run, dots_task: Task, out: Path
) -> None:
    grids = [Grid([5], 1, ["ridge"], image_size=size) for size in (16, 8)]
    both = transfer(scratch, [dots_task], grids, out=out, device="cpu").to_pylist()
    alone = transfer(
        scratch, [dots_task], grids[1], out=out.with_name("alone.parquet"), device="cpu"
    ).to_pylist()
    of_size = {row["image_size"]: row["value"] for row in both if row["headline"]}
    assert of_size[8] == next(row["value"] for row in alone if row["headline"]) != of_size[16]
    assert [cell.protocol for cell in summary_rows(results_module.read(out))] == [
        "ridge, 16 px",
        "ridge, 8 px",
    ]


def test_run_given_twice_is_measured_once_and_one_of_another_name_has_rows_of_its_own(
    scratch: Run, tiny_task: Task, out: Path
) -> None:
    twice = transfer([scratch, scratch], [tiny_task], shots=[1], seeds=1, out=out, device="cpu")
    assert twice.num_rows == 2 == results_module.read(out).num_rows
    renamed = ScratchRun(scratch.path, scratch.info.model_copy(update={"name": "another"}))
    rows = transfer(renamed, [tiny_task], shots=[1], seeds=1, out=out, device="cpu").to_pylist()
    assert {row["run"] for row in rows} == {"another"}


def test_second_look_at_the_labels_is_measured_when_it_comes(
    scratch: Run, tiny_task: Task, out: Path
) -> None:
    before = measure(scratch, tiny_task, out, shots=[1])
    accepted = np.eye(3, dtype=bool)[np.array(tiny_task.test.labels)]
    accepted[:2] = False  # two images in which nobody found anything
    looked = dataclasses.replace(tiny_task, test=dataclasses.replace(tiny_task.test, accepted=accepted))
    after = measure(scratch, looked, out, shots=[1])
    found = {row["metric"]: row for row in after}
    assert {row["metric"] for row in before} == {"top1", "mean_per_class"}
    assert (found["real_top1"]["n"], found["top1"]["n"]) == (10, 12)


def test_labels_of_a_second_look_stay_with_their_images_when_one_is_left_out(make_folder) -> None:
    root = make_folder({"train/a": 2, "train/b": 2, "test/a": 2, "test/b": 2})
    picture = root / "test" / "a" / "0.png"
    picture.write_bytes(picture.read_bytes()[:45])
    (task,) = open_tasks(f"folder:{root}")
    accepted = np.eye(4, 2, dtype=bool)
    task = dataclasses.replace(task, test=dataclasses.replace(task.test, accepted=accepted))
    assert load_images(task, SquareView(8)).test.accepted.tolist() == accepted[1:].tolist()


@pytest.mark.parametrize(
    ("protocol", "says"),
    [("zero-shot", "has no texts"), ("finetune(head=zero-shot)", "has no texts")],
)
def test_protocol_that_is_not_for_a_run_is_refused_before_any_work(
    scratch: Run, tiny_task: Task, out: Path, protocol: str, says: str
) -> None:
    with pytest.raises(RecipeError, match=says):
        measure(scratch, tiny_task, out, protocols=["knn", protocol])
    assert not out.exists()


def test_place_that_cannot_be_written_is_told_before_any_work(
    scratch: Run, tiny_task: Task, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(LinearProtocol, "measure", None)
    with pytest.raises(MissingError, match="cannot be written"):
        measure(scratch, tiny_task, tmp_path / "file" / "results.parquet")


def test_versions_of_the_measuring_are_not_averaged(scratch: Run, tiny_task: Task, out: Path) -> None:
    table = transfer(scratch, [tiny_task], shots=[1], seeds=2, out=out, device="cpu")
    older = [row | {"version": 1, "cell": row["cell"] + "-older"} for row in table.to_pylist()]
    results_module.append(out, older)
    cells = summary_rows(results_module.read(out))
    assert [(cell.seeds, cell.protocol) for cell in cells] == [
        (2, f"linear, version {VERSION}"),
        (2, "linear, version 1"),
    ]
