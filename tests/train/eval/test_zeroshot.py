"""Zero-shot recognition: classes in label order, texts averaged as open_clip averages them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from captioned import build_steps, coloured_pool
from handmade import pictures
from open_clip import build_zero_shot_classifier
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor, nn
from torch.nn import functional

from curate.datasets.dataset import Dataset
from curate.errors import RecipeError
from curate.rows.manifest import Class
from train.data.captions import caption_arguments
from train.data.loader import Loader
from train.eval.zero_shot import class_weights, prompts_of, zero_shot_accuracy
from train.models.dual_encoder import DualEncoder, DualEncoderSpec, build_dual_encoder
from train.models.registry import MEAN, STD
from train.models.tokenizer import Tokenizer

CPU = torch.device("cpu")
NAMES = ["red", "green", "blue", "ochre"]
COLOURS = torch.tensor([(200, 60, 60), (60, 200, 60), (60, 60, 200), (180, 180, 60)]) / 255


class Known(DualEncoder):
    """Towers that know the four colours: a text stands where its colour does."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.text = nn.Module()
        self.text.attn_mask = None  # type: ignore[assignment]
        self.words = {Tokenizer(16)([name])[0, 1].item(): i for i, name in enumerate(NAMES)}

    def encode_images(self, images_B3HW: Tensor) -> Tensor:
        colours_B3 = images_B3HW.mean(dim=(2, 3)) * torch.tensor(STD) + torch.tensor(MEAN)
        return functional.normalize(colours_B3 - COLOURS.mean(0), dim=1)

    def encode_texts(self, tokens_BL: Tensor) -> Tensor:
        which = [next(self.words[t] for t in row if t in self.words) for row in tokens_BL.tolist()]
        return functional.normalize(COLOURS[which] - COLOURS.mean(0), dim=1)


@pytest.mark.parametrize(
    ("order", "top1"), [((0, 1, 2, 3), 1.0), ((1, 2, 3, 0), 0.0), ((1, 0, 2, 3), 0.5), ((0, 1, 3, 2), 0.5)]
)
def test_accuracy_falls_where_names_are_not_in_the_order_of_labels(
    dataset: Callable[..., Dataset], order: tuple[int, ...], top1: float
) -> None:
    loader = Loader(dataset(pictures(40)), batch_size=8, image_size=16, seed=0, augment=False, workers=0)
    prompts = prompts_of([Class(NAMES[i]) for i in order], templates=["a {} thing", "{}"])
    assert zero_shot_accuracy(Known(), Tokenizer(16), prompts, loader) == {"zeroshot_top1": top1}


def test_names_come_in_the_order_of_labels(tmp_path: Path) -> None:
    pool = coloured_pool(tmp_path / "pool")
    data = build_steps(tmp_path, pool, [{"caption": {"templates": ["my {}"]}}])
    prompts = prompts_of(data.classes, captioned=caption_arguments(data))
    assert prompts == [["my tench"], ["my dog"], ["my cat"], ["my car"]]
    table = data.table(["label", "caption"]).to_pylist()
    assert {(row["label"], row["caption"]) for row in table} == {(i, p[0]) for i, p in enumerate(prompts)}


def test_templates_are_those_asked_for_else_those_of_the_captions_else_one(tmp_path: Path) -> None:
    pool = coloured_pool(tmp_path / "pool")
    plain = build_steps(tmp_path, pool, [], "plain")
    told = build_steps(tmp_path, pool, [{"caption": {"templates": ["a {}", "the {}"], "names": "hypernym"}}])
    assert prompts_of(plain.classes, captioned=caption_arguments(plain))[1] == ["a photo of a dog."]
    assert prompts_of(told.classes, captioned=caption_arguments(told))[0] == [
        "a tench, a kind of cyprinid",
        "the tench, a kind of cyprinid",
    ]
    openai = prompts_of(told.classes, templates="openai-80", names="lemma", captioned=caption_arguments(told))
    assert openai[1] == [template("dog") for template in OPENAI_IMAGENET_TEMPLATES]
    others = [Class("gadget"), Class("widget")]  # no synsets, so they have no hypernym
    assert prompts_of(others, captioned=caption_arguments(told))[1] == ["a widget", "the widget"]
    with pytest.raises(RecipeError, match="not among the synsets"):
        prompts_of(others, names="hypernym")


def test_weights_are_those_of_open_clip() -> None:
    pair = build_dual_encoder(
        DualEncoderSpec("convnet", "imagenet", 16, text_width=64, text_layers=1, context_length=16)
    ).eval()
    object.__setattr__(
        pair, "encode_text", lambda tokens, normalize: pair.encode_texts(tokens)
    )  # as open_clip asks
    templates = ["a photo of a {}.", "art of the {}.", "{}"]
    prompts = prompts_of([Class(name) for name in NAMES], templates=templates)
    expected_EC = build_zero_shot_classifier(
        pair, Tokenizer(16), NAMES, [t.format for t in templates], device=CPU
    )
    weights_CE = class_weights(pair, Tokenizer(16), prompts, CPU)
    torch.testing.assert_close(weights_CE, expected_EC.T)
