"""The options that every method has, and what they mean on this machine."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError

from curate.errors import MissingError, RecipeError, did_you_mean
from train.loader import Cache
from train.runs import Machine

DEFAULT_EPOCHS = 30

C = TypeVar("C", bound="LoopConfig")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What every method's config has.

    Args:
        epochs: passes over the data; 30 where neither this nor `samples` is given.
        samples: images to see in all, whatever the size of the dataset, so that runs on datasets of different
            sizes are equally long.
        batch_size: samples a step.
        optimizer: adamw, sgd, or any of timm's.
        lr: at the peak of the schedule (linear warm-up, then a cosine down to 0).
        weight_decay: of everything but norms and biases.
        warmup_fraction: share of the steps, in [0, 1].
        clip_norm: largest norm of the gradient; None for any.
        seed: of the weights, the order and the crops.
        workers: processes that decode; None for one a core, 16 at most.
        precision: auto is bf16 where a GPU has it, else fp32.
        device: auto is a GPU where there is one.
        cache: keep the decoded images on the device or in memory; none reads them each time; auto keeps squares
            that take less than 2 GB on the device.
        order: shuffled over the whole set; or blocks, which keeps neighbours in the shards near each other, for
            storage that is slow to read here and there.
        checkpoint_s: seconds between checkpoints.
    """

    epochs: int | None = None
    samples: int | None = None
    batch_size: int = 128
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_fraction: float = 0.1
    clip_norm: float | None = None
    seed: int = 0
    workers: int | None = None
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    device: str = "auto"
    cache: Cache = "auto"
    order: Literal["shuffled", "blocks"] = "shuffled"
    checkpoint_s: float = 300.0

    def check(self) -> None:
        """Refuse values that cannot be meant.

        Raises:
            RecipeError: the first of them.
        """
        if self.epochs is not None and self.samples is not None:
            raise RecipeError("epochs and samples are both given", hint="give one of them")
        positive = ("epochs", "samples", "lr", "clip_norm")
        wrong = {
            name: "more than 0" for name in positive if (v := getattr(self, name)) is not None and not v > 0
        }
        if self.batch_size < 2:
            wrong["batch_size"] = "2 or more"
        if not 0 <= self.warmup_fraction <= 1:
            wrong["warmup_fraction"] = "a share, in [0, 1]"
        if not self.weight_decay >= 0:
            wrong["weight_decay"] = "0 or more"
        if self.precision not in ("auto", "bf16", "fp32"):
            wrong["precision"] = "auto, bf16 or fp32"
        for name, must in wrong.items():
            raise RecipeError(f"{name} is {getattr(self, name)}", hint=f"it must be {must}")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the steps of the whole run."""
        if self.samples is not None:
            return math.ceil(self.samples / self.batch_size)
        return (self.epochs or DEFAULT_EPOCHS) * steps_per_epoch

    def deciding(self) -> dict[str, Any]:
        """Return the options that decide the outcome: not who computes it, or how often it is saved."""
        aside = ("workers", "device", "cache", "checkpoint_s")
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in aside}


def parse(kind: type[C], options: Mapping[str, Any], where: str) -> C:
    """Return a config of a kind from the options of a file, checked.

    Raises:
        RecipeError: an option that it does not have, or a value that cannot be; it begins with `where`.
    """
    known = [field.name for field in dataclasses.fields(kind)]
    for name in options:
        if name not in known:
            hint = did_you_mean(str(name), known) or f"it has: {', '.join(known)}"
            raise RecipeError(f"{where}: no option {name!r}", hint=hint)
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


def pick_device(name: str) -> torch.device:
    """Return the device of a config.

    Raises:
        RecipeError: no such device.
        MissingError: this machine has no GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RecipeError(f"no device {name!r}", hint="auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MissingError(f"device {name!r}: torch sees no GPU here", hint="take --device cpu or auto")
    return device


def pick_workers(config: LoopConfig) -> int:
    """Return the number of processes that decode."""
    return config.workers if config.workers is not None else min(16, Machine.here().cores)


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Return the context in which a model runs forward."""
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    wanted = precision == "bf16" or (precision == "auto" and has_bf16)
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)
