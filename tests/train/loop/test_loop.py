"""What the loop does around the steps: measure, keep, say, dry_run, profile, refuse."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from handmade import pictures

from curate.datasets.dataset import Dataset
from curate.errors import DataError, MissingError, RecipeError
from train import runs
from train.loop import checkpoints
from train.methods import supervised
from train.methods.supervised import SupervisedConfig, train
from train.models.weights import weight_bytes
from train.runs import BEST, open_run

MakeDataset = Callable[..., Dataset]
SMALL = SupervisedConfig(
    model="convnet", image_size=8, epochs=4, batch_size=8, workers=0, device="cpu", log_steps=4
)


def with_(**changes: Any) -> SupervisedConfig:
    return dataclasses.replace(SMALL, **changes)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def stopped_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a signal come in a step, once."""
    calls = iter(range(1, 1000))

    def normalize(images: torch.Tensor) -> torch.Tensor:
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return NORMALIZE(images)

    monkeypatch.setattr(supervised, "normalize", normalize)


NORMALIZE = supervised.normalize


def test_it_is_measured_along_the_way_and_the_best_is_kept(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([0.2, 0.7, 0.5, 0.7])
    monkeypatch.setattr(supervised, "model_accuracy", lambda *_: {"top1": next(told)})
    seen: dict[str, bytes] = {}
    save = runs.save_weights

    def saved(path: Path, weights: Any) -> str:
        seen[path.name + str(len(seen))] = weight_bytes(weights)
        return save(path, weights)

    monkeypatch.setattr("train.loop.loop.save_weights", saved)
    data = dataset([*pictures(16, split="train"), *pictures(8, split="val")])
    run = train(data, tmp_path / "run", with_(evaluate_epochs=1))
    measured = [(line["step"], line["measured"]["top1"]) for line in lines(run.path) if "measured" in line]
    assert measured == [(2, 0.2), (4, 0.7), (6, 0.5), (8, 0.7)]
    assert run.info.best == runs.Best(step=4, value=0.7)
    assert list(seen) == ["best.safetensors0", "best.safetensors1"]
    assert (run.path / BEST).read_bytes() == seen["best.safetensors1"]
    assert run.info.metrics["top1"] == 0.7


def test_last_checkpoints_are_kept_with_weights_for_any_reader(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    stopped_at(6, monkeypatch)
    with pytest.raises(SystemExit):
        train(dataset(pictures(32)), tmp_path / "run", with_(checkpoint_s=0.0, keep_checkpoints=3))
    files = sorted((tmp_path / "run" / "checkpoints").glob("*.safetensors"))
    assert [f.stem for f in files] == [f"step-00000000{n}" for n in (4, 5, 6)]
    weights = load_file(files[-1])
    assert {name.partition(".")[0] for name in weights} == {"backbone", "head"}
    run = train(dataset(pictures(32), "again"), tmp_path / "whole", with_())
    assert {name: w.shape for name, w in run.weights().items()} == {n: w.shape for n, w in weights.items()}


def test_average_is_what_the_run_keeps(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset(pictures(16))
    plain = train(data, tmp_path / "plain", with_())
    averaged = train(data, tmp_path / "averaged", with_(ema=0.5))
    assert averaged.info.metrics["loss"] == plain.info.metrics["loss"]  # it learned the same
    assert averaged.digest != plain.digest


@pytest.mark.parametrize(
    "options", [{"accumulate": 3}, {"ema": 0.9, "optimizer": "lamb"}, {"precision": "fp16"}]
)
def test_every_way_to_learn_goes_on_exactly(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    data, config = dataset(pictures(16)), with_(**options)
    whole = train(data, tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        stopped_at(3, patch)
        with pytest.raises(SystemExit):
            train(data, tmp_path / "parts", config)
    torch.manual_seed(99)
    assert train(data, tmp_path / "parts", config).digest == whole.digest


def test_checkpoint_of_another_plan_is_gone_on_with_only_if_told(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, other = dataset(pictures(32)), dataset(pictures(48), "other")
    stopped_at(6, monkeypatch)
    with pytest.raises(SystemExit):
        train(data, tmp_path / "run", SMALL)
    with pytest.raises(
        RecipeError, match=r"(?s)dataset: sha.*--adopt goes on from its checkpoint all the same"
    ):
        train(other, tmp_path / "run", SMALL)
    with pytest.raises(
        DataError, match=r"(?s)weights of another model \(backbone\.bn1\.bias: missing, not \(64,\)\)"
    ):
        train(data, tmp_path / "run", with_(model="resnet18", adopt=True))
    run = train(other, tmp_path / "run", with_(adopt=True))
    assert run.info.dataset
    assert run.info.dataset.digest == other.digest
    assert run.info.steps == 24
    with pytest.raises(RecipeError, match="holds a run of another plan"):  # it is finished now
        train(data, tmp_path / "run", with_(adopt=True))


class Loud:
    """Would tell if it was unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import os; os.environ['CHECKPOINT_RAN'] = 'yes'",)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content | {"state": content["state"] | {"samples": Loud()}},
        lambda content: content | {"state": content["state"] | {"step": "many"}},
        lambda content: content | {"state": content["state"] | {"broken": [1]}},
        lambda content: content | {"state": None},
        lambda content: {"state": content["state"]},
    ],
    ids=["runs", "text", "list", "none", "missing"],
)
def test_a_hostile_checkpoint_is_refused(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]
) -> None:
    data = dataset(pictures(32))
    stopped_at(6, monkeypatch)
    with pytest.raises(SystemExit):
        train(data, tmp_path / "run", SMALL)
    [file] = (tmp_path / "run" / "checkpoints").glob("*.pt")
    torch.save(change(torch.load(file, weights_only=True)), file)
    with pytest.raises(DataError, match="cannot be read") as caught:
        train(data, tmp_path / "run", SMALL)
    assert "delete it" in str(caught.value.hint)
    assert "CHECKPOINT_RAN" not in os.environ


def test_full_disk_leaves_the_checkpoint_before(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(pictures(32))
    whole = train(data, tmp_path / "whole", SMALL)
    write = checkpoints.write_atomic

    def full(path: Path, data: bytes) -> None:
        if path.name == "step-000000005.pt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_atomic", full)
        with pytest.raises(
            MissingError, match=r"(?s)step-000000005\.pt: cannot be written \(No space left.*make room"
        ):
            train(data, tmp_path / "run", with_(checkpoint_s=0.0))
    kept = sorted(f.name for f in (tmp_path / "run" / "checkpoints").glob("*.pt"))
    assert kept == ["step-000000003.pt", "step-000000004.pt"]
    assert train(data, tmp_path / "run", SMALL).digest == whole.digest


def test_metrics_go_to_tensorboard_too(dataset: MakeDataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(dataset(pictures(32)), tmp_path / "run", with_(tensorboard=True))
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    logged = {line["step"]: line["loss"] for line in lines(run.path) if "loss" in line}
    written = {event.step: event.value for event in events.Scalars("loss")}
    assert written == pytest.approx(logged, rel=1e-6)
    assert "samples_per_s" in events.Tags()["scalars"]


def test_trackers_that_are_not_installed_are_told(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingError, match=r"(?s)wandb is not installed.*curate-train\[wandb\]"):
        train(dataset(pictures(32)), tmp_path / "run", with_(wandb="mine"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingError, match=r"(?s)TensorBoard is not installed.*curate-train\[tensorboard\]"):
        train(dataset(pictures(32), "more"), tmp_path / "other", with_(tensorboard=True))


def offline_history(file: Path) -> list[dict[str, Any]]:
    """Read what wandb logged from its file of one block: 7 bytes, then records of CRC, length, type and a message."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, history, at = file.read_bytes(), [], 7
    assert data.startswith(b":W&B")
    assert len(data) < 32_768
    while at < len(data):
        length = int.from_bytes(data[at + 4 : at + 6], "little")
        record = Record.FromString(data[at + 7 : at + 7 + length])
        if record.HasField("history"):
            items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            history.append(items)
        at += 7 + length
    return history


def test_wandb_itself_gets_the_metrics_without_a_network(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="needs curate-train[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = train(dataset(pictures(32)), tmp_path / "run", with_(wandb="mine"))
    [file] = run.path.glob("wandb/offline-run-*/*.wandb")
    got = {line["_step"]: line["loss"] for line in offline_history(file) if "loss" in line}
    assert got == {line["step"]: line["loss"] for line in lines(run.path) if "loss" in line}
    assert len(got) == 4


def test_dry_run_takes_a_step_and_leaves_nothing(
    dataset: MakeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        train(dataset(pictures(32)), tmp_path / "run", with_(dry_run=True, model="resnet18", image_size=32))
    assert stopped.value.code == 0
    assert not (tmp_path / "run").exists()
    said = capsys.readouterr().out
    assert (
        "resnet18, 11,178,564 parameters" in said
    )  # torchvision's 11,689,512, less its head, and one for 4 classes
    assert "input 0: (8, 3, 32, 32) float32 on cpu" in said
    assert "4 steps an epoch, 16 in all" in said
    assert "FLOPs: 0.2" in said  # 6 x 37 M multiplications and additions
    assert "memory: " in said


def test_profile_prints_a_table_and_leaves_a_trace(
    dataset: MakeDataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = train(dataset(pictures(32)), tmp_path / "run", with_(profile=2))
    assert "aten::" in capfd.readouterr().err
    events = json.loads((run.path / "trace.json").read_text())["traceEvents"]
    assert any("convolution" in str(event.get("name")) for event in events)


def test_a_line_of_the_log_says_how_fast_it_was(dataset: MakeDataset, tmp_path: Path) -> None:
    run = train(dataset(pictures(32)), tmp_path / "run", SMALL)
    line = lines(run.path)[0]
    assert {"step", "epoch", "loss", "lr", "samples_per_s", "data_wait", "memory_gb"} <= line.keys()
    assert "mfu" not in line  # of a CPU, whose peak is not known
    assert run.info.flops_per_sample
    assert run.info.flops_per_sample > 1e6
    assert run.info.dataset
    assert run.info.dataset.recipe == {}
    assert open_run(run.path).info == run.info


def test_checkpoint_beyond_the_end_is_not_taken_for_a_finished_run(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(pictures(32))
    stopped_at(6, monkeypatch)
    with pytest.raises(SystemExit):
        train(data, tmp_path / "run", SMALL)
    with pytest.raises(RecipeError, match=r"checkpoint is at step 6, and this plan has 4\n.*more epochs"):
        train(data, tmp_path / "run", with_(epochs=1, adopt=True))
    assert len(list((tmp_path / "run" / "checkpoints").glob("*.pt"))) == 1


def test_second_process_in_a_runs_folder_is_refused(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    data = dataset(pictures(32))
    stopped_at(6, monkeypatch)
    with pytest.raises(SystemExit):
        train(data, tmp_path / "run", SMALL)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with open(tmp_path / "run" / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RecipeError, match="another process is training here"):
            train(data, tmp_path / "run", SMALL)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    run = train(data, tmp_path / "run", SMALL)
    assert not (run.path / "lock").exists()


@pytest.mark.parametrize("step", [0, 6])
def test_what_a_kill_left_of_a_file_neither_stays_nor_stands_in_the_way(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    data, run = dataset(pictures(32)), tmp_path / "run"
    if step:
        stopped_at(step, monkeypatch)
        with pytest.raises(SystemExit):
            train(data, run, SMALL)
        (run / "checkpoints/.step-000000007.safetensors.4711.tmp").write_bytes(b"half")
    run.mkdir(exist_ok=True)
    (run / "lock").touch()
    (run / ".plan.json.4711.tmp").write_bytes(b"{")
    done = train(data, run, SMALL)
    assert done.digest == train(data, tmp_path / "whole", SMALL).digest
    assert not list(run.rglob("*.tmp"))


def test_folder_that_cannot_be_made_is_told(dataset: MakeDataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        MissingError, match=r"(?s)file/run: cannot be written \(Not a directory\).*can be written"
    ):
        train(dataset(pictures(32)), tmp_path / "file" / "run", SMALL)


def test_it_is_never_measured_on_what_it_learns_from(dataset: MakeDataset, tmp_path: Path) -> None:
    plain, held = (
        dataset(pictures(16)),
        dataset([*pictures(16, split="train"), *pictures(8, split="val")], "held"),
    )
    with pytest.raises(RecipeError, match="measured on the images that it learns from"):
        train(plain, tmp_path / "run", SMALL, val=plain)
    with pytest.raises(
        RecipeError, match=r"(?s)evaluate_epochs is 1, and there is nothing to measure on.*--val"
    ):
        train(plain, tmp_path / "run", with_(evaluate_epochs=1))
    own, again = train(held, tmp_path / "own", SMALL), train(held, tmp_path / "again", SMALL, val=held)
    assert own.info.metrics == again.info.metrics
    assert train(plain, tmp_path / "other", SMALL, val=held).info.metrics["top1"] * 8 % 1 == 0


def test_rank_whose_torchrun_is_gone_takes_that_for_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    from train.loop.signals import Stop

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    stop = Stop()
    assert stop.heard() == 0
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert stop.heard() == signal.SIGTERM
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert Stop().heard() == 0


def test_refused_adoption_leaves_the_run_to_its_own_command(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(pictures(32))
    whole = train(data, tmp_path / "whole", SMALL)
    stopped_at(6, monkeypatch)
    with pytest.raises(SystemExit):
        train(data, tmp_path / "run", SMALL)
    for other in ({"model": "resnet18"}, {"optimizer": "sgd"}):
        with pytest.raises(
            (DataError, RecipeError), match=r"another model|checkpoint is of adamw, not of sgd"
        ):
            train(data, tmp_path / "run", with_(adopt=True, **other))
    assert train(data, tmp_path / "run", SMALL).digest == whole.digest


def test_adopted_checkpoint_learns_by_the_new_numbers(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from train.loop.optim.train_step import TrainStep

    data = dataset(pictures(32))
    stopped_at(6, monkeypatch)
    with pytest.raises(SystemExit):
        train(data, tmp_path / "run", SMALL)
    groups: list[dict[str, Any]] = []
    learn = TrainStep.step

    def seen(train_step: TrainStep, *arguments: Any) -> Any:
        groups[:] = train_step.optimizer.param_groups
        return learn(train_step, *arguments)

    monkeypatch.setattr(TrainStep, "step", seen)
    train(data, tmp_path / "run", with_(adopt=True, weight_decay=0.5, beta2=0.98))
    assert {group["weight_decay"] for group in groups} == {0.5, 0.0}
    assert {group["betas"] for group in groups} == {(0.9, 0.98)}


def test_measurement_that_fails_loses_nothing(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset([*pictures(32, split="train"), *pictures(8, split="val")])
    whole = train(data, tmp_path / "whole", SMALL)

    def fails(*_: Any) -> dict[str, float]:
        raise DataError("no image can be read")

    with monkeypatch.context() as patch:
        patch.setattr(supervised, "accuracy", fails)
        with pytest.raises(DataError):
            train(data, tmp_path / "run", SMALL)
    assert [f.name for f in (tmp_path / "run" / "checkpoints").glob("*.pt")] == ["step-000000016.pt"]
    run = train(data, tmp_path / "run", SMALL)
    assert (run.digest, run.info.metrics) == (whole.digest, whole.info.metrics)
    assert run.info.flops_per_sample == whole.info.flops_per_sample


def test_run_stopped_where_it_is_measured_is_measured_once(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset([*pictures(32, split="train"), *pictures(8, split="val")])
    whole = train(data, tmp_path / "whole", with_(evaluate_epochs=1))
    with monkeypatch.context() as patch:
        stopped_at(4, patch)
        with pytest.raises(SystemExit):
            train(data, tmp_path / "run", with_(evaluate_epochs=1))
    run = train(data, tmp_path / "run", with_(evaluate_epochs=1))
    measured = [[line for line in lines(one.path) if "measured" in line] for one in (whole, run)]
    assert measured[0] == measured[1]
    assert [line["step"] for line in measured[0]] == [4, 8, 12, 16]
    assert run.info.best == whole.info.best
    assert run.digest == whole.digest


def test_measuring_changes_nothing_that_is_learned(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset([*pictures(32, split="train"), *pictures(8, split="val")])
    often = train(data, tmp_path / "often", with_(evaluate_epochs=1))
    assert train(data, tmp_path / "once", SMALL).digest == often.digest


def test_gradient_that_is_no_number_in_the_last_step_is_found(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from train.loop.optim import train_step

    backward = train_step.backward
    calls = iter(range(1, 100))

    def spoiled(method: Any, module: Any, *rest: Any, **more: Any) -> Any:
        loss = backward(method, module, *rest, **more)
        if next(calls) == 16:
            next(module.parameters()).grad.fill_(torch.nan)
        return loss

    monkeypatch.setattr(train_step, "backward", spoiled)
    with pytest.raises(RecipeError, match="no number at step 16"):
        train(dataset(pictures(32)), tmp_path / "run", SMALL)
    assert not (tmp_path / "run" / "run.json").exists()


def test_speed_does_not_count_measuring(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from train.loop.metrics.throughput import Meter

    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    meter = Meter(torch.device("cpu"))
    with meter.waiting:
        now[0] = 1.0
    meter.add(100)
    now[0] = 14.0
    meter.leave_out(10.0)
    told = meter.read()
    assert (told["samples_per_s"], told["data_wait"]) == (25.0, 0.25)
    meter.add(10)
    now[0] = 15.0
    assert meter.read()["samples_per_s"] == 10.0


def test_second_ctrl_c_stops_at_once_and_other_signals_may_come_twice() -> None:
    from train.loop.signals import Stop, exit_code

    before = signal.getsignal(signal.SIGTERM)
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.heard() == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    assert exit_code(signal.SIGTERM) == exit_code(signal.SIGUSR1) == 0
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert exit_code(stop.heard()) == 130
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
