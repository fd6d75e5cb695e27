"""The towers: open_clip's own, with fresh weights, and what a run of them gives to transfer."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from curate.errors import RecipeError
from train.models.dual_encoder import DualEncoder, DualEncoderSpec, build_dual_encoder
from train.models.encoders import clip_config
from train.models.registry import ModelSpec, build, rebuild
from train.models.tokenizer import Tokenizer

SMALL = DualEncoderSpec(
    "convnet", "imagenet", 32, embed_dim=64, text_width=64, text_layers=1, context_length=16
)


def with_(**changes: object) -> DualEncoderSpec:
    return dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "embed_dim", "params"), [("RN50", 1024, 38_316_896), ("ViT-B-32", 512, 87_849_216)]
)
def test_an_image_tower_is_open_clips(name: str, embed_dim: int, params: int) -> None:
    # 38.32 and 87.85 M image weights: docs/model_profile.csv of open_clip
    model = build(f"clip/{name}", num_classes=0, image_size=224)
    assert model.feature_dim == embed_dim == clip_config(name)["embed_dim"]
    assert sum(p.numel() for p in model.parameters()) == params


def test_the_features_are_those_after_the_projection() -> None:
    model = build("clip/RN50", num_classes=3, image_size=64)
    assert model.backbone.get_submodule("attnpool.c_proj").out_features == model.feature_dim == 1024
    assert model.head.in_features == 1024
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_a_tower_starts_by_its_seed_and_from_its_spec() -> None:
    spec = ModelSpec("clip/ViT-S-32", "imagenet", 0, 64)
    first, again, other = (rebuild(spec, seed=seed).state_dict() for seed in (3, 3, 4))
    name = "backbone.transformer.resblocks.0.mlp.c_fc.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


@pytest.fixture(scope="module")
def pair() -> DualEncoder:
    return build_dual_encoder(SMALL, seed=5).eval()


def test_images_and_texts_meet_in_one_space(pair: DualEncoder) -> None:
    tokens = Tokenizer(16)(["a cat", "a dog", "!"])
    images, texts, scale = pair(torch.rand(3, 3, 32, 32), tokens)
    assert images.shape == texts.shape == (3, 64)
    assert scale.shape == (3,)
    torch.testing.assert_close(scale.log().detach(), torch.full((3,), math.log(1 / 0.07)))
    for directions in (images, texts):
        torch.testing.assert_close(directions.norm(dim=1), torch.ones(3))
    assert {name.split(".")[0] for name in pair.state_dict()} == {
        "backbone",
        "projector",
        "text",
        "logit_scale",
    }


def test_the_image_tower_starts_as_a_classifiers_does(pair: DualEncoder) -> None:
    alone = build("convnet", num_classes=7, image_size=32, seed=5).backbone.state_dict()
    assert all(torch.equal(alone[name], value) for name, value in pair.backbone.state_dict().items())


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    build_dual_encoder(SMALL)
    assert torch.equal(before, torch.get_rng_state())


def test_columns_that_no_text_reaches_may_be_left_out(pair: DualEncoder) -> None:
    tokens = Tokenizer(16)(["a cat", "!!! the dog"])
    short = pair.cropped(tokens)
    assert short.shape == (2, 8)
    torch.testing.assert_close(pair.encode_texts(short), pair.encode_texts(tokens))
    long = Tokenizer(16)(["a cat", "one two three four five six seven"])
    assert torch.equal(pair.cropped(long), long)
    gradients = []
    for wanted in (short, tokens):
        pair.zero_grad()
        pair.encode_texts(wanted)[:, 0].sum().backward()
        gradients.append({n: p.grad.clone() for n, p in pair.text.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-4)


def test_a_text_tower_that_looks_ahead_sees_all_columns() -> None:
    pair = build_dual_encoder(with_(model="ViT-S-32", image_size=32))
    assert pair.cropped(Tokenizer(16)(["a"])).shape == (1, 8)
    pair.text.attn_mask = None  # type: ignore[assignment]
    assert pair.cropped(Tokenizer(16)(["a"])).shape == (1, 16)


def test_the_scale_stays_below_a_hundred(pair: DualEncoder) -> None:
    with torch.no_grad():
        pair.logit_scale.fill_(9.0)
    pair.keep_bounds()
    assert pair.logit_scale.exp().item() == pytest.approx(100)
    with torch.no_grad():
        pair.logit_scale.fill_(1.0)
    pair.keep_bounds()
    assert pair.logit_scale.item() == 1.0


def test_siglip_starts_with_its_published_scale_and_bias() -> None:
    _, _, scale, bias = build_dual_encoder(with_(loss="siglip"))(
        torch.rand(2, 3, 32, 32), torch.ones(2, 8, dtype=torch.long)
    )
    torch.testing.assert_close(scale, torch.full((2,), 10.0))
    assert bias.tolist() == [-10.0, -10.0]


def test_a_model_of_open_clip_brings_its_text_tower() -> None:
    pair = build_dual_encoder(DualEncoderSpec("ViT-S-32", "imagenet", 64))
    text = clip_config("ViT-S-32")["text_cfg"]
    assert (pair.text.width, len(list(pair.text.get_submodule("transformer.resblocks").children()))) == (
        text["width"],
        text["layers"],
    )
    assert pair.spec.name == "clip/ViT-S-32"
    assert isinstance(pair.projector, torch.nn.Identity)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (with_(model="clip/RN5O"), "did you mean 'RN50'"),
        (with_(model="convnit"), "did you mean 'convnet'"),
        (with_(model="roberta-ViT-B-32", image_size=64), "Hugging Face"),
        (with_(model="RN50", stem="small"), "no small stem"),
        (with_(model="RN50", image_size=16), "cannot take images of 16 px"),
        (with_(text_width=100), "text_width is 100"),
    ],
)
def test_what_cannot_be_built_is_refused_with_advice(spec: DualEncoderSpec, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build_dual_encoder(spec)
    assert words in str(caught.value)
    assert caught.value.hint
