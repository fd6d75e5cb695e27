"""A training step of our peers: their model, their loss and their optimiser, in the order of their own loops.

A peer is a function of a `Job`. It imports and builds, and returns the step, which alone is timed. Inputs are ready on
the device: what a peer's loader and augmentation cost is left out, for them and for the line of ours beside them.
"""

# B samples, H height, W width, L tokens

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

Step = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """What a peer is given.

    Args:
        model: as the peer calls it.
        images: B3HW, float32, normalised, on the device.
        labels: B.
        tokens: BL, for a peer that has texts.
        num_classes: of the labels.
        small: whether a ResNet's stem is that for 32 to 64 px.
        precision: of autocast; float32 for none.
    """

    model: str
    images: Tensor
    labels: Tensor
    tokens: Tensor | None
    num_classes: int
    small: bool
    precision: torch.dtype

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.images.device

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass."""
        wanted = self.precision != torch.float32
        return torch.autocast(self.device.type, self.precision if wanted else torch.bfloat16, enabled=wanted)


def timm(job: Job) -> Step:
    """timm's train.py with --amp --amp-dtype bfloat16 --channels-last --smoothing 0.1 --opt adamw."""
    from timm import create_model
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2

    sized = {"img_size": job.images.shape[-1]} if "vit" in job.model else {}
    model = create_model(job.model, num_classes=job.num_classes, **sized)
    if job.small:
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    model.to(device=job.device, memory_format=torch.channels_last).train()
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    loss_of = LabelSmoothingCrossEntropy(smoothing=0.1).to(device=job.device)
    images = job.images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with job.autocast():
            loss = loss_of(model(images), job.labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def open_clip(job: Job) -> Step:
    """open_clip_train's step with --precision amp_bf16, its parameter groups, and no gathering for one process."""
    from open_clip import create_model
    from open_clip.loss import ClipLoss

    assert job.tokens is not None
    model = create_model(
        job.model,
        device=job.device,
        output_dict=True,
        force_image_size=job.images.shape[-1],
        load_weights=False,
    )
    model.train()
    loss_of = ClipLoss(local_loss=False, gather_with_grad=False, cache_labels=True)
    named = list(model.named_parameters())
    plain = [p for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n]
    rest = [
        p for n, p in named if not (p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n)
    ]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    images = job.images.contiguous()
    room = model.context_length if hasattr(model, "context_length") else job.tokens.shape[1]
    tokens = nn.functional.pad(job.tokens, (0, max(0, room - job.tokens.shape[1])))

    def step() -> None:
        optimizer.zero_grad()
        with job.autocast():
            losses = loss_of(**model(images, tokens), output_dict=True)
            loss = sum(losses.values())
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))

    return step


def lightly(job: Job, *, channels_last: bool = False) -> Step:
    """lightly's SimCLR: torchvision's backbone, its head and loss, as its examples and benchmarks put them together."""
    import torchvision
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    network = torchvision.models.get_model(job.model)
    if job.small:
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    width = network.fc.in_features
    network.fc = nn.Identity()
    kind = torch.channels_last if channels_last else torch.contiguous_format
    model = nn.Sequential(network, nn.Flatten(1), SimCLRProjectionHead(width, width, 128))
    model.to(device=job.device, memory_format=kind).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    loss_of = NTXentLoss(temperature=0.1)
    views = [view.contiguous(memory_format=kind) for view in (job.images, job.images.flip(3))]

    def step() -> None:
        with job.autocast():
            first, second = (model(view) for view in views)
            loss = loss_of(first, second)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


PEERS: dict[str, Callable[[Job], Step]] = {
    "timm": timm,
    "open_clip": open_clip,
    "lightly": lightly,
    "lightly, channels_last": partial(lightly, channels_last=True),
}
PACKAGES = {"timm": "timm", "open_clip": "open_clip_torch", "lightly": "lightly"}
