"""Disks that are full or closed, and numbers beyond anything: every command ends with a sentence and a code."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import math
import os
import resource
import shutil
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any

import pytest
from captioned import coloured_pool
from handmade import pictures
from typer.testing import CliRunner

from curate.builds.build import build as build_set
from curate.cli.app import build, shard, synth
from curate.cli.fetch import fetch
from curate.datasets.dataset import Dataset
from curate.errors import MissingError, RecipeError, machine_error
from curate.io.files import clear_unfinished, unfinished
from curate.recipes.recipe import load
from train.cli.__main__ import app
from train.cli.app import score, transfer
from train.methods import registry, supervised

MakeDataset = Callable[..., Dataset]
NUMBERS = ["1" + "0" * 30, "-1", "0", "nan", "1e400"]
TOLD = {0, 2, 3, 4}


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "TERM": "dumb"})


@contextmanager
def no_room(size: int = 0) -> Iterator[None]:
    """Let no file grow beyond so many bytes: what is written meets an error of the system's own."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool `pool`, a dataset `data` of shards, a run `run` on it, and a file `file`."""
    folder = tmp_path_factory.mktemp("made")
    coloured_pool(folder / "pool", images=4)
    (folder / "recipe.yaml").write_text("name: r\nsource: {folder: {path: pool}}\n")
    [built] = build_set(load(folder / "recipe.yaml"), folder / "data", workers=1)
    data = built.dataset
    config = supervised.SupervisedConfig(
        model="convnet", image_size=8, epochs=1, batch_size=8, workers=0, device="cpu"
    )
    supervised.train(data, folder / "run", config, quiet=True)
    (folder / "file").write_text("")
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of what was made once, for a test to change."""
    return shutil.copytree(made, tmp_path / "place")


COMMANDS: dict[str, list[str]] = {
    "sidecar": ["export", "data", "--to", "croissant"],
    "database": ["export", "data", "--to", "energon"],
    "copy": ["export", "data", "--to", "parquet", "--out", "copy"],
    "gallery": ["show", "data", "--html"],
    "report": ["report", ".", "--out", "page"],
    "synth": ["synth", "drawn", "--images", "1", "--val-images", "1", "--size", "16"],
    "score": ["train", "score", "run", "data", "--device", "cpu", "--workers", "0"],
    "train": ["train", "supervised", "data", "--out", "other", "--model", "convnet", "--image-size", "8",
              "--batch-size", "8", "--epochs", "1", "--device", "cpu", "--workers", "0"],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_told_without_a_traceback(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(place)
    before = sorted(str(path) for path in place.rglob("*") if path.is_file())
    with no_room():
        result = run(*COMMANDS[name])
    assert result.exit_code in {3, 4}, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert "error: " in result.stderr
    assert "hint: " in result.stderr
    after = {str(path) for path in place.rglob("*") if path.is_file() and path.stat().st_size}
    assert after <= set(before), "nothing half written stays"


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "data", "--to", "wids", "--out", "file"],
        ["export", "data", "--to", "parquet", "--out", "file"],
        ["export", "data", "--to", "parquet", "--out", "file/below"],
        ["report", ".", "--out", "file"],
        ["report", ".", "--out", "file/below"],
        ["synth", "file"],
        ["synth", "file/below"],
        ["train", "score", "run", "data", "--out", "file/scores.parquet"],
        ["train", "supervised", "data", "--out", "file/below"],
        ["synth", "x" * 300],
    ],
    ids=lambda arguments: " ".join(arguments)[:60],
)
def test_a_file_where_a_folder_is_wanted_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(place)
    result = run(*arguments)
    assert result.exit_code in {2, 3, 4}, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert "hint: " in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_told() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "train.cli", "ops"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 4, done.stderr
    assert done.stderr.splitlines() == [
        "error: No space left on device",
        "  hint: make room, then run the same command",
    ]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/cd/a"), "/cd/a: Read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/a"), "/root/a: Permission denied"),
        (OSError("a full disk, as pyarrow says: no space left"), "a full disk, as pyarrow says"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
    ],
)
def test_errors_of_the_machine_say_what_where_and_what_next(error: Exception, words: str) -> None:
    told = machine_error(error)
    assert isinstance(told, MissingError)
    assert words in told.message
    assert told.hint
    assert machine_error(ValueError("ours")) is None
    assert machine_error(RuntimeError("ours")) is None


def _numeric(function: Callable[..., Any]) -> list[str]:
    hints = typing.get_type_hints(function)
    return [name for name in inspect.signature(function).parameters if _is_number(hints.get(name))]


def _is_number(hint: Any) -> bool:
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    return int in parts or float in parts


def _option(name: str) -> str:
    return "--" + name.strip("_").replace("_", "-")


@pytest.mark.parametrize("number", NUMBERS)
def test_commands_refuse_numbers_that_cannot_be_meant(
    place: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    monkeypatch.chdir(place)
    (place / "urls.csv").write_text("url\nhttp://127.0.0.1:1/a.jpg\n")

    def stopped(*_: Any, **how: Any) -> None:
        limits = how["limits"]
        assert all(math.isfinite(v) for v in vars(limits).values() if isinstance(v, int | float))
        raise MissingError("far enough", hint="")

    monkeypatch.setattr("curate.fetch.fetching.fetch", stopped)
    bases: list[tuple[Callable[..., Any], list[str]]] = [
        (build, ["build", "recipe.yaml", "--out", "built"]),
        (shard, ["shard", "data"]),
        (synth, ["synth", "drawn", "--images", "1", "--val-images", "1", "--size", "16"]),
        (fetch, ["fetch", "urls.csv", "--out", "fetched"]),
        (score, ["train", "score", "run", "data", "--device", "cpu"]),
        (transfer, ["transfer", "run", "--task", "nothing", "--out", "results.parquet"]),
    ]
    for function, arguments in bases:
        options = _numeric(function)
        assert options
        for name in options:
            result = run(*arguments, _option(name), number)
            said = (arguments, name, number, result.output, result.exception)
            assert result.exit_code in TOLD, said
            assert result.exception is None or isinstance(result.exception, SystemExit), said


@pytest.mark.parametrize("method", registry.METHODS)
def test_methods_refuse_numbers_that_cannot_be_meant(method: str) -> None:
    kind = registry.config_type(method)
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if _is_number(hints[field.name])]
    assert len(names) > 20
    for name in names:
        whole = float not in (typing.get_args(hints[name]) or (hints[name],))
        for number in [10**30, *([] if whole else [math.nan, math.inf])]:
            if number == 10**30 and not whole:
                continue  # a rate of 1e30 is a number, and its loss is soon none
            with pytest.raises(RecipeError, match=f"{name} is") as caught:
                kind(**{name: number}).check()  # type: ignore[call-arg]
            assert caught.value.hint


def test_what_fills_a_variable_may_be_a_value(tmp_path: Path) -> None:
    text = "name: r\nset: {images: 5}\nsource: {folder: {path: pool}}\nsteps: [{per_class: '${images}'}]\n"
    (tmp_path / "recipe.yaml").write_text(text)
    for value in (25, "25"):
        assert load(tmp_path / "recipe.yaml", {"images": value}).steps == [{"per_class": 25}]


def test_wandb_without_a_key_is_told(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = ModuleType("wandb")
    fake.Error = type("Error", (Exception,), {})  # type: ignore[attr-defined]

    def init(**_: Any) -> None:
        raise fake.Error("api_key not configured (no-tty)")  # type: ignore[attr-defined]

    fake.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = supervised.SupervisedConfig(
        model="convnet", image_size=8, epochs=1, batch_size=8, workers=0, device="cpu", wandb="mine"
    )
    with pytest.raises(MissingError, match="api_key not configured") as caught:
        supervised.train(dataset(pictures(16)), tmp_path / "run", config, quiet=True)
    assert "WANDB_API_KEY" in str(caught.value.hint)


def test_the_next_export_clears_what_a_kill_left_of_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    dead = int(done.stdout)
    (place / "data/.nv-meta").mkdir()
    left = [
        place / f"data/.croissant.json.{dead}.tmp",
        place / f"data/shards/.000000.tar.idx.{dead}.tmp",
        place / f"data/.nv-meta/.index.sqlite.{dead}.tmp",
    ]
    theirs = [place / "data/.notes.tmp", place / "data/notes.1.tmp"]
    for file in [*left, *theirs]:
        file.write_text("half")
    with unfinished(place / "data/live.json") as live:
        live.write_text("{}")
        assert run("export", "data", "--to", "croissant").exit_code == 0
        assert live.exists(), "of a process that still writes"
    assert not any(file.exists() for file in left)
    assert all(file.exists() for file in theirs)
    clear_unfinished(place / "nowhere")
