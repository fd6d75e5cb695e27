"""Detectors in pieces: backbones cut into maps, proposals in files, images with their boxes."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from curate.errors import DataError, RecipeError
from train.models.registry import Model, build
from train.transfer.detection.batches import DetectionLoader, flip_boxes, sequential_batches, shuffled_batches
from train.transfer.detection.detectors import build_detector
from train.transfer.detection.maps import FeatureMaps, cut_backbone, set_norms, timm_maps
from train.transfer.detection.parts import BoxPredictor, DetectorBackbone, RegionHeads, ResizeWithProposals
from train.transfer.detection.proposals import of_split, read_proposals, write_proposals
from train.transfer.detection.task import DetectionSplit, GroundTruth
from train.transfer.detection.training import SgdSchedule
from train.transfer.protocols import find_protocol
from train.transfer.protocols.detection import FasterRcnn, FastRcnn
from train.transfer.splits import Arrays

WIDTH, HEIGHT = 40, 24


def model(name: str, stem: Any = "imagenet", size: int = 64) -> Model:
    return build(name, num_classes=0, stem=stem, image_size=size)


def split(count: int = 3) -> DetectionSplit:
    """Return images of noise, 40 x 24 pixels; the first has a plain object and a difficult one, the last has none."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3)).astype(np.uint8)
    boxes = np.array([[2.0, 3.0, 20.0, 21.0], [30.0, 0.0, 40.0, 24.0]])
    two = GroundTruth(WIDTH, HEIGHT, boxes, np.array([1, 0]), np.array([False, True]))
    none = GroundTruth(WIDTH, HEIGHT, boxes[:0], np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool))
    truths = (two,) * (count - 1) + (none,)
    return DetectionSplit(tuple(f"i{n}" for n in range(count)), truths, Arrays(pixels), 2)


# Backbones


@pytest.mark.parametrize(
    ("name", "stem", "strides"),
    [
        ("resnet18", "imagenet", [4, 8, 16, 32]),
        ("resnet50", "imagenet", [4, 8, 16, 32]),
        ("resnet18", "small", [1, 2, 4, 8]),
        ("convnet", "imagenet", [2, 4, 8]),
        ("clip/RN50", "imagenet", [4, 8, 16, 32]),
        ("alexnet", "imagenet", [8, 16]),
        ("alexnet-torchvision", "imagenet", [8, 16]),
    ],
)
def test_maps_have_the_strides_and_channels_that_they_say(name: str, stem: str, strides: list[int]) -> None:
    pieces = cut_backbone(model(name, stem, 224 if "alexnet" in name else 64))
    maps = FeatureMaps(pieces, len(pieces.stages), "frozen", 0).eval()
    assert sorted(maps.channels) == strides
    with torch.no_grad():
        found = maps(torch.zeros(1, 3, 96, 160))
    for stride, each in found.items():
        assert each.shape[1] == maps.channels[stride]
        assert abs(each.shape[2] * stride - 96) <= stride  # AlexNet's maps have a place more or less
        assert abs(each.shape[3] * stride - 160) <= stride


def test_stages_are_the_backbone_itself() -> None:
    """What the stages and the tail give is what the run's model gives."""
    for name, size in (("resnet18", 64), ("convnet", 64)):
        whole = model(name, size=size).eval()
        pieces = cut_backbone(whole)
        images = torch.randn(2, 3, size, size)
        with torch.no_grad():
            features = whole(images)
            through = images
            for stage in pieces.stages[: pieces.tail_stages]:
                through = stage(through)
            assert pieces.tail is not None
            assert torch.allclose(pieces.tail(through), features, atol=1e-5)


@pytest.mark.parametrize("name", ["alexnet", "alexnet-torchvision"])
def test_place_of_alexnet_looks_at_the_pixels_around_sixteen_times_its_own(name: str) -> None:
    """So a region of the image lies on the map where it is divided by 16; the network itself is 17 pixels off."""
    pieces = cut_backbone(model(name, size=224))
    for stage in pieces.stages:
        for i, layer in enumerate(stage):
            if isinstance(layer, nn.MaxPool2d):  # a mean looks at all the pixels, the largest at one
                stage[i] = nn.AvgPool2d(3, 2, layer.padding, ceil_mode=layer.ceil_mode)
            elif isinstance(layer, nn.Conv2d):
                nn.init.constant_(layer.weight, 0.01)
    images = torch.ones(1, 3, 224, 224, requires_grad=True)
    FeatureMaps(pieces, 3, "frozen", 0).eval()(images)[16][0, :, 6, 8].sum().backward()
    assert images.grad is not None
    rows, columns = images.grad.abs().sum(dim=(0, 1)).nonzero().float().T
    assert rows.max() - rows.min() > 100
    assert (rows.min() + rows.max()) / 2 == pytest.approx(6 * 16, abs=1)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(8 * 16, abs=1)


def test_tail_of_alexnet_is_its_own_fc6_and_fc7() -> None:
    whole = model("alexnet", size=224).eval()
    pieces = cut_backbone(whole)
    assert pieces.tail is not None
    places = torch.randn(2, 256, 6, 6)
    hidden = torch.relu(whole.backbone.fc7(torch.relu(whole.backbone.fc6(places.flatten(1)))))
    assert torch.equal(pieces.tail.eval()(places), hidden)


def test_networks_of_timm_give_maps_and_transformers_do_not() -> None:
    found = timm_maps(model("timm/resnet10t"), "frozen")
    assert found is not None
    assert {8, 16, 32} <= set(found.channels)
    assert timm_maps(model("timm/vit_tiny_patch16_224", size=224), "frozen") is None
    for name in ("timm/vit_tiny_patch16_224", "clip/ViT-S-32"):
        with pytest.raises(RecipeError, match="gives no maps") as caught:
            build_detector(model(name, size=224), 2, FasterRcnn()._shape("frozen"), seed=0)
        assert "resnet50" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "settings", "says", "hint"),
    [
        ("alexnet", {"head": "fpn"}, "has no pyramid", "head=c4"),
        ("timm/resnet10t", {"head": "c4"}, "cannot be taken as a head", "head=fpn"),
        ("resnet18", {"anchor_sides_px": (32, 64)}, "anchor_sides_px: 2", "4, 8, 16, 32, 64"),
    ],
)
def test_head_that_a_backbone_cannot_have_is_refused(name: str, settings: dict, says: str, hint: str) -> None:
    protocol = FasterRcnn(**settings)
    with pytest.raises(RecipeError, match=says) as caught:
        build_detector(model(name, size=224), 2, protocol._shape("frozen"), seed=0)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "stem", "head"),
    [
        pytest.param("resnet18", "small", "fpn", marks=pytest.mark.campaign),
        ("convnet", "imagenet", "fpn"),
        ("timm/resnet10t", "imagenet", "fpn"),
        ("resnet18", "imagenet", "c4"),
        ("alexnet-torchvision", "imagenet", "c4"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_detectors_learn_a_step_and_answer(name: str, stem: str, head: Any) -> None:
    size = 224 if "alexnet" in name else 64
    protocol = FasterRcnn(
        head=head, short_sides_px=(64,), rois_per_image=8, proposals_per_image=20, min_confidence=0.0
    )
    detector = build_detector(model(name, stem, size), 2, protocol._shape("batch"), seed=0)
    data = split()
    (batch,) = DetectionLoader(data).batches([([0, 2], [False, True])], torch.device("cpu"))
    losses = detector.train()(batch.images, batch.targets)
    sum(losses.values()).backward()
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert all(p.grad is not None for p in detector.roi_heads.parameters())
    with torch.no_grad():
        answers = detector.eval()(batch.images, batch.targets)
    for answer in answers:
        assert 0 < len(answer["boxes"]) <= 100
        assert (answer["boxes"] >= 0).all()
        assert (answer["boxes"] <= torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])).all()
        assert set(answer["labels"].tolist()) <= {1, 2}


def test_frozen_norms_stay_as_the_run_left_them_and_others_learn() -> None:
    for norm, stays in (("frozen", True), ("batch", False)):
        detector = build_detector(
            model("resnet18"), 2, FasterRcnn(short_sides_px=(64,), rois_per_image=8)._shape(norm), seed=0
        )
        norms = [m for m in detector.backbone.maps.modules() if isinstance(m, nn.BatchNorm2d)]
        assert len(norms) == 20
        before = [m.running_mean.clone() for m in norms]
        (batch,) = DetectionLoader(split()).batches([([0, 1], [False, False])], torch.device("cpu"))
        detector.train()(batch.images, batch.targets)
        same = [torch.equal(m.running_mean, b) for m, b in zip(norms, before, strict=True)]
        assert all(same) == stays
        assert all(m.weight.requires_grad != stays for m in norms)


def test_group_norm_takes_the_place_of_batch_norm() -> None:
    network = model("resnet18").backbone
    set_norms(network, "group")
    kinds = [type(m) for m in network.modules()]
    assert kinds.count(nn.BatchNorm2d) == 0
    assert kinds.count(nn.GroupNorm) == 20


def test_frozen_stages_do_not_learn() -> None:
    detector = build_detector(model("resnet18"), 2, FasterRcnn(frozen_stages=2)._shape("frozen"), seed=0)
    learn = [any(p.requires_grad for p in stage.parameters()) for stage in detector.backbone.maps.stages]
    assert learn == [False, False, True, True, True]


def test_what_is_new_follows_the_seed_and_the_rest_the_run() -> None:
    one, same, other = (
        build_detector(model("convnet"), 2, FasterRcnn()._shape("frozen"), seed=seed).state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    moved = {name for name in one if not torch.equal(one[name], other[name])}
    assert any(name.startswith("rpn.") for name in moved)
    assert not any(name.startswith("backbone.maps") for name in moved)


def test_large_regions_come_from_coarse_maps_whatever_the_first_batch() -> None:
    detector = build_detector(model("resnet18"), 2, FasterRcnn()._shape("frozen"), seed=0)
    pool = detector.roi_heads.box_roi_pool
    assert pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    boxes = [torch.tensor([[0.0, 0.0, side, side] for side in (50.0, 150.0, 300.0, 500.0)])]
    assert pool.map_levels(boxes).tolist() == [0, 1, 2, 3]


def test_maps_and_boxes_are_in_float32_under_autocast() -> None:
    """In bfloat16 a box at 600 pixels would be right to four of them."""
    trunk = DetectorBackbone(FeatureMaps(cut_backbone(model("resnet18")), 5, "frozen", 0), 16).eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        maps = trunk(torch.zeros(1, 3, 64, 64))
        logits, boxes = BoxPredictor(8, 3)(torch.zeros(2, 8))
    assert {each.dtype for each in maps.values()} == {torch.float32}
    assert (logits.dtype, boxes.dtype) == (torch.float32, torch.float32)
    assert list(maps) == ["4", "8", "16", "32", "64"]


# Regions


def regions(background_iou: float) -> RegionHeads:
    nothing = nn.Identity()
    return RegionHeads(
        nothing, nothing, nothing, 0.5, 0.5, 64, 0.25, None, 0.05, 0.3, 100, background_iou=background_iou
    )


def test_background_far_from_objects_is_passed_over() -> None:
    truths = [torch.tensor([[0.0, 0.0, 10.0, 10.0]])]
    boxes = [
        torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 3], [0, 0, 10, 0.9], [50, 50, 60, 60]])
    ]  # 0.9, 0.3, 0.09, 0
    labels = [torch.tensor([2])]
    assert regions(0.1).assign_targets_to_proposals(boxes, truths, labels)[1][0].tolist() == [2, 0, -1, -1]
    assert regions(0.0).assign_targets_to_proposals(boxes, truths, labels)[1][0].tolist() == [2, 0, 0, 0]
    empty = [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)]
    assert regions(0.1).assign_targets_to_proposals(boxes, *empty)[1][0].tolist() == [0, 0, 0, 0]


def test_quarter_of_the_regions_are_objects_and_truths_are_among_them() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor([[10.0, 10.0, 60.0, 60.0]])
    near = truth + torch.randint(-3, 4, (100, 4), generator=generator)
    far = truth + torch.tensor([25.0, 25.0, 25.0, 25.0]) + torch.rand(100, 4, generator=generator)
    proposals, _, labels, _ = regions(0.1).select_training_samples(
        [torch.cat([near, far])], [{"boxes": truth, "labels": torch.tensor([1])}]
    )
    assert (len(proposals[0]), int((labels[0] == 1).sum())) == (64, 16)
    alone, _, labels, _ = regions(0.1).select_training_samples(
        [far], [{"boxes": truth, "labels": torch.tensor([1])}]
    )
    assert int((labels[0] == 1).sum()) == 1  # the truth itself
    assert (alone[0] == truth).all(dim=1).any()


def test_proposals_are_resized_with_the_image() -> None:
    resize = ResizeWithProposals((48,), 1000, [0.0] * 3, [1.0] * 3)
    target = {
        "boxes": torch.tensor([[2.0, 3.0, 20.0, 21.0]]),
        "labels": torch.tensor([1]),
        "proposals": torch.tensor([[0.0, 0.0, 40.0, 24.0]]),
    }
    images, (moved,) = resize([torch.zeros(3, HEIGHT, WIDTH)], [target])
    assert images.image_sizes == [(48, 80)]
    assert moved["boxes"].tolist() == [[4, 6, 40, 42]]
    assert moved["proposals"].tolist() == [[0, 0, 80, 48]]


# Batches


def test_mirror_image_takes_boxes_and_proposals_along() -> None:
    data = split()
    proposals = {key: np.array([[0.0, 1.0, 10.0, 5.0]]) for key in data.keys}
    source = DetectionLoader(data, proposals=proposals)
    plain, mirrored = (next(source.batches([([0], [flip])], torch.device("cpu"))) for flip in (False, True))
    assert torch.equal(mirrored.images[0], plain.images[0].flip(2))
    assert plain.targets[0]["boxes"][0].tolist() == [2, 3, 20, 21]
    assert mirrored.targets[0]["boxes"][0].tolist() == [20, 3, 38, 21]
    assert mirrored.targets[0]["proposals"].tolist() == [[30, 1, 40, 5]]
    assert torch.equal(
        flip_boxes(flip_boxes(plain.targets[0]["boxes"], WIDTH), WIDTH), plain.targets[0]["boxes"]
    )
    assert plain.targets[0]["labels"].tolist() == [2, 1]  # 0 is background
    assert plain.images[0].amax() <= 1


def test_difficult_objects_are_learned_from_only_where_asked() -> None:
    for difficult, count in ((True, 2), (False, 1)):
        (batch,) = DetectionLoader(split(), difficult).batches([([0], [False])], torch.device("cpu"))
        assert len(batch.targets[0]["boxes"]) == count


def test_image_of_another_size_than_its_annotation_is_refused() -> None:
    data = split()
    object.__setattr__(data.truths[0], "width", 50)
    with pytest.raises(DataError, match=r"image i0 is of 40 x 24 pixels, and its annotation says 50 x 24"):
        list(DetectionLoader(data).batches([([0], [False])], torch.device("cpu")))


def test_order_follows_the_seed_and_every_image_comes_once_an_epoch() -> None:
    rows = np.array([3, 5, 7, 9, 11])

    def order(seed: int) -> list[tuple[list[int], list[bool]]]:
        return list(shuffled_batches(rows, 2, 5, torch.Generator().manual_seed(seed), flip=True))

    assert order(0) == order(0)
    assert order(0) != order(1)
    seen = [row for batch, _ in order(0) for row in batch]
    assert sorted(seen[:5]) == sorted(seen[5:]) == rows.tolist()
    assert not any(
        f for _, flips in shuffled_batches(rows, 2, 5, torch.Generator(), flip=False) for f in flips
    )
    assert [rows for rows, _ in sequential_batches(5, 2)] == [[0, 1], [2, 3], [4]]


# Proposals


def test_proposals_are_read_as_they_were_written(tmp_path: Path) -> None:
    boxes = {"i0": np.array([[1, 2, 3, 4], [0, 0, 9, 9]], dtype=np.float32), "i1": np.array([[5, 5, 6, 7.5]])}
    write_proposals(tmp_path / "p.parquet", boxes)
    np.savez(tmp_path / "p.npz", **boxes)
    for name in ("p.parquet", "p.npz"):
        found = read_proposals(tmp_path / name)
        assert set(found) == {"i0", "i1"}
        assert all(np.array_equal(found[key], boxes[key]) for key in boxes)
        assert found["i0"].dtype == np.float32


def test_proposals_with_scores_come_the_best_first_wherever_their_rows_stand(tmp_path: Path) -> None:
    columns = {"x1": [0, 1, 2], "y1": [0, 0, 0], "x2": [9, 9, 9], "y2": [9, 9, 9], "score": [0.1, 0.5, 0.9]}
    pq.write_table(pa.table({"key": ["a", "b", "a"], **columns}), tmp_path / "p.parquet")
    found = read_proposals(tmp_path / "p.parquet")
    assert found["a"][:, 0].tolist() == [2, 0]
    assert found["b"][:, 0].tolist() == [1]


def test_proposals_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    data = split()
    whole = np.array([[0, 0, 40, 24]], dtype=np.float32)

    def chosen(boxes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return of_split(boxes, data, [0, 1], most=2, where="p.npz")

    with pytest.raises(DataError, match=r"p\.npz: image 'i1' has none"):
        chosen({"i0": whole})
    with pytest.raises(DataError, match=r"'i0', box \[0\.0, 0\.0, 42\.0, 24\.0\] is outside its 40 x 24"):
        chosen({"i0": whole + np.array([0, 0, 2, 0], dtype=np.float32), "i1": whole})
    with pytest.raises(DataError, match="none with an area"):
        chosen({"i0": whole[:, [0, 1, 0, 1]], "i1": whole})
    many = np.array([[x, 0, 40, 24.5] for x in range(5)], dtype=np.float32)
    found = chosen({"i0": many, "i1": whole, "other": whole})
    assert found["i0"].tolist() == [[0, 0, 40, 24], [1, 0, 40, 24]]  # the first two, cut at the border
    assert set(found) == {"i0", "i1"}


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("p.parquet", None, RecipeError, "no such file"),
        ("p.txt", b"1 2 3 4", RecipeError, "neither"),
        ("p.parquet", b"PAR1", DataError, "cannot be read"),
        ("p.npz", b"PK", DataError, "cannot be read"),
    ],
)
def test_file_that_holds_no_proposals_is_refused(
    tmp_path: Path, name: str, content, error: type, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=says) as caught:
        read_proposals(tmp_path / name)
    assert "x1, y1, x2, y2" in caught.value.hint


def test_columns_and_shapes_of_proposals_are_checked(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": ["a"], "x1": [0]}), tmp_path / "p.parquet")
    with pytest.raises(DataError, match="no column 'y1'"):
        read_proposals(tmp_path / "p.parquet")
    np.savez(tmp_path / "p.npz", a=np.zeros((2, 5)))
    with pytest.raises(DataError, match=r"a is float64 of shape \(2, 5\)"):
        read_proposals(tmp_path / "p.npz")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (281474976710656, 4), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match="cannot be read"):
        read_proposals(tmp_path / "p.npz")


# Settings


def test_schedules_are_the_published_ones_and_short_for_few_shots() -> None:
    fast, faster = FastRcnn().recipe(5011), FasterRcnn().recipe(16_551)
    assert (fast.steps, fast.drop_steps, fast.lr, fast.weight_decay) == (40_000, (30_000,), 1e-3, 5e-4)
    assert (faster.steps, faster.drop_steps, faster.lr) == (24_000, (18_000, 22_000), 0.02)
    assert FasterRcnn(batch_size=4).recipe(16_551).steps == 96_000
    assert FasterRcnn(batch_size=4).recipe(16_551).lr == pytest.approx(0.005)
    assert FasterRcnn().recipe(20).steps == 500
    assert FastRcnn().recipe(100).steps == 5000
    assert FasterRcnn(steps=7).recipe(20).steps == 7


def test_rate_warms_up_and_drops() -> None:
    recipe = SgdSchedule(100, 2, 0.1, (60, 80), 10, 1.0, 0.9, 0.0, None)
    shares = [recipe.rate(step) for step in range(100)]
    assert shares[0] == pytest.approx(0.001)
    assert shares[:11] == sorted(shares[:11])
    assert set(np.round(shares[10:60], 9)) == {1.0}
    assert shares[60] == pytest.approx(0.1)
    assert shares[80] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("faster-rcnn(head=c5)", "head"),
        ("faster-rcnn(norm=layer)", "norm"),
        ("faster-rcnn(batch_size=0)", "batch_size is 0"),
        ("faster-rcnn(short_sides_px=[8])", "short_sides_px"),
        ("faster-rcnn(nms_iou=2)", "nms_iou is 2"),
        ("faster-rcnn(write_proposals=p.npz)", "write_proposals is p.npz"),
        ("fast-rcnn(steps=0)", "steps is 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(told: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        find_protocol(told)


def test_page_names_every_setting_with_its_value() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "detection.md").read_text()
    rows = {
        cells[1].strip().strip("`"): cells for line in page.splitlines() if len(cells := line.split("|")) == 6
    }
    for column, protocol in ((2, FastRcnn), (3, FasterRcnn)):
        for field in dataclasses.fields(protocol):
            told = rows[field.name][column].strip()
            if field.name in ("short_sides_px", "anchor_sides_px", "drop_fractions"):
                first = field.default[0]
                assert told.startswith(f"{first:g}"), field.name
            else:
                value = field.default if not isinstance(field.default, float) else f"{field.default:g}"
                assert told == str(value), field.name
