"""Learn without labels to tell two views of an image from those of all others (SimCLR).

Source: Chen et al., ICML 2020, https://arxiv.org/abs/2002.05709
"""

# B images, V views of each, R = B * V, C classes, D features, P size of a projection, T side in pixels

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curate.datasets.dataset import Dataset
from curate.errors import require
from train.augment.chance import of_view
from train.augment.color import ColorAugment
from train.data.batch import Batch
from train.data.loader import Loader
from train.eval.online_probe import OnlineProbe, probe_loss
from train.loop.config import LoopConfig
from train.loop.distributed import Distributed
from train.loop.method import Columns, Method, PreparedBatch
from train.loop.start import run_method
from train.methods import loaders
from train.methods.loaders import check_batch_fits, check_classes, check_labels
from train.methods.losses import nt_xent
from train.models.registry import Model, build, in_float32, normalize
from train.runs import Run

# Rates are for the preset's batch_size: with another, give lr too (LARS and SGD: in proportion).
PRESETS: dict[str, dict[str, Any]] = {
    # The paper's: lr = 0.3 * batch / 256, ten of a hundred epochs of warm-up.
    "simclr": {
        "model": "resnet50", "epochs": 100, "batch_size": 4096, "optimizer": "lars", "lr": 4.8, "weight_decay": 1e-6,
        "warmup_fraction": 0.1, "temperature": 0.1, "projector_layers": 2, "hidden_dim": 2048, "projection_dim": 128,
    },
    # Entezari et al. 2023, who took SLIP's SimCLR (Mu et al., ECCV 2022): two of sixteen epochs of warm-up.
    "entezari2023": {
        "model": "clip/RN50", "epochs": 16, "batch_size": 1024, "optimizer": "adamw", "lr": 1e-3, "beta2": 0.98,
        "weight_decay": 0.1, "warmup_fraction": 0.125, "temperature": 0.1, "jitter": 0.5,
    },
    # solo-learn's for CIFAR (Turrisi da Costa et al., JMLR 2022): ten of a thousand epochs of warm-up.
    "cifar": {
        "model": "resnet18", "stem": "small", "image_size": 32, "epochs": 1000, "batch_size": 256,
        "optimizer": "larc", "trust": 0.02, "lr": 0.4, "weight_decay": 1e-4, "warmup_fraction": 0.01,
        "temperature": 0.2, "projector_layers": 2, "hidden_dim": 2048, "projection_dim": 256,
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SimclrConfig(LoopConfig):
    """What `train` can be told, besides what every method can.

    timm's lars and larc adapt the rate of a layer only where its weights decay: norms and biases learn at the plain
    rate, as in the paper. Their trust coefficient is 0.001 where `trust` does not say otherwise, the paper's; larc also
    keeps a layer's rate from exceeding the plain one.

    Args:
        model: the backbone: resnet18, resnet50, resnet101, alexnet, convnet, clip/RN50, or any of timm's.
        views: crops of each image, two or more.
        temperature: what cosines are divided by.
        projector_layers: layers of the perceptron between backbone and loss; each but the last has a batch norm and
            a ReLU.
        hidden_dim: width of the hidden layers of this perceptron.
        projection_dim: dimensions of a projection, on which the loss is computed.
        jitter: strength of colour jitter: brightness, contrast and saturation change by up to 0.8 of it, hue by up
            to 0.2 of it.
        jitter_share: share of the views with colour jitter.
        grey_share: share of the views that become grey.
        blur_share: share of the views that are blurred, by a sigma of 0.1 to 2 px over a tenth of the side.
        solarize_share: share of the views that are solarized: light pixels become dark.
        probe: if there are labels, also learn a linear classifier on the features, without changing them (but
            clip_norm counts its gradient too).
        knn_rows: if there are labels, training images among which the nearest neighbours are sought; 0 for no kNN.
        knn_k: neighbours that vote.
        knn_temperature: temperature of the votes of the neighbours.
    """

    batch_size: int = 256
    sync_norms: bool = True
    model: str = "resnet18"
    min_area: float = 0.08
    views: int = 2
    temperature: float = 0.1
    projector_layers: int = 3
    hidden_dim: int = 4096
    projection_dim: int = 256
    jitter: float = 1.0
    jitter_share: float = 0.8
    grey_share: float = 0.2
    blur_share: float = 0.5
    solarize_share: float = 0.0
    probe: bool = True
    knn_rows: int = 10_000
    knn_k: int = 20
    knn_temperature: float = 0.07

    def check(self) -> None:
        """Refuse values that cannot be meant."""
        super().check()
        require(
            self.views >= 2, "views", self.views, "2 or more: a view is told by another of the same image"
        )
        require(0 <= self.jitter <= 2.5, "jitter", self.jitter, "in [0, 2.5]")
        require(self.knn_rows >= 0, "knn_rows", self.knn_rows, "0 or more")
        for name in ("projector_layers", "hidden_dim", "projection_dim", "knn_k"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("temperature", "knn_temperature"):
            require(getattr(self, name) > 0, name, getattr(self, name), "more than 0")
        self.color_augment()

    def color_augment(self) -> ColorAugment:
        """Return the changes of colour and sharpness."""
        strength = 0.8 * self.jitter
        return ColorAugment(
            jitter=(strength, strength, strength, strength / 4),
            jitter_share=self.jitter_share,
            grey_share=self.grey_share,
            blur_share=self.blur_share,
            solarize_share=self.solarize_share,
        )


class SimCLRModel(nn.Module):
    """A backbone, a projector of its features for the loss, and a linear probe where there are classes."""

    def __init__(self, model: Model, config: SimclrConfig, num_classes: int) -> None:
        super().__init__()
        self.backbone = model.backbone
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            self.projector = projector(
                model.feature_dim, config.hidden_dim, config.projection_dim, config.projector_layers
            )
            self.probe = nn.Linear(model.feature_dim, num_classes) if num_classes else None

    def forward(self, images_BV3TT: Tensor) -> Columns:
        """Return projections_BVP, and the probe's logits_BC of the first views where there is one."""
        features_RD = self.backbone(images_BV3TT.flatten(0, 1))
        projections_BVP = self.projector(features_RD).unflatten(0, images_BV3TT.shape[:2])
        if self.probe is None:
            return (projections_BVP,)
        return projections_BVP, in_float32(self.probe, features_RD[:: images_BV3TT.shape[1]].detach())


def projector(inputs: int, hidden: int, outputs: int, layers: int) -> nn.Sequential:
    """Return a perceptron; a batch norm makes a hidden layer's bias needless."""
    widths = [inputs, *[hidden] * (layers - 1)]
    parts: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        parts += [nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts, nn.Linear(widths[-1], outputs))


def train(
    dataset: Dataset,
    out: str | Path,
    config: SimclrConfig,
    *,
    val: Dataset | None = None,
    quiet: bool = False,
) -> Run:
    """Train a backbone without labels, or go on with it, or return it if it is finished.

    Rows of the splits val and test are not learned from. Where there are labels, a kNN and a linear probe are
    measured on `val`, else on the dataset's own rows of the split val, if there are any; the labels never reach the
    backbone.

    Args:
        dataset: what to learn from.
        out: the run's folder.
        config: how.
        val: another dataset of the same classes.
        quiet: say nothing on stderr.

    Raises:
        RecipeError: the config makes no sense, or `out` holds another run.
        DataError: there are too few samples, or labels out of range.
    """
    return run_method("simclr", _prepare, dataset, out, config, val=val, quiet=quiet)


def _prepare(
    dataset: Dataset,
    config: SimclrConfig,
    val: Dataset | None,
    device: torch.device,
    distributed: Distributed,
) -> tuple[Method, Loader]:
    loader = loaders.train_loader(dataset, config, device, distributed, views=config.views, need_labels=False)
    check_batch_fits(loader)
    check_labels(loader)
    check_classes(dataset, val)
    classes = len(dataset.classes) if len(np.unique(loader.labels_N[loader.labels_N >= 0])) > 1 else 0
    model = build(
        config.model, num_classes=0, stem=config.stem, image_size=config.image_size, seed=config.seed
    )
    module = SimCLRModel(model, config, classes if config.probe else 0)
    module = module.to(device).to(memory_format=torch.channels_last)
    seen: dict[str, Tensor] = {}

    def loss(outputs: Columns, targets: Columns) -> Tensor:
        contrast = nt_xent(outputs[0], temperature=config.temperature, distributed=distributed)
        seen["nt_xent"] = contrast.detach()
        if not outputs[1:]:
            return contrast
        probed, seen["probe"] = probe_loss(outputs[1], targets[0], distributed)
        return contrast + probed

    color_augment = config.color_augment()
    method = Method(
        "simclr",
        model.spec,
        module,
        lambda batch: prepare_batch(batch, color_augment),
        loss,
        joint=True,
        evaluate=_monitor(dataset, config, val, device, classes),
        watched=lambda: seen,
        facts={"knn_rows": min(config.knn_rows, len(loader))} if classes and config.knn_rows else {},
    )
    return method, loader


def prepare_batch(batch: Batch, color_augment: ColorAugment) -> PreparedBatch:
    """Change colours and sharpness of each view at random, and normalise: images_BV3TT and labels_B."""
    count = len(batch.views)
    images_R3TT = torch.stack(batch.views, dim=1).flatten(0, 1).to(torch.float32).mul_(1 / 255)
    chances_R = np.stack([of_view(batch.chances, view) for view in range(count)], axis=1).ravel()
    images_R3TT = color_augment(images_R3TT, color_augment.draw(chances_R, batch.epoch))
    return PreparedBatch((normalize(images_R3TT.mul_(255)).unflatten(0, (-1, count)),), (batch.labels,))


def _monitor(
    dataset: Dataset, config: SimclrConfig, val: Dataset | None, device: torch.device, classes: int
) -> OnlineProbe | None:
    """Return the online probe on held-out rows; None where there are none."""
    if not classes or not (config.knn_rows or config.probe):
        return None
    held_out = loaders.val_loader(dataset, val, config, device, need_labels=False)
    if held_out is None:
        return None
    check_labels(held_out)
    if not (held_out.labels_N >= 0).any():
        return None
    # The first rows of a shuffled epoch are a sample of the set; to keep all of it decoded twice is not worth it.
    bank = loaders.plain(dataset, config, device, split="train", order="shuffled", need_labels=False)
    return OnlineProbe(
        held_out,
        bank if config.knn_rows else None,
        config.knn_rows,
        classes,
        config.knn_k,
        config.knn_temperature,
        config.precision,
    )
