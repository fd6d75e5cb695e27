"""Detectors learn: photographs that they were trained on are found again, from a run's own weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from campaigns import Campaign
from torch import Tensor, nn
from voc_folders import SHARED, photographs, unpack, write_voc

from curate.errors import DataError, MissingError, RecipeError
from train.models.registry import ModelSpec, build, normalize
from train.runs import Machine, Run, finish_run, scratch_run
from train.transfer import open_tasks
from train.transfer.detection.proposals import read_proposals, write_proposals
from train.transfer.detection.run_on_task import RunOnDetectionTask
from train.transfer.detection.task import DetectionSplit, DetectionTask
from train.transfer.features import ProtocolResult
from train.transfer.protocols.detection import FasterRcnn, FastRcnn
from train.transfer.shots import TrainSubset, draw_shots
from train.transfer.tasks.derived_images import ImageSubset
from train.transfer.tasks.readers.voc import CLASSES, read_annotation

CPU = torch.device("cpu")
# Small enough for a minute on one core, from weights that know nothing.
QUICK = {
    "batch_size": 2,
    "warmup_steps": 10,
    "max_gradient_norm": 5.0,
    "short_sides_px": (64,),
    "long_side_px": 96,
    "rois_per_image": 16,
}
SMALL = QUICK | {
    "proposals_per_image": 50,
    "test_proposals_per_image": 50,
    "anchor_sides_px": (16, 32, 48, 64, 80),
    "pyramid_width": 64,
    "head_width": 256,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> DetectionTask:
    """Twenty photographs with one or two large objects each, to train on and, once more, to test on."""
    if not SHARED.exists():
        pytest.skip(f"needs {SHARED}")
    place = tmp_path_factory.mktemp("photos")
    root = unpack(place)
    large = [path.stem for path in sorted((root / "Annotations").glob("*.xml")) if _large(path)][:20]
    assert len(large) == 20
    (task,) = open_tasks("voc07-detection", [photographs(root, place, train=large, test=["2007_000032"])])
    return _seen_again(task.train)


def _large(path: Path) -> bool:
    known = read_annotation(path)
    sides = [
        ((t.box[2] - t.box[0]) / known.width, (t.box[3] - t.box[1]) / known.height) for t in known.objects
    ]
    return len(sides) <= 2 and min(map(min, sides)) > 0.25


def _seen_again(split: DetectionSplit) -> DetectionTask:
    """Return a task that is tested on what it is trained on, which a task from disk never is."""
    again = dataclasses.replace(split, keys=tuple(f"again-{key}" for key in split.keys))
    task = DetectionTask("seen-again", CLASSES, split, again, flip=False)
    task.__dict__["leaked"] = frozenset()
    return task


def some(task: DetectionTask, count: int) -> DetectionTask:
    return _seen_again(task.train.only(range(count)))


def images_of(task: DetectionTask, side: int) -> Tensor:
    """Return all training images as normalised squares."""
    squares = [task.train.images.decode(i).resize((side, side)) for i in range(len(task.train))]
    return normalize(torch.stack([torch.from_numpy(np.array(square)).permute(2, 0, 1) for square in squares]))


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Write a run of random weights, scaled so that every layer's outputs are spread as a trained network's are."""

    def make(name: str, images_B3HW: Tensor) -> Run:
        side = images_B3HW.shape[-1]
        model = build(name, num_classes=0, image_size=side)
        spread(model, images_B3HW)
        info = {
            "method": "supervised",
            "spec": ModelSpec(name, "imagenet", 0, side),
            "dataset": None,
            "config": {},
            "seed": 0,
            "steps": 1,
            "samples_seen": len(images_B3HW),
            "seconds": 0.0,
            "metrics": {},
            "machine": Machine.of_device(),
        }
        return finish_run(tmp_path_factory.mktemp(name), info, model.state_dict())

    return make


@torch.no_grad()
def spread(model: nn.Module, images_B3HW: Tensor) -> None:
    """Give batch norms the statistics of the images; scale and shift other layers to mean 0 and variance 1."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.momentum = None  # the mean of what it sees
        model.train()(images_B3HW)
        return

    def scale(layer: nn.Module, _: object, output: Tensor) -> Tensor:
        dims = [0, 2, 3][: output.ndim - 1]
        size, centre = output.std(dims) + 1e-3, output.mean(dims)
        layer.weight.div_(size.view(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias.sub_(centre).div_(size)
        shape = (1, -1, 1, 1)[: output.ndim]
        return (output - centre.view(shape)) / size.view(shape)

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(scale) for layer in layers]
    model.eval()(images_B3HW)
    for hook in hooks:
        hook.remove()


def measure(run: Run, task: DetectionTask, protocol: FastRcnn | FasterRcnn, seed: int = 0) -> ProtocolResult:
    run_on_task = RunOnDetectionTask(run, task, device=CPU)
    return protocol.measure(run_on_task, draw_shots(run_on_task.keys, run_on_task.targets, "full", seed))


def value(outcome: ProtocolResult, metric: str = "voc_ap11") -> float:
    return next(score.value for score in outcome.scores if score.metric == metric)


@pytest.mark.parametrize(
    ("count", "steps", "least"), [(4, 60, 0.5), pytest.param(20, 170, 0.75, marks=pytest.mark.campaign)]
)
def test_pyramid_on_resnet_finds_photographs_again(
    photos: DetectionTask, make_run, campaign: Campaign, count: int, steps: int, least: float
) -> None:
    task = some(photos, count)
    run = make_run("resnet18", images_of(task, 64))
    outcome = measure(run, task, FasterRcnn(steps=steps, lr=0.048, frozen_stages=3, **SMALL))
    campaign.tell(f"{count} photographs after {steps} steps: {value(outcome):.3f}")
    assert value(outcome) > least  # without training 0.00
    assert outcome.chosen == {"steps": steps, "lr": pytest.approx(0.006), "norm": "frozen"}
    assert outcome.select == "none"
    assert [score.metric for score in outcome.scores] == [
        "voc_ap11",
        "voc_ap",
        "coco_ap",
        "coco_ap50",
        "coco_ap75",
    ]
    assert all(score.n == count and score.ci_low <= score.value <= score.ci_high for score in outcome.scores)
    assert np.mean(list(outcome.per_class.values())) == pytest.approx(value(outcome))
    assert len(outcome.per_class) < 20  # classes without objects are left out


def test_last_stage_of_a_backbone_learns_as_a_head(photos: DetectionTask, make_run) -> None:
    few = some(photos, 6)
    run = make_run("convnet", images_of(photos, 64))
    outcome = measure(run, few, FasterRcnn(head="c4", steps=120, lr=0.064, foreground_fraction=0.5, **SMALL))
    assert value(outcome) > 0.5


@pytest.mark.parametrize(
    ("count", "steps", "least"), [(4, 40, 0.5), pytest.param(20, 100, 0.65, marks=pytest.mark.campaign)]
)
def test_alexnet_learns_from_proposals_of_a_file(
    photos: DetectionTask,
    make_run,
    tmp_path: Path,
    monkeypatch,
    campaign: Campaign,
    count: int,
    steps: int,
    least: float,
) -> None:
    monkeypatch.setattr("train.models.alexnet.WIDTH", 256)  # fc6 and fc7 of 4,096 are most of the work
    task = some(photos, count)
    run = make_run("alexnet", images_of(task, 224))
    proposals = tmp_path / "proposals.parquet"
    write_proposals(proposals, near_and_far(task))
    sizes = QUICK | {"short_sides_px": (96,), "long_side_px": 144}
    protocol = FastRcnn(proposals=str(proposals), steps=steps, lr=0.003, foreground_fraction=0.5, **sizes)
    outcome = measure(run, task, protocol)
    campaign.tell(f"{count} photographs after {steps} steps: {value(outcome):.3f}")
    assert value(outcome) > least
    assert outcome.chosen["proposals"].startswith("sha256:")


def near_and_far(task: DetectionTask) -> dict[str, np.ndarray]:
    """Return eight boxes around each object, none of them exact, and 30 anywhere."""
    generator = np.random.default_rng(0)
    found = {}
    for split in (task.train, task.test):
        for key, truth in zip(split.keys, split.truths, strict=True):
            size = np.array([truth.width, truth.height] * 2)
            sides = np.tile(truth.boxes[:, 2:] - truth.boxes[:, :2], 2)
            near = truth.boxes[:, None] + generator.uniform(-0.12, 0.12, (len(truth), 8, 4)) * sides[:, None]
            far = np.sort(generator.random((30, 2, 2)), axis=1).reshape(30, 4) * size
            far[:, 2:] = np.maximum(far[:, 2:], far[:, :2] + 8)
            found[key] = np.clip(np.concatenate([near.reshape(-1, 4), far]), 0, size)
    return found


# What needs no learning


@pytest.fixture
def noise(tmp_path: Path) -> DetectionTask:
    """Three images of noise on each side."""
    dog = ("dog", (10, 20, 60, 50))
    write_voc(tmp_path, "trainval", {"000001": [dog], "000002": [], "000003": [("cat", (5, 5, 70, 40)), dog]})
    write_voc(tmp_path, "test", {"000004": [dog], "000005": [], "000006": [("cat", (5, 5, 70, 40))]})
    return open_tasks("voc07-detection", [tmp_path])[0]


@pytest.fixture
def scratch_convnet() -> Run:
    return scratch_run(ModelSpec("convnet", "imagenet", 0, 32))


def test_equal_seeds_give_equal_numbers_and_other_seeds_others(
    noise: DetectionTask, scratch_convnet: Run
) -> None:
    protocol = FasterRcnn(steps=3, min_confidence=0.0, **SMALL)
    run_on_task = RunOnDetectionTask(scratch_convnet, noise, device=CPU)

    def weights(seed: int) -> Tensor:
        before = torch.get_rng_state()
        detector, _ = protocol.learn(
            run_on_task, draw_shots(run_on_task.keys, run_on_task.targets, "full", seed)
        )
        assert torch.equal(torch.get_rng_state(), before)
        return torch.cat([p.detach().flatten() for p in detector.parameters()])

    first = weights(0)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)


def test_scratch_learns_its_norms_and_a_run_keeps_them(
    noise: DetectionTask, scratch_convnet: Run, make_run
) -> None:
    run = make_run("convnet", torch.randn(2, 3, 32, 32))
    for one, norm in ((scratch_convnet, "batch"), (run, "frozen")):
        assert measure(one, noise, FasterRcnn(steps=1, **SMALL)).chosen["norm"] == norm


def test_detector_learns_from_the_rows_of_the_draw_alone(
    noise: DetectionTask, scratch_convnet: Run, monkeypatch
) -> None:
    run_on_task = RunOnDetectionTask(scratch_convnet, noise, device=CPU)
    cat = draw_shots(run_on_task.keys, run_on_task.targets, 1, 0)
    assert [run_on_task.keys[row] for row in cat.rows] in (["000001", "000003"], ["000003"])
    seen: list[int] = []
    decode = ImageSubset.decode

    def watched(images: ImageSubset, index: int):
        seen.append(index)
        return decode(images, index)

    monkeypatch.setattr(ImageSubset, "decode", watched)
    FasterRcnn(steps=4, **SMALL).learn(run_on_task, cat)
    assert set(seen) == set(cat.rows.tolist())


def test_draw_without_an_object_is_refused(noise: DetectionTask, scratch_convnet: Run) -> None:
    run_on_task = RunOnDetectionTask(scratch_convnet, noise, device=CPU)
    empty = TrainSubset(1, 0, np.array([1]), run_on_task.targets[[1]], ("000002",), 0)
    with pytest.raises(DataError, match="none of the 1 images drawn has an object"):
        FasterRcnn(steps=1, **SMALL).learn(run_on_task, empty)


def test_loss_that_is_no_number_names_the_images(noise: DetectionTask, scratch_convnet: Run) -> None:
    with pytest.raises(
        DataError, match=r"step \d+: the loss is no number .* on images 00000\d, 00000\d"
    ) as caught:
        measure(scratch_convnet, noise, FasterRcnn(steps=30, lr=1e12, **SMALL | {"max_gradient_norm": None}))
    assert "smaller lr" in caught.value.hint


def test_image_of_test_is_not_learned_from(
    noise: DetectionTask, scratch_convnet: Run, tmp_path: Path
) -> None:
    images = tmp_path / "VOCdevkit/VOC2007/JPEGImages"
    (images / "000002.jpg").write_bytes((images / "000005.jpg").read_bytes())
    (task,) = open_tasks("voc07-detection", [tmp_path])
    run_on_task = RunOnDetectionTask(scratch_convnet, task, device=CPU)
    assert run_on_task.keys == ("000001", "000003")
    assert run_on_task.targets.shape == (2, 20)
    assert run_on_task.notes[-1] == "train: 1 images left out, identical to test images (such as 000002)"
    assert len(run_on_task.test) == 3


def test_proposals_of_one_detector_serve_another(
    noise: DetectionTask, scratch_convnet: Run, tmp_path: Path
) -> None:
    path = tmp_path / "made.parquet"
    measure(scratch_convnet, noise, FasterRcnn(steps=1, write_proposals=str(path), **SMALL))
    found = read_proposals(path)
    assert set(found) == {*noise.train.keys, *noise.test.keys}
    for boxes in found.values():
        assert 0 < len(boxes) <= 50
        assert (boxes >= 0).all()
        assert (boxes <= np.array([80, 60, 80, 60]) + 1e-3).all()  # in pixels of the image as stored
        assert boxes.max() > 64  # not of the image as the network saw it
    outcome = measure(scratch_convnet, noise, FastRcnn(steps=1, proposals=str(path), **QUICK))
    assert len(outcome.scores) == 5


def test_fast_rcnn_without_proposals_says_how_to_get_them(noise: DetectionTask, scratch_convnet: Run) -> None:
    with pytest.raises(RecipeError, match="needs proposals") as caught:
        FastRcnn().refuse(scratch_convnet, noise)
    assert "write_proposals" in caught.value.hint


def test_voc_scores_need_no_pycocotools(noise: DetectionTask, scratch_convnet: Run, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycocotools.coco", None)
    outcome = measure(scratch_convnet, noise, FasterRcnn(steps=1, **SMALL))
    assert [score.metric for score in outcome.scores] == ["voc_ap11", "voc_ap"]
    assert "pycocotools" in outcome.notes[0]
    with pytest.raises(MissingError):
        measure(scratch_convnet, dataclasses.replace(noise, metric="coco_ap"), FasterRcnn(steps=1, **SMALL))
