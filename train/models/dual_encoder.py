"""An image and a text encoder with one embedding space, as CLIP has them."""

# B images with their texts, D features of an image, E of the space where both meet, L tokens, H height, W width

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.models.encoders import PREFIX, clip_config, is_clip, looks_back_only, text_encoder
from train.models.registry import Model, Stem, build

EMBED_DIM = 256  # where the image encoder is not open_clip's
LENGTHS = 8  # texts are cut to a multiple of so many tokens: few shapes, which kernels like
MAX_LOG_SCALE = math.log(100)  # the sharpest that the temperature may get
START = {"clip": (1 / 0.07, None), "siglip": (10.0, -10.0)}  # scale and bias of the logits; as published


@dataclass(frozen=True)
class DualEncoderSpec:
    """The spec of a dual encoder, from which it is built again.

    Args:
        model: of open_clip, as RN50 or clip/RN50, which has both encoders; else as `registry.build` knows it.
        stem: of the image encoder.
        image_size: in pixels.
        loss: clip or siglip: where the scale of the logits begins, and whether they have a bias.
        embed_dim: E, where the model is not of open_clip.
        text_width: of the text encoder; None for the model's own, or 256.
        text_layers: of the text encoder; None for the model's own, or 4.
        context_length: L.
    """

    model: str
    stem: Stem
    image_size: int
    loss: str = "clip"
    embed_dim: int = EMBED_DIM
    text_width: int | None = None
    text_layers: int | None = None
    context_length: int = 77


class DualEncoder(nn.Module):
    """An image and a text encoder, and the scale (and bias) of their logits. Make one with `build_dual_encoder`."""

    def __init__(self, image: Model, projector: nn.Module, text: nn.Module, loss: str) -> None:
        super().__init__()
        self.spec = image.spec
        self.backbone = image.backbone
        self.projector = projector
        self.text = text
        scale, bias = START[loss]
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.logit_bias = None if bias is None else nn.Parameter(torch.tensor(bias))

    def forward(self, images_B3HW: Tensor, tokens_BL: Tensor) -> tuple[Tensor, ...]:
        """Return images_BE and texts_BE of length 1, the scale of the logits once a row, and so the bias if any."""
        rows = len(images_B3HW)
        numbers = [self.logit_scale.exp().repeat(rows)]
        if self.logit_bias is not None:
            numbers.append(self.logit_bias.repeat(rows))
        return self.encode_images(images_B3HW), self.encode_texts(tokens_BL), *numbers

    def encode_images(self, images_B3HW: Tensor) -> Tensor:
        """Return images_BE of length 1, float32, of normalised images."""
        return functional.normalize(self.projector(self.backbone(images_B3HW)).float(), dim=-1)

    def encode_texts(self, tokens_BL: Tensor) -> Tensor:
        """Return texts_BE of length 1, float32."""
        return functional.normalize(self.text(tokens_BL).float(), dim=-1)

    def cropped(self, tokens_BL: Tensor) -> Tensor:
        """Return the tokens without the columns that no text reaches: nothing else changes, but the time it takes.

        The templates around class names reach 10 of 77 tokens, and a text encoder is 40 % of the work of ViT-B/32.
        """
        if not len(tokens_BL) or not looks_back_only(self.text):
            return tokens_BL
        longest = int(tokens_BL.argmax(dim=1).max()) + 1  # the end token has the largest number
        return tokens_BL[:, : min(tokens_BL.shape[1], -(-longest // LENGTHS) * LENGTHS)]

    @torch.no_grad()
    def keep_bounds(self) -> None:
        """Keep the scale of the logits at 100 or less; call it after each step."""
        self.logit_scale.clamp_(max=MAX_LOG_SCALE)


def build_dual_encoder(spec: DualEncoderSpec, *, seed: int = 0) -> DualEncoder:
    """Build a dual encoder with fresh weights, on the CPU.

    The image encoder starts as `train.models.registry.build` starts it: as that of a classifier with the same seed.

    Raises:
        RecipeError: as `build`; the text encoder is not CLIP's own.
    """
    theirs = is_clip(spec.model)
    name = PREFIX + spec.model.removeprefix(PREFIX) if theirs else spec.model
    image = build(name, num_classes=0, stem=spec.stem, image_size=spec.image_size, seed=seed)
    embed_dim = clip_config(name)["embed_dim"] if theirs else spec.embed_dim
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        text = text_encoder(
            name if theirs else None,
            embed_dim,
            width=spec.text_width,
            layers=spec.text_layers,
            context_length=spec.context_length,
        )
        projector = nn.Identity() if theirs else nn.Linear(image.feature_dim, embed_dim, bias=False)
    return DualEncoder(image, projector, text, spec.loss)
