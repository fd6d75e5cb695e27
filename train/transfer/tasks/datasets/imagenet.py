"""ImageNet of 2012: 1,000 classes, tested on the validation images, with ReaL's labels where they are there."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from curate.captions.templates import curated, named
from curate.errors import MissingError
from curate.sources._index_cache import make_key
from curate.wordnet import nouns, unique_names
from curate.wordnet.lists import wnids_of
from train.transfer.tasks.readers.downloads import Download
from train.transfer.tasks.readers.labeled_files import LabeledFile
from train.transfer.tasks.task import Task
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

SOLUTION = "LOC_val_solution.csv"
REAL = "real.json"
REAL_AT = "https://github.com/google-research/reassessed-imagenet"
VALIDATION_IMAGES = 50_000
_official = re.compile(r"ILSVRC2012_val_(\d{8})").fullmatch


def open_imagenet(request: TaskRequest) -> list[Task]:
    """Open it; classes are in the order of their wnids.

    Their names are OpenAI's. WordNet's stand in for a class that is none of the 1,000, and for the two pairs to which
    OpenAI gave one name.
    """
    request.no_argument()
    root = request.find("imagenet/train", "ILSVRC2012/train", "ILSVRC/Data/CLS-LOC/train").parent
    download = Download(request.info, root)
    folders, notes = download.class_folders("train")
    train = [_row("train", f"{wnid}/{file}", wnid) for wnid, files in folders.items() for file in files]
    test, test_notes = _validation(request, download)
    ids = sorted({*folders, *(one.class_id for one in test)})
    strange = [name for name in ids if name not in nouns()]
    if strange:
        download.damaged(root, f"class {strange[0]!r} is no id of WordNet, such as n01440764")
    accepted_NC, real_notes = _accepted(request, test, ids)
    names = dict(zip(ids, _names(ids), strict=True))
    task = download.task(
        names, train, test, templates=named("openai-80"), notes=[*notes, *test_notes, *real_notes]
    )
    return [dataclasses.replace(task, test=dataclasses.replace(task.test, accepted=accepted_NC))]


def _row(side: str, file: str, wnid: str) -> LabeledFile:
    """Return a row; the key of an official validation image is the same in every layout."""
    name = file.rpartition("/")[2].rpartition(".")[0]
    key = f"{side}/{name}" if _official(name) else f"{side}/{file.rpartition('.')[0]}"
    return LabeledFile(make_key(key), f"{side}/{file}", wnid)


def _validation(request: TaskRequest, download: Download) -> tuple[list[LabeledFile], list[str]]:
    """Return the validation images: in one folder a class, or all in one with Kaggle's table of their classes."""
    place = download.root / "val"
    if not place.is_dir():
        raise MissingError(f"{place}: there is no such folder", hint=request.info.get)
    if any(entry.is_dir() for entry in os.scandir(place)):
        folders, notes = download.class_folders("val")
        return [
            _row("val", f"{wnid}/{file}", wnid) for wnid, files in folders.items() for file in files
        ], notes
    solution = request.find(f"imagenet/{SOLUTION}", f"ILSVRC2012/{SOLUTION}", SOLUTION, f"ILSVRC/{SOLUTION}")
    labels = Download(request.info, solution.parent)
    rows = []
    for where, (image, boxes) in labels.table(solution.name, ("ImageId", "PredictionString")):
        wnid = boxes.partition(" ")[0]
        if wnid not in nouns():
            labels.damaged(where, f"{wnid!r} is no id of WordNet, such as n01440764")
        rows.append(_row("val", f"{image}.JPEG", wnid))
    return download.once("val", rows)


def _names(ids: Sequence[str]) -> tuple[str, ...]:
    chosen = curated()
    shared = Counter(chosen.values())
    plain = dict(zip(ids, unique_names(ids), strict=True))
    names = [chosen[wnid] if shared[chosen.get(wnid, "")] == 1 else plain[wnid] for wnid in ids]
    again = Counter(names)
    return tuple(
        f"{name} ({wnid})" if again[name] > 1 else name for name, wnid in zip(names, ids, strict=True)
    )


def _accepted(
    request: TaskRequest, rows: Sequence[LabeledFile], ids: Sequence[str]
) -> tuple[np.ndarray | None, list[str]]:
    """Return the labels that ReaL accepts for each image, bool NC, or None; and notes.

    Source: Beyer et al., 2020, https://arxiv.org/abs/2006.07159
    """
    try:
        file = request.find(f"imagenet/{REAL}", REAL, f"reassessed-imagenet/{REAL}", f"ILSVRC2012/{REAL}")
    except MissingError:
        return None, [f"no {REAL}, so real_top1 is not measured; it is at {REAL_AT}"]
    numbers = [_official(one.key.rpartition("/")[2]) for one in rows]
    if not all(numbers):
        return None, [f"{REAL} is not used: it goes by names such as ILSVRC2012_val_00000001"]
    lists = _lists(request, file)
    position = {wnid: i for i, wnid in enumerate(ids)}
    own = [position.get(wnid) for wnid in sorted(wnids_of("imagenet-1k"))]
    accepted_NC = np.zeros((len(rows), len(ids)), dtype=bool)
    for i, match in enumerate(numbers):
        assert match is not None
        number = int(match[1])
        if not 1 <= number <= VALIDATION_IMAGES:
            Download(request.info, file.parent).damaged(
                file, f"has no image number {number} ({rows[i].file})"
            )
        accepted_NC[i, [at for label in lists[number - 1] if (at := own[label]) is not None]] = True
    return accepted_NC, []


def _lists(request: TaskRequest, file: Path) -> list[list[int]]:
    """Return ReaL's lists of label positions, one an image."""
    download = Download(request.info, file.parent)
    found = download.json(file.name)
    if not isinstance(found, list) or len(found) != VALIDATION_IMAGES:
        download.damaged(file, f"is no list of {VALIDATION_IMAGES:,} lists")
    for number, labels in enumerate(found, 1):
        if not isinstance(labels, list) or not all(type(one) is int and 0 <= one < 1000 for one in labels):
            download.damaged(file, f"image {number}: {labels!r} is no list of labels from 0 to 999")
    return found


TASKS = [
    TaskInfo(
        name="imagenet",
        about="1,000 classes of photographs",
        source="Russakovsky et al., IJCV 2015, https://image-net.org",
        splits="the official train and validation; real_top1 by ReaL's labels where real.json is there",
        get="https://image-net.org/download.php or https://www.kaggle.com/c/imagenet-object-localization-challenge "
        "(both need an account); below --data: imagenet/train/WNID/*.JPEG and imagenet/val/WNID/*.JPEG, or Kaggle's "
        f"ILSVRC/Data/CLS-LOC/train, val and {SOLUTION}; {REAL} of {REAL_AT} beside them",
        open=open_imagenet,
        sizes=(1_000, 1_281_167, 50_000),
    )
]
