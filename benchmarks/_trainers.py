"""Our side of the benchmark of trainers: the sets it reads, and the steps it takes.

Everything is the trainers' own: the method as `train` prepares it, the training step that the loop calls, the loader.
"""

from __future__ import annotations

import inspect
import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from _traffic import training_bytes
from torch import Tensor

from curate.datasets.dataset import Dataset, open_dataset
from train.data.batch import Batch
from train.loop.distributed import Distributed
from train.loop.method import Method, PreparedBatch
from train.loop.metrics import flops
from train.loop.optim.train_step import TrainStep
from train.methods import registry

Side = Callable[[], object]  # takes one step


@dataclass(frozen=True)
class Setup:
    """What is measured.

    Args:
        method: supervised, clip, simclr.
        options: of its config.
        peers: names in `_peers.PEERS`, and the model as they call it.
        pixels: side of the stored images; above 96 px they are decoded anew each time, else kept on the device.
        goal: samples a second on one H200, bf16.
    """

    method: str
    options: dict[str, Any]
    peers: dict[str, str] = field(default_factory=dict)
    pixels: int = 256
    goal: int | None = None


def _options(model: str, batch: int, size: int = 224, **more: Any) -> dict[str, Any]:
    return {"model": model, "batch_size": batch, "image_size": size, **more}


DRAWN = 8  # different images of a class; the rest are copies, which cost as much to read and decode
HEAD = {"projector_layers": 2, "projection_dim": 128, "probe": False, "knn_rows": 0}  # lightly's, the paper's
LIGHTLY = ("lightly", "lightly, channels_last")
# Of a GPU: the sizes that are published. Batches fill an H200 less than half, so that a peer fits beside.
LARGE: dict[str, Setup] = {
    "supervised resnet50": Setup("supervised", _options("resnet50", 512), {"timm": "resnet50"}, goal=5_500),
    "supervised resnet18 at 32 px": Setup(
        "supervised",
        _options("resnet18", 2048, 32, stem="small"),
        {"timm": "resnet18"},
        pixels=37,
        goal=60_000,
    ),
    "supervised ViT-B/16": Setup(
        "supervised", _options("vit_base_patch16_224", 256), {"timm": "vit_base_patch16_224"}
    ),
    "clip ViT-B-32": Setup("clip", _options("ViT-B-32", 1024), {"open_clip": "ViT-B-32"}, goal=6_500),
    "clip ViT-B-16": Setup("clip", _options("ViT-B-16", 512), {"open_clip": "ViT-B-16"}, goal=2_400),
    "clip RN50": Setup("clip", _options("RN50", 512), {"open_clip": "RN50"}, goal=3_500),
    "simclr resnet50": Setup(
        "simclr",
        _options("resnet50", 256, hidden_dim=2048, **HEAD),
        dict.fromkeys(LIGHTLY, "resnet50"),
        goal=2_500,
    ),
}
# The same for a CPU: the same code on as little as shows that it runs.
TINY: dict[str, Setup] = {
    "supervised resnet50": Setup("supervised", _options("resnet50", 16, 32), {"timm": "resnet50"}, pixels=37),
    "supervised resnet18 at 32 px": Setup(
        "supervised", _options("resnet18", 16, 32, stem="small"), {"timm": "resnet18"}, pixels=37
    ),
    "supervised ViT-Ti/16": Setup(
        "supervised", _options("vit_tiny_patch16_224", 16, 64), {"timm": "vit_tiny_patch16_224"}, pixels=73
    ),
    "clip ViT-S-32-alt": Setup(
        "clip", _options("ViT-S-32-alt", 16, 64), {"open_clip": "ViT-S-32-alt"}, pixels=73
    ),
    "simclr resnet18": Setup(
        "simclr",
        _options("resnet18", 16, 32, hidden_dim=512, **HEAD),
        dict.fromkeys(LIGHTLY, "resnet18"),
        pixels=37,
    ),
}


def write_pool(folder: Path, pixels: int, images: int) -> Dataset:
    """Draw at least so many labelled and captioned images, and build an overlay over them."""
    from curate.builds.build import build
    from curate.recipes.recipe import parse
    from curate.sources.synthetic.classes import POOL
    from curate.sources.synthetic.folders import write_folder

    drawn = min(DRAWN, -(-images // len(POOL)))
    write_folder(folder / "images", classes=POOL, images_per_class={"train": drawn}, size=pixels, seed=0)
    for file in sorted((folder / "images").rglob("*.jpg")):
        for copy in range(1, -(-images // (len(POOL) * drawn))):
            shutil.copy(file, file.with_stem(f"{file.stem}_{copy}"))
    steps = [{"caption": {"templates": "openai-80"}}]
    recipe = {"name": "bench", "source": {"folder": str(folder / "images")}, "steps": steps}
    [made] = build(parse(recipe), folder / "set", overlay=True)
    return open_dataset(made.dataset.path)


class Ours:
    """A method and its training step, ready to take steps on one batch.

    Args:
        setup: which.
        dataset: what is read.
        device: where it runs.
        workers: of the loader.
        compiled: whether torch.compile makes the model's kernels.
    """

    def __init__(
        self, setup: Setup, dataset: Dataset, device: torch.device, workers: int, compiled: bool
    ) -> None:
        module = registry.method(setup.method)
        self.setup, self.dataset, self.module, self.device = setup, dataset, module, device
        self.options = {**setup.options, "device": str(device), "workers": workers, "compile": compiled}
        config = registry.config_of(setup.method, {**self.options, "epochs": 1}, "benchmark")
        more = {"quiet": True} if "quiet" in inspect.signature(module._prepare).parameters else {}
        method, loader = module._prepare(dataset, config, None, device, Distributed(), **more)
        self.method: Method = method
        self.train_step = TrainStep(
            method, config, Distributed(), device, total_steps=10_000, steps_per_epoch=100
        )
        self.batch: Batch = next(iter(loader.epoch(0)))
        method.module.train()
        self.prepared = self._full(self.train_step.prepare_batch(self.batch))
        self._steps = 0

    def step(self) -> None:
        """Learn from inputs that are ready: what a peer's step is compared with."""
        self.train_step.step(self.prepared, self._steps)
        self._steps += 1

    def synthetic(self) -> None:
        """Learn from a batch that lies on the device as bytes: augment, normalise, tokenise, learn."""
        self.train_step.step(self.train_step.prepare_batch(self.batch), self._steps)
        self._steps += 1

    def end_to_end(self, steps: int, out: Path) -> dict[str, float]:
        """Train from the dataset as a user does; return the median samples a second and share of waiting."""
        shutil.rmtree(out, ignore_errors=True)
        every = max(1, steps // 10)
        told = {**self.options, "samples": steps * self.batch_size, "log_steps": every, "checkpoint_s": 1e9}
        config = registry.config_of(self.setup.method, told, "benchmark")
        self.module.train(self.dataset, out, config, quiet=True)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        lines = [line for line in lines if "samples_per_s" in line]
        late = lines[len(lines) // 3 :]  # kernels are chosen and workers started before
        return {
            name: statistics.median(line[name] for line in late) for name in ("samples_per_s", "data_wait")
        }

    @property
    def batch_size(self) -> int:
        """Samples a step."""
        return len(self.batch)

    @property
    def images(self) -> Tensor:
        """Images as a module gets them: ours where it takes one an image, else noise of that size."""
        images = self.prepared.inputs[0]
        if self.setup.method != "simclr":
            return images
        size = self.setup.options["image_size"]
        return torch.randn(self.batch_size, 3, size, size, device=self.device)

    @property
    def tokens(self) -> Tensor | None:
        """The texts as the module gets them."""
        return self.prepared.inputs[1] if self.setup.method == "clip" else None

    def costs(self) -> dict[str, float]:
        """Return FLOPs a sample and, where the backbone is convolutional, bytes a sample."""
        found = {"flops": flops.per_sample(self.method, self.prepared)}
        if "vit" not in self.setup.options["model"].lower():
            found["bytes"] = training_bytes(self.method.module, self.prepared.inputs)
        return found

    def _full(self, prepared: PreparedBatch) -> PreparedBatch:
        """Give texts the model's whole length: ours are cut to the longest of a batch, our peer's are not."""
        if self.setup.method != "clip":
            return prepared
        generator = torch.Generator().manual_seed(0)
        tokens_BL = torch.randint(1, 40_000, (self.batch_size, 77), generator=generator)
        tokens_BL[:, -1] = 49_407  # the end
        return PreparedBatch((prepared.inputs[0], tokens_BL.to(self.device)), prepared.targets)


def timed(side: Side, steps: int, device: torch.device) -> float:
    """Return the seconds of some steps."""
    _wait(device)
    began = time.perf_counter()
    for _ in range(steps):
        side()
    _wait(device)
    return time.perf_counter() - began


def memory_gb(side: Side, device: torch.device) -> float | None:
    """Return the memory that a step takes at most beyond what is held before it, weights and all included."""
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    timed(side, 1, device)
    return torch.cuda.max_memory_allocated(device) / 1e9


def steps_for(side: Side, seconds: float, device: torch.device) -> int:
    """Return how many steps fill some seconds, after a warm-up; one without any where it is to fill none."""
    if not seconds:
        return 1
    timed(side, 3, device)
    return max(1, round(seconds / timed(side, 1, device)))


def alternate(
    sides: dict[str, Side], rounds: int, seconds: float, device: torch.device
) -> dict[str, list[float]]:
    """Return the seconds a step of each side, by rounds, in an order that changes from round to round."""
    steps = {name: steps_for(side, seconds, device) for name, side in sides.items()}
    names = list(sides)
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in _rotated(names, turn):
            found[name].append(timed(sides[name], steps[name], device) / steps[name])
    return found


def _rotated(names: list[str], turn: int) -> Iterable[str]:
    return names[turn % len(names) :] + names[: turn % len(names)]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
