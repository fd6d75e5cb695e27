"""Folders in VOC's layout, made of the shared photographs or written by the tests."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from train.transfer.tasks.readers.voc import ACTIONS

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "voc07.tar"


def unpack(place: Path) -> Path:
    """Unpack the 60 photographs and return their folder."""
    with tarfile.open(SHARED) as archive:
        archive.extractall(place, filter="data")
    return place / "voc07"


def photographs(voc07: Path, data: Path, *, train: Sequence[str], test: Sequence[str]) -> Path:
    """Lay out some of the photographs as VOC2007 below `data`; an image on both sides is another file on one."""
    root = data / "VOCdevkit" / "VOC2007"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in {*train, *test}:
        shutil.copy(voc07 / "Annotations" / f"{name}.xml", root / "Annotations")
        shutil.copy(voc07 / "JPEGImages" / f"{name}.jpg", root / "JPEGImages")
    for side, names in (("trainval", train), ("test", test)):
        (root / "ImageSets" / "Main" / f"{side}.txt").write_text("".join(f"{name}\n" for name in names))
    return data


def write_voc(
    data: Path, side: str, images: Mapping[str, Sequence[tuple]], *, year: str = "VOC2007", kind: str = "Main"
) -> None:
    """Write images of 80 x 60 pixels of noise; an object is a class, a box as VOC has it, and perhaps "difficult"."""
    root = data / "VOCdevkit" / year
    for folder in ("Annotations", "JPEGImages", f"ImageSets/{kind}"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, objects in images.items():
        noise = (
            np.random.default_rng(int(name.replace("_", ""))).integers(0, 256, (60, 80, 3)).astype(np.uint8)
        )
        Image.fromarray(noise).save(root / "JPEGImages" / f"{name}.jpg")
        parts = "".join(_object(*one) for one in objects)
        size = "<size><width>80</width><height>60</height><depth>3</depth></size>"
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>\n{size}\n{parts}</annotation>\n")
    (root / "ImageSets" / kind / f"{side}.txt").write_text("".join(f"{name}\n" for name in images))


def _object(name: str, box: Sequence[float], *more: str) -> str:
    corners = "".join(f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    hard = int("difficult" in more)
    rest = "".join(one for one in more if one != "difficult")
    return (
        f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox>{corners}</bndbox>{rest}</object>\n"
    )


class Person(NamedTuple):
    """A person of the tests: a box as VOC has it, and what they do."""

    box: tuple[int, int, int, int]
    actions: tuple[str, ...]


def write_action(data: Path, side: str, images: Mapping[str, Sequence[Person]]) -> None:
    """Write VOC 2012's actions; each image has a chair first, and then its persons."""
    objects = {}
    for name, persons in images.items():
        made: list[tuple] = [("chair", (1, 1, 9, 9))]
        for person in persons:
            tags = [(action, int(action in person.actions)) for action in ACTIONS]
            tags.append(("other", int(not person.actions)))
            said = "".join(f"<{action}>{value}</{action}>" for action, value in tags)
            made.append(("person", person.box, f"<actions>{said}</actions>"))
        objects[name] = made
    write_voc(data, side, objects, year="VOC2012", kind="Action")
    lines = [f"{name} {i + 2}\n" for name, persons in images.items() for i in range(len(persons))]
    (data / "VOCdevkit" / "VOC2012" / "ImageSets" / "Action" / f"{side}.txt").write_text("".join(lines))
