"""Learn which text belongs to which image, by the loss of CLIP or SigLIP."""

# B pairs of an image and a text, E of the space where both meet

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import Tensor, nn

from curate.datasets.dataset import Dataset
from curate.errors import printable, require, require_one_of
from train.augment.upload import upload
from train.data.batch import Batch
from train.data.captions import caption_arguments, caption_warnings
from train.data.loader import Loader
from train.data.text_columns import CaptionChoices
from train.eval.zero_shot import prompts_of, zero_shot_accuracy
from train.loop.config import LoopConfig
from train.loop.distributed import Distributed
from train.loop.method import Columns, Method, PreparedBatch
from train.loop.start import run_method
from train.methods import loaders
from train.methods.loaders import check_batch_fits
from train.models.dual_encoder import EMBED_DIM, DualEncoder, DualEncoderSpec, build_dual_encoder
from train.models.registry import normalize
from train.models.tokenizer import Tokenizer
from train.runs import Run

LossName = Literal["clip", "siglip"]
CaptionChoice = Literal["drawn", "fixed"]

PRESETS: dict[str, dict[str, Any]] = {
    # Entezari et al. 2023, by their repository and its log: OpenCLIP, 8 GPUs of 128 pairs each. 16 epochs are for
    # sources of 2.7 M and more; ImageNet-Captions had 32, templated ImageNet 90; LAION-1M and CC3M batches of 512.
    # min_area is open_clip's; the README has "the augmentations of SimCLR", which contradicts it.
    "entezari2023": {
        "model": "RN50",
        "optimizer": "adamw",
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.1,
        "lr": 1e-3,
        "batch_size": 1024,
        "warmup_steps": 5_000,
        "epochs": 16,
        "min_area": 0.9,
    },
    # For 64 px on a CPU; ours.
    "small": {
        "model": "convnet",
        "image_size": 64,
        "batch_size": 256,
        "min_area": 0.5,
        "text_width": 128,
        "text_layers": 2,
        "context_length": 32,
        "weight_decay": 0.1,
    },
}


@dataclass(frozen=True, kw_only=True)
class ClipConfig(LoopConfig):
    """What `train` can be told, besides what every method can.

    Args:
        model: a model of open_clip, such as RN50, ViT-B-32 or ViT-B-16, which brings its text encoder; or a model that
            supervised knows (timm's as timm/NAME), with a projection and a small text encoder.
        loss: the loss: clip, a softmax over the whole batch; or siglip, a sigmoid for each pair.
        captions: the texts: drawn anew each epoch from all texts of a row (its list `captions`, or the templates of
            the recipe's `caption` step); or fixed, the row's own.
        context_length: tokens of a text; longer texts are cut.
        embed_dim: dimensions of the space that images and texts share; a model of open_clip has its own.
        text_width: width of the text encoder; None for the model's own, or 256.
        text_layers: layers of the text encoder; None for the model's own, or 4.
        templates: prompts of the zero-shot accuracy: a text with {}, or openai-80; None for the templates of the
            captions, or else one template.
    """

    model: str = "RN50"
    min_area: float = 0.9
    loss: LossName = "clip"
    captions: CaptionChoice = "drawn"
    context_length: int = 77
    embed_dim: int = EMBED_DIM
    text_width: int | None = None
    text_layers: int | None = None
    templates: str | None = None

    def check(self) -> None:
        """Refuse values that cannot be meant."""
        super().check()
        require_one_of(LossName, "loss", self.loss)
        require_one_of(CaptionChoice, "captions", self.captions)
        require(
            self.context_length >= 3, "context_length", self.context_length, "3 or more"
        )  # start, text, end
        for name in ("embed_dim", "text_width", "text_layers"):
            value = getattr(self, name)
            require(value is None or value > 0, name, value, "more than 0")

    @property
    def dual_encoder(self) -> DualEncoderSpec:
        """The spec of the two encoders."""
        return DualEncoderSpec(**{field.name: getattr(self, field.name) for field in fields(DualEncoderSpec)})


def train(
    dataset: Dataset,
    out: str | Path,
    config: ClipConfig,
    *,
    val: Dataset | None = None,
    quiet: bool = False,
) -> Run:
    """Train an image and a text encoder, resume their run, or return it if it is finished.

    Rows of the splits val and test are not learned from. Zero-shot accuracy is measured on `val`, else on the
    dataset's own rows of the split val, where their classes have names.

    Args:
        dataset: what to learn from; every row needs a caption, and none a label.
        out: the run's folder.
        config: how.
        val: a dataset with classes, not necessarily the same.
        quiet: say nothing on stderr.

    Raises:
        RecipeError: the config makes no sense, or `out` holds another run.
        DataError: captions are missing, there are too few samples.
    """
    return run_method("clip", partial(_prepare, quiet=quiet), dataset, out, config, val=val, quiet=quiet)


def _prepare(
    dataset: Dataset,
    config: ClipConfig,
    val: Dataset | None,
    device: torch.device,
    distributed: Distributed,
    *,
    quiet: bool,
) -> tuple[Method, Loader]:
    loader = loaders.train_loader(dataset, config, device, distributed, need_labels=False)
    choices = loader.samples.caption_choices if config.captions == "drawn" else loader.samples.fixed_captions
    say = Console(stderr=True, quiet=quiet or not distributed.first)
    for warning in caption_warnings(choices, loader.samples.chances_N, config.batch_size, str(dataset.path)):
        text = printable(f"warning: {dataset.path}: {warning}")
        say.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
    check_batch_fits(loader)
    measured, prompts_C = _measured(dataset, config, val, device)
    dual_encoder = (
        build_dual_encoder(config.dual_encoder, seed=config.seed)
        .to(device)
        .to(memory_format=torch.channels_last)
    )
    return method_of(dual_encoder, choices, config, distributed, measured, prompts_C), loader


def method_of(
    dual_encoder: DualEncoder,
    choices: CaptionChoices,
    config: ClipConfig,
    distributed: Distributed,
    measured: Loader | None = None,
    prompts_C: list[list[str]] | None = None,
) -> Method:
    """Return the method.

    Args:
        dual_encoder: on its device.
        choices: the texts of the loader's rows.
        config: how.
        distributed: the processes that share each batch.
        measured: images with labels; None measures nothing.
        prompts_C: the texts of its classes, in label order.
    """
    tokenizer = Tokenizer(config.context_length)
    device = dual_encoder.logit_scale.device

    def prepare_batch(batch: Batch) -> PreparedBatch:
        texts_B = [text or "" for text in choices.draw(batch.rows, batch.chances, batch.epoch)]
        tokens_BL = dual_encoder.cropped(tokenizer(texts_B))
        return PreparedBatch((normalize(batch.images), upload(tokens_BL, device)))

    def evaluate(module: nn.Module) -> dict[str, float]:
        assert measured is not None
        assert prompts_C is not None
        return zero_shot_accuracy(module, tokenizer, prompts_C, measured, config.precision)

    return Method(
        "clip",
        dual_encoder.spec,
        dual_encoder,
        prepare_batch,
        contrast(config.loss, distributed),
        joint=True,
        evaluate=evaluate if measured else None,
        after_step=dual_encoder.keep_bounds,
        watched=lambda: {"logit_scale": dual_encoder.logit_scale.detach().exp()},
        facts={"texts": choices.most, "prompts": prompts_C[0] if prompts_C else []},
    )


def contrast(name: LossName, distributed: Distributed):  # -> Callable[[Columns, Columns], Tensor]
    """Return the loss of this process's pairs against those of all, as open_clip has it.

    Its mean over the processes is the loss of the whole batch, and gradients flow through what is gathered.
    """
    from open_clip.loss import ClipLoss, SigLipLoss

    if name == "clip":
        kind: nn.Module = ClipLoss(True, True, rank=distributed.rank, world_size=distributed.world_size)
    else:
        kind = SigLipLoss(rank=distributed.rank, world_size=distributed.world_size)

    def loss(outputs: Columns, targets: Columns) -> Tensor:
        images_BE, texts_BE, *numbers = outputs
        return kind(images_BE, texts_BE, *(number.mean() for number in numbers))

    return loss


def _measured(
    dataset: Dataset, config: ClipConfig, val: Dataset | None, device: torch.device
) -> tuple[Loader | None, list[list[str]] | None]:
    """Return what zero-shot accuracy is measured on, and the texts of its classes."""
    source = val or dataset
    measured = loaders.val_loader(dataset, val, config, device) if source.classes else None
    if measured is None:
        return None, None
    return measured, prompts_of(
        source.classes, templates=config.templates, captioned=caption_arguments(dataset)
    )
