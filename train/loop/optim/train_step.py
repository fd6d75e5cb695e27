"""A training step: forward, backward, optimiser, scaler and weight average."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from curate.errors import RecipeError
from train.data.batch import Batch
from train.loop.config import LoopConfig
from train.loop.determinism import choose_kernels
from train.loop.devices import autocast, number_type
from train.loop.distributed import Distributed
from train.loop.method import Method, PreparedBatch
from train.loop.optim.gradients import backward
from train.loop.optim.norms import shared
from train.loop.optim.optimizers import optimizer, pretraining_rate


class TrainStep:
    """Train a method's module, step by step. A step depends on method, config, step and batch alone.

    Args:
        method: module and loss.
        config: optimiser, rate and precision.
        distributed: the processes that share each batch; their gradients are averaged.
        device: where the module is.
        total_steps: of the run, for the learning rate.
        steps_per_epoch: likewise.

    Attributes:
        failed_step: the first step (from 1) whose loss or gradient was no number, on the device; 0 for none.
    """

    def __init__(
        self,
        method: Method,
        config: LoopConfig,
        distributed: Distributed,
        device: torch.device,
        *,
        total_steps: int,
        steps_per_epoch: int,
    ) -> None:
        self.method, self.config, self.distributed, self.device = method, config, distributed, device
        choose_kernels(config.deterministic)
        if config.sync_norms:
            shared(method.module, distributed)
        self.optimizer = optimizer(method.module, config)
        self.rate = partial(
            pretraining_rate, config, total_steps=total_steps, steps_per_epoch=steps_per_epoch
        )
        kind = number_type(config.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=kind == torch.float16)
        self.autocast = partial(autocast, config.precision, device)
        self.average = _average(method.module, config.ema)
        self.wrapped = self._wrapped()
        self.failed_step = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def lr(self) -> float:
        """The rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    @property
    def measured_module(self) -> nn.Module:
        """The module that is measured and saved: the average of the weights where there is one."""
        return self.average.module if self.average is not None else self.method.module

    def prepare_batch(self, batch: Batch) -> PreparedBatch:
        """Augment, normalise and tokenise a batch, on the device."""
        with torch.no_grad():
            return self.method.prepare_batch(batch)

    def step(self, prepared: PreparedBatch, step: int) -> Tensor:
        """Take a step (from 0) and return this rank's loss, on the device: nothing here waits for a GPU.

        Raises:
            RecipeError: the GPU's memory is too small; it says which batch would fit.
        """
        try:
            return self._step(prepared, step)
        except torch.cuda.OutOfMemoryError:
            pass  # left first, for the exception holds on to what did not fit
        raise self._too_large(prepared)

    def _step(self, prepared: PreparedBatch, step: int) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        loss = self._backward(prepared, self.config.accumulate)
        norm = self._clipped()
        sound = torch.isfinite(loss)
        if not self.scaler.is_enabled():  # a gradient too large for float16 is the scaler's matter
            sound &= torch.isfinite(norm)
        self.failed_step.copy_(
            torch.where((self.failed_step == 0) & ~sound, step + 1, self.failed_step), non_blocking=True
        )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.method.after_step is not None:
            self.method.after_step()
        if self.average is not None:
            self.average.update(self.method.module, step=step)
        return loss

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint, besides the module's own weights."""
        average = self.average.module.state_dict() if self.average is not None else None
        return {
            "name": self.config.optimizer,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": average,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Load what `state` returned; rates and decays are those of this config.

        Raises:
            RecipeError: the state is another optimiser's.
        """
        if state["name"] != self.config.optimizer:
            raise RecipeError(
                f"the checkpoint is of {state['name']}, not of {self.config.optimizer}",
                hint="name the optimizer that this run began with",
            )
        saved, own = state["optimizer"], self.optimizer.state_dict()["param_groups"]
        groups = [
            theirs | ours for theirs, ours in zip(saved["param_groups"], own, strict=True)
        ]  # may count steps
        self.optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"] or self.method.module.state_dict())

    @contextmanager
    def measuring(self) -> Iterator[nn.Module]:
        """Yield the module to measure, in eval mode; afterwards return to train mode."""
        module = self.measured_module
        module.eval()
        try:
            yield module
        finally:
            self.method.module.train()

    def _backward(self, prepared: PreparedBatch, pieces: int) -> Tensor:
        return backward(
            self.method,
            self.wrapped,
            prepared,
            pieces=pieces,
            autocast=self.autocast,
            scale=self.scaler.scale,
        )

    def _clipped(self) -> Tensor:
        """Return the norm of the gradient, and clip it where `clip_norm` says so."""
        parameters = [p for p in self.method.module.parameters() if p.grad is not None]
        if self.config.clip_norm is None:
            return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        self.scaler.unscale_(self.optimizer)
        return nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)

    def _wrapped(self) -> nn.Module:
        module = torch.compile(self.method.module) if self.config.compile else self.method.module
        if self.distributed.world_size == 1:
            return module  # type: ignore[return-value]
        places = [self.device] if self.device.type == "cuda" else None
        # Statistics of norms stay each rank's own where they are not joint, so nothing is sent before a step.
        known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        more: dict[str, Any] = {buffers: False, "gradient_as_bucket_view": True}
        return nn.parallel.DistributedDataParallel(module, device_ids=places, **more)

    def _too_large(self, prepared: PreparedBatch) -> RecipeError:
        """Find by trying how many pieces fit into memory, and return the error that says so."""
        too_large = f"a batch of {self.config.batch_size} does not fit into the GPU's memory"
        pieces = self.config.accumulate
        while self.distributed.world_size == 1 and pieces < len(prepared.inputs[0]):
            pieces *= 2
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            with contextlib.suppress(torch.cuda.OutOfMemoryError):
                self._backward(prepared, pieces)
                fits = max(2, self.config.batch_size * self.config.accumulate // pieces)
                return RecipeError(too_large, hint=f"accumulate {pieces} fits, and so does batch_size {fits}")
        return RecipeError(
            too_large,
            hint=f"take a larger accumulate (it is {self.config.accumulate}), or a smaller batch_size",
        )


def _average(module: nn.Module, decay: float | None) -> Any:
    if decay is None:
        return None
    from timm.utils import ModelEmaV3

    return ModelEmaV3(module, decay=decay, use_warmup=True)
