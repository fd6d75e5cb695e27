"""What a run of `clip` says of a task's classes by their names."""

# B images, C classes, E of the space where images and texts meet

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from curate.captions.templates import texts
from curate.errors import RecipeError
from train.eval.zero_shot import class_weights
from train.models.dual_encoder import DualEncoder
from train.runs import Run
from train.transfer.features import RunFeatures


def require_text_encoder(run: Run) -> None:
    """Refuse a run that has no text tower.

    Raises:
        RecipeError: it is not one of `clip`.
    """
    if run.info.method != "clip":
        raise RecipeError(
            f"run {run.name!r} is one of {run.info.method}, which has no texts",
            hint="zero-shot, and a head that starts from it, are for runs of `curate train clip`",
        )


class ImageEncoder(nn.Module):
    """The image tower with its projection: embeddings of length 1."""

    def __init__(self, pair: DualEncoder) -> None:
        super().__init__()
        self.backbone, self.projector = pair.backbone, pair.projector

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Return images_BE of normalised images."""
        return functional.normalize(self.projector(self.backbone(images_B3HW)).float(), dim=-1)


def image_encoder(features: RunFeatures) -> ImageEncoder:
    """Return the image tower of a features's run, in eval mode.

    Raises:
        RecipeError: the run has no text tower.
    """
    return ImageEncoder(features.dual_encoder[0]).eval()


def text_weights(features: RunFeatures, templates: tuple[str, ...] | str = ()) -> Tensor:
    """Return weights_CE: for each class, in label order, the mean direction of its texts, of length 1.

    Args:
        features: a run of `clip` on a task.
        templates: texts with {}, or a named set; the task's own where there are none.

    Raises:
        RecipeError: the run has no text tower, or there are no such templates.
    """
    pair, tokenizer = features.dual_encoder
    chosen = texts(templates or features.task.templates)
    prompts_C = [[template.replace("{}", name) for template in chosen] for name in features.task.classes]
    return class_weights(pair, tokenizer, prompts_C, features.device)


def logit_scale(features: RunFeatures) -> float:
    """Return what the run multiplies cosines by."""
    return float(features.dual_encoder[0].logit_scale.detach().exp())
