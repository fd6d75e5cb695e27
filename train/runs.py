"""A run on disk: its plan (`plan.json`), checkpoints, metrics, weights, and `run.json`, written last.

A folder with `run.json` is a finished run. In `model.safetensors` the names start with `backbone.`, and with
`head.` for a classifier; each other part of a method (a projector, a text encoder) has a first word of its own.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from curate.errors import MissingError, RecipeError
from curate.io.executors import cores
from curate.io.files import write_atomic
from curate.io.records import Record, read_record
from train.data.provenance import DatasetUsed
from train.models.registry import Model, ModelSpec, rebuild
from train.models.weights import bytes_digest, fill_weights, read_weights, weight_bytes

RUN = "run.json"
PLAN = "plan.json"
WEIGHTS = "model.safetensors"
METRICS = "metrics.jsonl"
BEST = "best.safetensors"
CHECKPOINTS = "checkpoints"
FORMAT = 1


class Machine(Record):
    """The machine that a run was made on."""

    python: str
    torch: str
    device: str
    cores: int

    @classmethod
    def of_device(cls, device: str = "cpu") -> Machine:
        """Describe this machine."""
        name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
        return cls(python=platform.python_version(), torch=torch.__version__, device=name, cores=cores())


class Best(Record):
    """The best of a run's measurements along the way: of the first metric."""

    step: int
    value: float


class RunInfo(Record):
    """The content of `run.json`."""

    format: int = FORMAT
    name: str
    method: str  # supervised, clip, simclr, scratch
    spec: ModelSpec
    dataset: DatasetUsed | None  # None for scratch
    config: dict[str, Any]
    seed: int
    steps: int
    samples_seen: int
    samples_fingerprint: str | None = None  # equal for runs that saw the same samples in the same order
    seconds: float
    metrics: dict[str, float]  # final: loss, and top1, top5 (0..1) where there was something to evaluate on
    best: Best | None = None  # of best.safetensors
    facts: dict[str, Any] = Field(default_factory=dict)  # what else the method records
    flops_per_sample: float | None = None  # of forward and backward
    ranks: int = 1  # processes that shared each batch
    nondeterministic: list[str] = Field(default_factory=list)  # operators that warned, with `deterministic`
    weights: str  # "sha256:…" of model.safetensors
    code: str  # version of this package
    machine: Machine


class Run:
    """A finished run, opened for reading. Get one with `open_run`."""

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path = path
        self.info = info

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.info.name

    @property
    def spec(self) -> ModelSpec:
        """The spec of its model."""
        return self.info.spec

    @property
    def digest(self) -> str:
        """The digest of the weights: "sha256:…" of their file."""
        return self.info.weights

    def __repr__(self) -> str:
        return (
            f"Run({self.name!r}, {self.info.method}, {self.spec.name}, {self.info.samples_seen} samples seen)"
        )

    def backbone(self, device: str | torch.device = "cpu") -> Model:
        """Return the trained model without its head, in eval mode: calling it gives features_BD.

        Raises:
            DataError: the weights are missing, or not those that the run wrote.
        """
        return self.model(device, num_classes=0)

    def model(
        self, device: str | torch.device = "cpu", *, num_classes: int | None = None, seed: int = 0
    ) -> Model:
        """Return the trained model, in eval mode.

        Args:
            device: where to put it.
            num_classes: a fresh head of so many outputs, drawn from `seed`, in place of the run's own.
            seed: for the fresh head.

        Raises:
            DataError: the weights are missing, or not those that the run wrote.
        """
        model = rebuild(self.spec, num_classes=num_classes, seed=seed)
        weights = self.weights()
        parts = ("backbone.",) if num_classes is not None else ("backbone.", "head.")
        own = {name: value for name, value in weights.items() if name.startswith(parts)}
        if num_classes:
            own |= {f"head.{name}": value for name, value in model.head.state_dict().items()}
        fill_weights(model, own, self.path / WEIGHTS)
        return model.to(device).to(memory_format=torch.channels_last).eval()

    def weights(self) -> dict[str, Tensor]:
        """Return every tensor that the run saved, on the CPU; checks that they are those it wrote.

        Raises:
            DataError: the weights are missing, or not those that the run wrote.
        """
        return read_weights(self.path / WEIGHTS, self.info.weights)


class ScratchRun(Run):
    """No pre-training at all: random weights, so that transfer can say what pre-training was worth."""

    def model(
        self, device: str | torch.device = "cpu", *, num_classes: int | None = None, seed: int = 0
    ) -> Model:
        """Return the model with the random weights of the run's seed; a fresh head is drawn from `seed`."""
        model = rebuild(self.spec, num_classes=num_classes, seed=self.info.seed)
        if num_classes:
            model.head = rebuild(self.spec, num_classes=num_classes, seed=seed).head
        return model.to(device).to(memory_format=torch.channels_last).eval()

    def weights(self) -> dict[str, Tensor]:
        """Return the random weights."""
        return dict(self.model().state_dict())


def scratch_run(spec: ModelSpec, seed: int = 0) -> ScratchRun:
    """Return a run that never trained; it has no folder."""
    info = RunInfo(
        name=f"scratch-{spec.name.replace('/', '-')}-seed{seed}",
        method="scratch",
        spec=spec,
        dataset=None,
        config={},
        seed=seed,
        steps=0,
        samples_seen=0,
        seconds=0.0,
        metrics={},
        weights=bytes_digest(weight_bytes(rebuild(spec, num_classes=0, seed=seed).state_dict())),
        code=code_version(),
        machine=Machine.of_device(),
    )
    return ScratchRun(Path(os.devnull), info)


def open_run(path: str | Path) -> Run:
    """Open a finished run.

    Raises:
        RecipeError: there is no run at `path`, or it is unfinished.
        DataError: `run.json` is damaged or of another format.
    """
    path = Path(path)
    try:
        return Run(path, read_record(path / RUN, RunInfo, format_version=FORMAT, hint="train it again"))
    except (FileNotFoundError, NotADirectoryError):
        raise _no_run(path) from None


def _no_run(path: Path) -> RecipeError:
    if (path / PLAN).exists():
        return RecipeError(
            f"{path}: unfinished run (no {RUN})", hint="the command that began it goes on where it stopped"
        )
    inner = sorted(path.glob(f"*/{RUN}")) if path.is_dir() else []
    if inner:
        return RecipeError(f"{path}: not a run but a folder of runs", hint=f"name one, as {inner[0].parent}")
    return RecipeError(
        f"{path}: not a run (no {RUN})", hint="`curate train supervised DIR --out RUN` makes one"
    )


def finish_run(
    path: Path,
    info: dict[str, Any],
    weights: Mapping[str, Tensor],
    *,
    writes: bool = True,
    wait: Callable[[], None] = lambda: None,
) -> Run:
    """Write the weights, then `run.json`, and return the finished run.

    Args:
        path: the run's folder.
        info: the fields of RunInfo, less those that follow from the weights and the code.
        weights: what was learned, named as the module says.
        writes: whether this process is the one of several that does.
        wait: until it has.
    """
    if writes:
        digest = save_weights(path / WEIGHTS, weights)
        record = RunInfo(**info, name=path.resolve().name, weights=digest, code=code_version())
        write_atomic(path / RUN, record.model_dump_json(indent=2).encode() + b"\n")
    wait()
    return open_run(path)


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> str:
    """Write weights as safetensors, and return their digest.

    Raises:
        MissingError: the disk is full, or the file cannot be written.
    """
    data = weight_bytes(weights)
    with located_write_errors(path):
        write_atomic(path, data)
    return bytes_digest(data)


@contextmanager
def located_write_errors(path: Path) -> Iterator[None]:
    """Turn an error of writing a file or folder into one that names it.

    Raises:
        MissingError: the disk is full, or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise MissingError(
            f"{path}: cannot be written ({error.strerror})",
            hint="make room; the same command goes on from the last checkpoint, if there is one"
            if full
            else "take a folder that can be written",
        ) from error


def code_version() -> str:
    """Return the version of this package."""
    try:
        return importlib.metadata.version("curate-train")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
