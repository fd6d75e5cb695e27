"""The options that every method has, and what they mean on this machine."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from curate.errors import RecipeError, reject_unknown, require
from train.augment.views import CropFrom
from train.data.loader import MAX_WORKERS, Cache
from train.loop.devices import Precision
from train.models.registry import Stem

DEFAULT_EPOCHS = 30

Schedule = Literal["cosine", "step", "constant"]

POSITIVE = (
    "image_size", "epochs", "samples", "accumulate", "lr", "eps", "trust", "step_epochs", "step_factor",
    "clip_norm", "evaluate_epochs", "keep_checkpoints", "log_steps",
)  # fmt: skip
SHARES = ("momentum", "beta1", "beta2", "ema")
# The most that can be meant of whole numbers that memory or processes are made of; of others, as far as floats count.
MOST = {
    "image_size": 16_384, "workers": MAX_WORKERS, "profile": 100_000, "seed": 2**63 - 1, "views": 1000,
    "randaugment": 1000, "context_length": 65_536, "embed_dim": 65_536, "text_width": 65_536, "hidden_dim": 65_536,
    "projection_dim": 65_536, "text_layers": 1000, "projector_layers": 1000,
}  # fmt: skip
MOST_OF_OTHERS = 2**53
CHOICES = {"stem": Stem, "crop_from": CropFrom, "schedule": Schedule, "precision": Precision}

C = TypeVar("C", bound="LoopConfig")


# Options that do not decide a result: where it is computed, what is printed, and how often it is saved.
RUNTIME_ONLY = (
    "workers", "device", "cache", "checkpoint_s", "keep_checkpoints", "log_steps", "tensorboard", "wandb",
    "profile", "dry_run", "adopt", "compile",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What every method's config has.

    Args:
        stem: "small" is for images of 32 to 64 px and ResNets; at 64 px it costs 15 times "imagenet".
        image_size: side of the images in pixels.
        crop_from: the middle square, shrunk to 8/7 of the image size, or the whole photo; auto uses squares up to
            96 px. Only squares can be cached.
        min_area: smallest share of an image that a random crop may take.
        epochs: passes over the data; 30 if neither this nor `samples` is given.
        samples: images to see in all, whatever the size of the dataset, so that runs on datasets of different
            sizes are equally long.
        batch_size: samples a step, over all processes.
        accumulate: pieces that a batch is computed in, if it does not fit into memory at once; a contrastive loss
            still sees the whole batch.
        optimizer: the optimizer: adamw, sgd (Nesterov), or any of timm's, such as lars, lamb or muon.
        lr: learning rate at the peak of the schedule.
        weight_decay: weight decay of everything but norms and biases.
        momentum: momentum of sgd, lars and the like.
        beta1: beta1 of adamw and the like.
        beta2: beta2 of adamw and the like.
        eps: epsilon of adamw and the like.
        trust: what lars and larc multiply the ratio of a layer's norm to its gradient's by; None for timm's 0.001.
        schedule: after the warm-up, a cosine down to 0, steps down by `step_factor`, or constant.
        warmup_fraction: share of the steps over which the rate rises, in [0, 1].
        warmup_steps: the same as a number of steps, in place of the share.
        step_epochs: epochs between two steps down.
        step_factor: what a step down multiplies the rate by.
        clip_norm: largest norm of the gradient; None for any.
        ema: decay a step of an average of the weights, such as 0.9999, which is then what is measured and kept.
        sync_norms: let batch norms see the whole batch if several processes share it.
        seed: seed of the weights, the order and the crops.
        workers: processes that decode; None for one a core, 16 at most.
        precision: number format; auto is bf16 on GPUs that have it, fp16 on older ones, else fp32.
        device: where to compute; auto is a GPU if there is one.
        compile: compile the model with torch.compile: minutes at the start, faster steps.
        deterministic: use only kernels that repeat bit for bit, on a GPU too; slower there. The run names the
            operators that have none.
        cache: keep the decoded images on the device or in memory; none reads them each time; auto keeps squares
            on the device that take less than a quarter of a GPU's free memory, or of the host's 2 GB.
        order: shuffled over the whole set; or blocks, which keeps neighbours in the shards near each other, for
            storage with slow random reads.
        evaluate_epochs: epochs between two measurements; None measures only at the end.
        checkpoint_s: seconds between checkpoints.
        keep_checkpoints: how many of the last to keep until the run is done; the best weights measured are kept too.
        log_steps: steps between lines of the log; each line waits for the GPU once.
        tensorboard: also write the metrics for TensorBoard, into the run's folder.
        wandb: project of Weights & Biases that also gets the metrics, if wandb is installed.
        profile: steps to profile after the first ten; the table is printed, the trace goes into the run's folder.
        dry_run: take one step, print shapes, parameters, FLOPs and memory, and write nothing.
        adopt: continue from the checkpoint in the run's folder even if its plan differs (other data or options).
    """

    stem: Stem = "imagenet"
    image_size: int = 224
    crop_from: CropFrom = "auto"
    min_area: float = 0.25
    epochs: int | None = None
    samples: int | None = None
    batch_size: int = 128
    accumulate: int = 1
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    trust: float | None = None
    schedule: Schedule = "cosine"
    warmup_fraction: float = 0.1
    warmup_steps: int | None = None
    step_epochs: float = 30.0
    step_factor: float = 0.1
    clip_norm: float | None = None
    ema: float | None = None
    sync_norms: bool = False
    seed: int = 0
    workers: int | None = None
    precision: Precision = "auto"
    device: str = "auto"
    compile: bool = False
    deterministic: bool = False
    cache: Cache = "auto"
    order: Literal["shuffled", "blocks"] = "shuffled"
    evaluate_epochs: int | None = None
    checkpoint_s: float = 300.0
    keep_checkpoints: int = 2
    log_steps: int = 10
    tensorboard: bool = False
    wandb: str | None = None
    profile: int = 0
    dry_run: bool = False
    adopt: bool = False

    def check(self) -> None:
        """Refuse values that cannot be meant.

        Raises:
            RecipeError: the first of them.
        """
        self._check_numbers()
        must: dict[str, tuple[Callable[[Any], bool], str]] = {
            **dict.fromkeys(POSITIVE, (lambda value: value > 0, "more than 0")),
            **dict.fromkeys(SHARES, (lambda value: 0 <= value < 1, "in [0, 1)")),
            "min_area": (lambda value: 0 < value <= 1, "a share, in (0, 1]"),
            "batch_size": (lambda value: value >= 2, "2 or more"),
            "warmup_fraction": (lambda value: 0 <= value <= 1, "a share, in [0, 1]"),
            "warmup_steps": (lambda value: value >= 0, "0 or more"),
            "weight_decay": (lambda value: value >= 0, "0 or more"),
            "seed": (lambda value: value >= 0, "0 or more"),
            "profile": (lambda value: value >= 0, "0 or more"),
            "checkpoint_s": (lambda value: value >= 0, "0 or more"),
        }
        for name, choices in CHOICES.items():
            must[name] = (get_args(choices).__contains__, "one of: " + ", ".join(get_args(choices)))
        for name, (holds, wanted) in must.items():
            value = getattr(self, name)
            if value is not None and not holds(value):
                raise RecipeError(f"{name} is {value}", hint=f"it must be {wanted}")
        if self.epochs is not None and self.samples is not None:
            raise RecipeError("epochs and samples are both given", hint="give one of them")
        if self.accumulate * 2 > self.batch_size:
            raise RecipeError(
                f"accumulate is {self.accumulate} for batches of {self.batch_size}",
                hint="a piece needs two samples at least",
            )

    def _check_numbers(self) -> None:
        """Refuse numbers that are none, and whole ones beyond anything."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float):
                require(math.isfinite(value), field.name, value, "a finite number")
            elif isinstance(value, int):
                most = MOST.get(field.name, MOST_OF_OTHERS)
                require(value <= most, field.name, value, f"{most:,} at most")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the steps of the whole run."""
        if self.samples is not None:
            return math.ceil(self.samples / self.batch_size)
        return (self.epochs or DEFAULT_EPOCHS) * steps_per_epoch

    def result_options(self) -> dict[str, Any]:
        """Return the options that decide a result: all but those of `RUNTIME_ONLY`."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in RUNTIME_ONLY}

    def warmup(self, total_steps: int) -> int:
        """Return the steps over which the rate rises."""
        steps = round(self.warmup_fraction * total_steps) if self.warmup_steps is None else self.warmup_steps
        return min(steps, total_steps)


def parse(
    kind: type[C],
    options: Mapping[str, Any],
    where: str,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
) -> C:
    """Return a config of a kind from the options of a file, checked.

    Args:
        options: by name; `preset` names some to begin with, which the others replace.
        presets: that there are.

    Raises:
        RecipeError: an option that it does not have, or a value that cannot be; it begins with `where`.
    """
    options = dict(options)
    if "preset" in options:
        options = preset(presets or {}, str(options.pop("preset")), where) | options
    known = [field.name for field in dataclasses.fields(kind)]
    for name in options:
        reject_unknown(name, known, f"{where}: no option {name!r}")
    try:
        config = TypeAdapter(kind).validate_python(dict(options))
        config.check()
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise RecipeError(f"{where}: {name} is {first['input']!r}", hint=first["msg"]) from error
    except RecipeError as error:
        raise RecipeError(f"{where}: {error.message}", hint=error.hint) from error
    return config


def preset(presets: Mapping[str, Mapping[str, Any]], name: str, where: str) -> dict[str, Any]:
    """Return the options of a preset.

    Raises:
        RecipeError: there is none of that name.
    """
    reject_unknown(name, presets, f"{where}: no preset {name!r}")
    return dict(presets[name])
