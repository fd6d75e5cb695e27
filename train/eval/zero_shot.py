"""Zero-shot classification: each image goes to the class whose texts are nearest."""

# B images, C classes, E of the space where images and texts meet

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from curate.captions.prompts import Names, class_names
from curate.captions.templates import texts
from curate.errors import DataError, RecipeError
from curate.rows.manifest import Class
from train.data.batch import Batch
from train.data.loader import Loader
from train.eval.accuracy import accuracy
from train.loop.devices import autocast
from train.models.dual_encoder import DualEncoder, DualEncoderSpec, build_dual_encoder
from train.models.registry import normalize
from train.models.tokenizer import Tokenizer
from train.models.weights import fill_weights
from train.runs import WEIGHTS, Run

TEMPLATE = "a photo of a {}."  # where nothing says which
TEXTS = 1024  # that are encoded at a time


def prompts_of(
    classes: Sequence[Class],
    *,
    templates: Sequence[str] | str | None = None,
    names: Names | None = None,
    captioned: Mapping[str, Any] | None = None,
) -> list[list[str]]:
    """Return the texts of each class, in the order of the classes, which is that of the labels.

    Two classes of one name (such as the two cranes of ImageNet) have equal texts under the names of WordNet, and
    only one of them is ever found.

    Args:
        classes: in label order.
        templates: texts with `{}`, or a named set such as openai-80; those of `captioned` by default, else one.
        names: what to call the classes, as in the operation `caption`; as `captioned` does by default, else lemma.
        captioned: the arguments of the `caption` step of the dataset that was learned from.

    Raises:
        RecipeError: no such templates, or classes without such names.
    """
    caption_arguments = captioned or {}
    chosen = texts(templates or caption_arguments.get("templates") or TEMPLATE)
    try:
        names_C = class_names(classes, names or caption_arguments.get("names", "lemma"))
    except RecipeError:
        if names is not None:
            raise
        names_C = class_names(
            classes, "lemma"
        )  # other classes than those of the captions, without names of that kind
    return [[template.replace("{}", name) for template in chosen for name in own] for own in names_C]


@torch.no_grad()
def class_weights(
    dual_encoder: DualEncoder, tokenizer: Tokenizer, prompts_C: Sequence[Sequence[str]], device: torch.device
) -> Tensor:
    """Return weights_CE: for each class the mean of its texts' directions, of length 1, float32.

    Source: Radford et al. 2021, https://arxiv.org/abs/2103.00020, section 3.1.4.
    """
    flat = [text for prompts in prompts_C for text in prompts]
    places = [torch.tensor([c] * len(prompts)) for c, prompts in enumerate(prompts_C)]
    owners = torch.cat(places).to(device)
    encoded = [
        dual_encoder.encode_texts(dual_encoder.cropped(tokenizer(flat[start : start + TEXTS])).to(device))
        for start in range(0, len(flat), TEXTS)
    ]
    sums_CE = torch.zeros(len(prompts_C), encoded[0].shape[1], device=device)
    sums_CE.index_add_(0, owners, torch.cat(encoded).float())
    return functional.normalize(sums_CE, dim=1)


@torch.no_grad()
def zero_shot_accuracy(
    module: nn.Module,
    tokenizer: Tokenizer,
    prompts_C: Sequence[Sequence[str]],
    loader: Loader,
    precision: str = "auto",
) -> dict[str, float]:
    """Return top-1, and top-5 where there are more than five classes, over a loader's readable samples.

    Args:
        module: a DualEncoder, in eval mode.
        tokenizer: of the texts.
        prompts_C: the texts of each class, in label order.
        loader: images and labels.
    """
    assert isinstance(module, DualEncoder)
    with autocast(precision, loader.device):
        weights_CE = class_weights(module, tokenizer, prompts_C, loader.device)

    def scores(batch: Batch) -> Tensor:
        with autocast(precision, loader.device):
            images_BE = module.encode_images(normalize(batch.images))
        return images_BE @ weights_CE.T

    return {f"zeroshot_{name}": share for name, share in accuracy(scores, loader).items()}


def dual_encoder_of(run: Run, device: str | torch.device = "cpu") -> tuple[DualEncoder, Tokenizer]:
    """Return a run's dual encoder, in eval mode, and its tokenizer.

    Raises:
        RecipeError: the run has no text encoder.
        DataError: the weights are missing, or not those that the run wrote; or its options are not those of clip.
    """
    if run.info.method != "clip":
        raise RecipeError(
            f"{run.path}: a {run.info.method} run, which has no texts",
            hint="`curate train clip` makes one that has",
        )
    options = {
        field.name: run.info.config[field.name]
        for field in fields(DualEncoderSpec)
        if field.name in run.info.config
    }
    try:
        spec = TypeAdapter(DualEncoderSpec).validate_python(options)
    except ValidationError as error:
        raise DataError(
            f"{run.path}: its options are not those of clip ({error.errors()[0]['msg']})"
        ) from error
    dual_encoder = build_dual_encoder(spec)
    dual_encoder.spec = run.spec
    fill_weights(dual_encoder, run.weights(), run.path / WEIGHTS)
    return dual_encoder.to(device).to(memory_format=torch.channels_last).eval(), Tokenizer(
        spec.context_length
    )
