"""Models by name, their equal starts, and what is said when they cannot be built."""

from __future__ import annotations

import pytest
import torch

from curate.errors import RecipeError
from train.models.registry import MEAN, STD, build, normalize, rebuild


@pytest.mark.parametrize(
    ("name", "feature_dim"),
    [("convnet", 256), ("resnet18", 512), ("alexnet", 4096), ("vit_tiny_patch16_224", 192)],
)
def test_a_model_turns_images_into_features_and_logits(name: str, feature_dim: int) -> None:
    model = build(name, num_classes=7, image_size=64).eval()
    images = torch.rand(2, 3, 64, 64)
    assert model.feature_dim == feature_dim
    assert model.backbone(images).shape == (2, feature_dim)
    assert model(images).shape == (2, 7)
    assert torch.equal(model(images), model.head(model.backbone(images)))


def test_the_backbone_starts_equal_whatever_the_classes_and_differs_by_seed() -> None:
    few, many, other = (
        build("convnet", num_classes=c, image_size=32, seed=s).backbone.state_dict()
        for c, s in [(2, 5), (90, 5), (2, 6)]
    )
    assert all(torch.equal(few[name], many[name]) for name in few)
    assert not torch.equal(few["stages.0.weight"], other["stages.0.weight"])


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    build("convnet", num_classes=2, image_size=32)
    assert torch.equal(before, torch.get_rng_state())


def test_the_small_stem_keeps_the_resolution() -> None:
    images = torch.rand(1, 3, 32, 32)
    for stem, side in (("imagenet", 8), ("small", 32)):
        network = build("resnet18", num_classes=2, stem=stem, image_size=32).backbone  # type: ignore[arg-type]
        assert network.maxpool(network.relu(network.bn1(network.conv1(images)))).shape[-1] == side


def test_a_spec_is_enough_to_build_the_model_again() -> None:
    model = build("resnet18", num_classes=3, stem="small", image_size=32, seed=4)
    again = rebuild(model.spec, seed=4).state_dict()
    assert {name: value.shape for name, value in again.items()} == {
        n: v.shape for n, v in model.state_dict().items()
    }
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "resnt18"}, "did you mean 'resnet18'"),
        ({"name": "vit_tiny_patch16_244"}, "did you mean 'vit_tiny_patch16_224'"),
        ({"name": "convnet", "stem": "small"}, "no small stem"),
        ({"name": "alexnet", "image_size": 32}, "cannot take images of 32 px"),
        ({"name": "resnet18.a1_in1k"}, "never loaded"),
        ({"name": "convnet", "stem": "tiny"}, "no stem 'tiny'"),
    ],
)
def test_what_cannot_be_built_is_refused_with_advice(arguments: dict, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build(**{"num_classes": 2, "image_size": 64, **arguments})
    assert words in str(caught.value)
    assert caught.value.hint


def test_normalize_is_torchvisions() -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    images = torch.randint(0, 256, (4, 3, 8, 9), dtype=torch.uint8)
    ours = normalize(images)
    torch.testing.assert_close(ours, functional.normalize(images / 255, MEAN, STD), atol=1e-5, rtol=0)
    assert ours.is_contiguous(memory_format=torch.channels_last)
