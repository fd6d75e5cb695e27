"""The clip trainer: its loss is open_clip's on any number of processes, it learns pairs, it says what is wrong."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from captioned import build_steps, coloured_pool, described
from handmade import Sample, pictures
from open_clip.loss import ClipLoss, SigLipLoss
from several import together
from torch import Tensor

from curate.datasets.dataset import Dataset
from curate.errors import CurateError, DataError, RecipeError
from train.data.loader import Loader
from train.eval.zero_shot import dual_encoder_of
from train.loop.distributed import Distributed, joined
from train.loop.method import Columns, Method, PreparedBatch
from train.loop.optim.gradients import backward
from train.methods import clip
from train.methods.clip import PRESETS, ClipConfig, contrast, method_of, train
from train.methods.registry import config_of
from train.models.dual_encoder import DualEncoderSpec, build_dual_encoder
from train.models.registry import normalize
from train.runs import open_run

MakeDataset = Callable[..., Dataset]
SMALL = ClipConfig(
    model="convnet", image_size=16, epochs=2, batch_size=16, workers=0, device="cpu", min_area=1.0, lr=3e-3,
    embed_dim=64, text_width=64, text_layers=1, context_length=16,
)  # fmt: skip
LOSSES = ("clip", "siglip")
THINGS = """apple bear chair dog eagle fish goat house igloo jar kite lamp moon nest owl piano queen rain ship tree
uncle van wolf zebra"""


def with_(**changes: Any) -> ClipConfig:
    return dataclasses.replace(SMALL, **changes)


def outputs(rows: slice = slice(None)) -> Columns:
    """Directions, scale and bias of 12 pairs as leaves; of those of a process."""
    generator = torch.Generator().manual_seed(3)
    images, texts = (
        torch.nn.functional.normalize(torch.randn(12, 8, generator=generator), dim=1) for _ in "ab"
    )
    columns = (images, texts, torch.full((12,), 7.0), torch.full((12,), -3.0))
    return tuple(column[rows].clone().requires_grad_() for column in columns)


def loss_and_gradients(name: str, ranks: Distributed, columns: Columns) -> tuple[Tensor, list[Tensor]]:
    used = columns[: 3 if name == "clip" else 4]
    loss = contrast(name, ranks)(used, ())  # type: ignore[arg-type]
    loss.backward()
    return loss.detach(), [column.grad for column in used]  # type: ignore[misc]


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_open_clips(name: str) -> None:
    loss, _ = loss_and_gradients(name, Distributed(), outputs())
    images, texts, scale, bias = outputs()
    expected = (
        ClipLoss()(images, texts, scale[0])
        if name == "clip"
        else SigLipLoss()(images, texts, scale[0], bias[0])
    )
    torch.testing.assert_close(loss, expected.detach())


def one_of(rank: int, ranks: int, folder: Path) -> None:
    """What a process of several does."""
    with joined(torch.device("cpu")) as here:
        part = slice(rank * 12 // ranks, (rank + 1) * 12 // ranks)
        found = {name: loss_and_gradients(name, here, outputs(part)) for name in LOSSES}
        here.barrier()
    torch.save(found, folder / f"{rank}-of-{ranks}.pt")


def test_loss_and_gradients_are_equal_for_any_number_of_processes(tmp_path: Path) -> None:
    for ranks in (2, 3):
        together(ranks, one_of, tmp_path)
    for ranks, name in itertools.product((2, 3), LOSSES):
        found = [torch.load(tmp_path / f"{rank}-of-{ranks}.pt")[name] for rank in range(ranks)]
        loss, gradients = loss_and_gradients(name, Distributed(), outputs())
        torch.testing.assert_close(torch.stack([one[0] for one in found]).mean(), loss)
        for i, gradient in enumerate(
            gradients[:2]
        ):  # of images and texts; DDP divides the sum by the processes
            torch.testing.assert_close(torch.cat([one[1][i] for one in found]) / ranks, gradient)
        for i, gradient in enumerate(gradients[2:], 2):  # of one number for all
            torch.testing.assert_close(sum(one[1][i].sum() for one in found) / ranks, gradient.sum())


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_in_pieces_has_the_gradients_of_the_whole(name: Any) -> None:
    # of a transformer: batch norms see the pieces
    pair = build_dual_encoder(DualEncoderSpec("test_vit", "imagenet", 32, name, 32, 64, 1, 8))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(12, 3, 32, 32, generator=generator)
    tokens = torch.randint(1, 49_408, (12, 8), generator=generator)
    method = Method(
        "clip", pair.spec, pair, lambda batch: PreparedBatch(()), contrast(name, Distributed()), joint=True
    )
    found = []
    for pieces in (1, 4, 12):
        pair.zero_grad()
        loss = backward(method, pair, PreparedBatch((images, tokens)), pieces=pieces)
        found.append((loss, {n: p.grad.clone() for n, p in pair.named_parameters() if p.grad is not None}))
    (whole, gradients), *others = found
    assert gradients["logit_scale"].abs() > 1e-4
    assert ("logit_bias" in gradients) == (name == "siglip")
    for loss, pieced in others:
        torch.testing.assert_close(loss, whole)
        assert pieced.keys() == gradients.keys()
        for parameter, gradient in gradients.items():
            torch.testing.assert_close(pieced[parameter], gradient, atol=1e-5, rtol=1e-3, msg=parameter)


@pytest.mark.parametrize("name", LOSSES)
def test_it_learns_24_pairs_by_heart(
    dataset: MakeDataset, tmp_path: Path, jpeg: Callable[..., bytes], name: Any
) -> None:
    texts = THINGS.split()
    assert len(set(texts)) == 24
    data = dataset(
        [Sample(f"{i:02d}", 0, jpeg(i, (16, 16)), ext="jpg", caption=text) for i, text in enumerate(texts)]
    )
    run = train(data, tmp_path / "run", with_(loss=name, epochs=40, batch_size=24, weight_decay=0.0))
    pair, tokenizer = dual_encoder_of(open_run(run.path))
    plain = Loader(data, batch_size=24, image_size=16, seed=0, augment=False, workers=0, order="manifest")
    [batch] = plain.epoch(0)
    with torch.no_grad():
        images, texts_BE, *_ = pair(normalize(batch.images), tokenizer(texts))
    found = (images @ texts_BE.T).argmax(dim=1)
    assert (found == torch.arange(24)).float().mean() >= 0.95
    assert run.backbone()(torch.zeros(1, 3, 16, 16)).shape == (1, 256)


def test_a_batch_in_pieces_learns_as_the_whole(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset(described(32))
    vit = with_(model="test_vit", image_size=32, epochs=3)
    whole, pieced = (
        train(data, tmp_path / str(pieces), dataclasses.replace(vit, accumulate=pieces)).info.metrics["loss"]
        for pieces in (1, 4)
    )
    assert pieced == pytest.approx(whole, rel=1e-3)


def test_zero_shot_accuracy_is_measured_in_the_order_of_labels(tmp_path: Path) -> None:
    pool, others = coloured_pool(tmp_path / "pool"), coloured_pool(tmp_path / "others", images=4)
    captions = {"caption": {"templates": ["a photo of a {}.", "the {}"]}}
    data = build_steps(tmp_path, pool, [captions])
    val = build_steps(tmp_path, others, [], "val")
    wrong = build_steps(tmp_path, others, [{"noise": {"rate": 1.0, "kind": "pair"}}], "wrong")
    config = with_(epochs=12)
    run = train(data, tmp_path / "run", config, val=val)
    assert run.info.metrics["zeroshot_top1"] == 1.0
    assert run.info.facts["texts"] == 2
    assert train(data, tmp_path / "other", config, val=wrong).info.metrics["zeroshot_top1"] == 0.0


def test_a_run_that_was_stopped_draws_the_captions_it_would_have_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"templates": ["a {}", "the {}", "my {}", "one {}"]}
    data = build_steps(tmp_path, coloured_pool(tmp_path / "pool"), [{"caption": texts}])
    config = with_(epochs=4)
    whole = train(data, tmp_path / "whole", config, quiet=True)
    calls = iter(range(1, 100))

    def stopping(images: Tensor) -> Tensor:
        if next(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return normalize(images)

    monkeypatch.setattr(clip, "normalize", stopping)
    with pytest.raises(SystemExit):
        train(data, tmp_path / "parts", config, quiet=True)
    assert not (tmp_path / "parts" / "run.json").exists()
    assert train(data, tmp_path / "parts", config, quiet=True).digest == whole.digest


def test_the_temperature_is_kept_within_its_bounds(dataset: MakeDataset) -> None:
    loader = Loader(dataset(described(16)), batch_size=16, image_size=16, seed=0, augment=False, workers=0)
    pair = build_dual_encoder(SMALL.dual_encoder)
    method = method_of(pair, loader.samples.caption_choices, SMALL, Distributed())
    with torch.no_grad():
        pair.logit_scale.fill_(9.0)
    assert method.after_step
    method.after_step()
    assert method.watched
    assert method.watched()["logit_scale"].item() == pytest.approx(100)


def test_labels_are_not_needed(dataset: MakeDataset, tmp_path: Path) -> None:
    unlabelled = [dataclasses.replace(sample, label=None) for sample in described(16)]
    run = train(dataset(unlabelled, classes=0), tmp_path / "run", SMALL)
    assert list(run.info.metrics) == ["loss"]


def test_captions_that_are_fixed_are_the_rows_own(tmp_path: Path) -> None:
    data = build_steps(
        tmp_path, coloured_pool(tmp_path / "pool"), [{"caption": {"templates": ["a {}", "the {}"]}}]
    )
    for choice, texts in (("fixed", 1), ("drawn", 2)):
        assert (
            train(data, tmp_path / choice, with_(captions=choice, epochs=1), quiet=True).info.facts["texts"]
            == texts
        )


def test_equal_captions_are_told_once(
    dataset: MakeDataset, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    alike = [dataclasses.replace(sample, caption="a picture") for sample in pictures(32)]
    train(dataset(alike), tmp_path / "run", with_(epochs=2))
    said = capsys.readouterr().err
    assert said.count("all captions are equal") == 1
    train(dataset(alike, "again"), tmp_path / "quiet", with_(epochs=1), quiet=True)
    assert "equal" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (pictures(16), "16 of 16 rows have no caption"),
        ([*described(16), *pictures(2, split="train")], "2 of 18 rows have no caption"),
        ([dataclasses.replace(s, caption="") for s in pictures(16)], "all captions are empty"),
        (described(8), "8 samples to learn from, fewer than a batch of 16"),
    ],
)
def test_bad_data_is_refused_before_a_folder_is_made(
    dataset: MakeDataset, tmp_path: Path, samples: list[Sample], words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        train(dataset(samples), tmp_path / "run", SMALL)
    assert caught.value.hint
    assert not (tmp_path / "run").exists()


def test_captions_of_any_length_are_learned_from(dataset: MakeDataset, tmp_path: Path) -> None:
    texts = ["", "x" * 10_000, "word " * 2_000, "\U0001f408"] * 4
    samples = [dataclasses.replace(s, caption=text) for s, text in zip(pictures(16), texts, strict=True)]
    assert train(dataset(samples), tmp_path / "run", SMALL, quiet=True).info.steps == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"min_area": 0}, "min_area is 0"),
        ({"loss": "clips"}, "did you mean 'clip'"),
        ({"captions": "fix"}, "did you mean 'fixed'"),
        ({"context_length": 2}, "context_length is 2"),
        ({"text_layers": 0}, "text_layers is 0"),
        ({"model": "RN5O"}, "did you mean"),
        ({"templates": "openai-8"}, "did you mean 'openai-80'"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(
    dataset: MakeDataset, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    data = dataset([*described(16), *described(4, split="val")])
    with pytest.raises(CurateError) as caught:
        train(data, tmp_path / "run", with_(**changes))
    assert words in str(caught.value)
    assert caught.value.hint
    assert not (tmp_path / "run" / "run.json").exists()


def test_every_preset_can_be_meant() -> None:
    for name in PRESETS:
        config_of("clip", {"preset": name}, "file.yaml")
    published = config_of("clip", {"preset": "entezari2023", "epochs": 32}, "file.yaml")
    assert (published.model, published.warmup_steps, published.epochs) == ("RN50", 5_000, 32)
    with pytest.raises(RecipeError, match=r"file\.yaml: no preset"):
        config_of("clip", {"preset": "entezari2032"}, "file.yaml")


def test_a_run_without_texts_gives_no_towers(dataset: MakeDataset, tmp_path: Path) -> None:
    from train.methods import supervised

    config = supervised.SupervisedConfig(
        model="convnet", image_size=16, epochs=1, batch_size=8, workers=0, device="cpu"
    )
    run = supervised.train(dataset(pictures(16)), tmp_path / "run", config)
    with pytest.raises(RecipeError, match="supervised run, which has no texts"):
        dual_encoder_of(run)
