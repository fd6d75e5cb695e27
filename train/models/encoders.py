"""The image and text encoders of open_clip by name, with fresh weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from curate.errors import RecipeError, did_you_mean

PREFIX = "clip/"  # before the name of a model of open_clip, where a name could be somebody else's too
HEAD_WIDTH = 64  # of a text encoder's attention, as in all of OpenAI's models
SMALL_TEXT = {"width": 256, "layers": 4}  # for images of 32 to 64 px


def clip_names() -> list[str]:
    """Return the names of open_clip's models, with the prefix."""
    import open_clip

    return [PREFIX + name for name in open_clip.list_models()]


def is_clip(name: str) -> bool:
    """Whether a name is that of a model of open_clip, with the prefix or without."""
    return name.startswith(PREFIX) or PREFIX + name in clip_names()


def clip_config(name: str) -> dict[str, Any]:
    """Return how open_clip builds a model: its embed_dim, vision_cfg and text_cfg.

    Raises:
        RecipeError: it has no such model.
    """
    import open_clip

    short = name.removeprefix(PREFIX)
    if PREFIX + short not in clip_names():
        hint = did_you_mean(short, open_clip.list_models()) or "such as RN50, ViT-B-32, ViT-B-16"
        raise RecipeError(f"open_clip has no model {short!r}", hint=hint)
    return open_clip.get_model_config(short)


def image_encoder(name: str, image_size: int) -> nn.Module:
    """Return the image encoder of a model of open_clip, its projection included."""
    # Private, but open_clip's own models share it; its public ways make the text encoder as well.
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    config = clip_config(name)
    vision = {**config["vision_cfg"], "image_size": image_size, "timm_model_pretrained": False}
    return _build_vision_tower(config["embed_dim"], CLIPVisionCfg(**vision), config.get("quick_gelu", False))


def text_encoder(
    name: str | None, embed_dim: int, *, width: int | None, layers: int | None, context_length: int
) -> nn.Module:
    """Return a text encoder.

    Args:
        name: of a model of open_clip, whose text encoder it is; None for a small one.
        embed_dim: of the space where texts meet images.
        width: in place of the model's own.
        layers: in place of the model's own.
        context_length: tokens of a text.

    Raises:
        RecipeError: the text encoder of this model comes from elsewhere, with weights; or a width that cannot be.
    """
    from open_clip.model import CLIPTextCfg, _build_text_tower

    config = clip_config(name) if name else {"text_cfg": SMALL_TEXT}
    text = dict(config["text_cfg"])
    if "hf_model_name" in text or "hf_tokenizer_name" in text:
        raise RecipeError(
            f"the text encoder of {name!r} is one of Hugging Face, and none is fetched",
            hint="take a model with CLIP's own: RN50, RN101, ViT-S-32, ViT-B-32, ViT-B-16, ViT-L-14",
        )
    text |= {key: value for key, value in {"width": width, "layers": layers}.items() if value is not None}
    if text["width"] % HEAD_WIDTH and text["width"] > HEAD_WIDTH:
        raise RecipeError(f"text_width is {text['width']}", hint=f"it must be a multiple of {HEAD_WIDTH}")
    if width is not None or name is None:
        text["heads"] = max(1, text["width"] // HEAD_WIDTH)
    text["context_length"] = context_length
    encoder = _build_text_tower(embed_dim, CLIPTextCfg(**text), config.get("quick_gelu", False))
    encoder.transformer.register_forward_pre_hook(_shorter_mask, with_kwargs=True)
    return encoder


def looks_back_only(encoder: nn.Module) -> bool:
    """Whether a text encoder sees no token after the end, so that what stands there may be left out."""
    return encoder.attn_mask is not None and encoder.pool_type == "argmax" and encoder.cls_emb is None


def _shorter_mask(transformer: nn.Module, places: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Cut the mask, made for the whole context, to the tokens that there are."""
    mask, length = named.get("attn_mask"), places[0].shape[1]
    return places, named if mask is None else {**named, "attn_mask": mask[..., :length, :length]}
