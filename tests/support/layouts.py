"""Small downloads of each task, in the layouts that are documented; a class is a colour.

A builder writes below `data` and returns {class as people call it: number of its colour} in label order, and how many
images there are to train on and to test on.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import struct
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image

from train.transfer import Split, Task, open_tasks


class Built(NamedTuple):
    """What was written."""

    classes: dict[str, int]
    train: int
    test: int


def colour(number: int) -> tuple[int, int, int]:
    """Return the colour of a number, 0..215; two of them are 50 apart or more."""
    return number % 6 * 50, number // 6 % 6 * 50, number // 36 * 50


@cache
def picture(number: int) -> bytes:
    """Return a JPEG of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), colour(number)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def put(file: Path, number: int) -> None:
    """Write an image of a colour, with bytes of its own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(picture(number) + str(file).encode())


def write(file: Path, lines: Iterable[str]) -> None:
    """Write a list."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))


def number_of(image: Image.Image) -> int:
    """Return the number of the colour that an image has."""
    red, green, blue = (round(value / 50) for value in image.getpixel((8, 8)))
    return red + 6 * green + 36 * blue


def shown(task: Task, split: Split) -> list[tuple[str, int]]:
    """Return for each image what the task calls it, and the colour that it has."""
    return [(task.classes[label], number_of(split.images.decode(i))) for i, label in enumerate(split.labels)]


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes as Python 2 and NumPy 1 did: text and bytes are one thing, and NumPy's modules have their old names."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_text(self, value: str | bytes) -> None:
        """Write text or bytes as a Python 2 str."""
        data = value if isinstance(value, bytes) else value.encode("latin1")
        short = len(data) < 256
        head = pickle.SHORT_BINSTRING + bytes([len(data)]) if short else b""
        self.write((head or pickle.BINSTRING + struct.pack("<i", len(data))) + data)
        self.memoize(value)

    def save_number(self, value: bool) -> None:
        """Write a truth value as the number that NumPy 1 gave its dtypes."""
        self.write(pickle.BININT1 + bytes([value]))

    def save_global(self, value: Any, name: str | None = None) -> None:
        """Write a name of NumPy as it was."""
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name or value.__name__}\n".encode())
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text
    dispatch[bool] = save_number
    dispatch[type] = dispatch[type(len)] = save_global


def python2(value: Any) -> bytes:
    """Return a pickle as the files of CIFAR are."""
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def _batch(labels: list[int], key: str) -> bytes:
    pixels = np.stack([np.repeat(np.array(colour(n + 3), np.uint8), 1024) for n in labels])
    pixels[:, :4] = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 4))
    return python2({"data": pixels, key: labels, "batch_label": "one of them"})


def cifar10(data: Path) -> Built:
    """Ten classes; five batches of 10 and one of 20."""
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    root = data / "cifar-10-batches-py"
    root.mkdir(parents=True)
    (root / "batches.meta").write_bytes(python2({"label_names": names, "num_vis": 3072}))
    for i in range(1, 6):
        (root / f"data_batch_{i}").write_bytes(_batch([(7 * n + i) % 10 for n in range(10)], "labels"))
    (root / "test_batch").write_bytes(_batch([n % 10 for n in range(19, -1, -1)], "labels"))
    return Built({name: n + 3 for n, name in enumerate(names)}, 50, 20)


def cifar100(data: Path) -> Built:
    """Four of the classes."""
    names = ["apple", "aquarium_fish", "baby", "bear"]
    root = data / "cifar-100-python"
    root.mkdir(parents=True)
    (root / "meta").write_bytes(python2({"fine_label_names": names, "coarse_label_names": ["fish"]}))
    (root / "train").write_bytes(_batch([3, 1, 2, 0, 1, 2, 3, 0], "fine_labels"))
    (root / "test").write_bytes(_batch([2, 3, 0, 1], "fine_labels"))
    return Built({name.replace("_", " "): n + 3 for n, name in enumerate(names)}, 8, 4)


def dtd(data: Path) -> Built:
    """Three classes of six images, two in each list; in partition p they are shifted by p."""
    root, numbers = data / "dtd" / "dtd", {"banded": 5, "blotchy": 40, "polka-dotted": 9}
    names = {of: [f"{of}/{of}_{i:04d}.jpg" for i in range(6)] for of in numbers}
    for of, number in numbers.items():
        for name in names[of]:
            put(root / "images" / name, number)
    for p in range(1, 11):
        for part, side in enumerate(("train", "val", "test")):
            chosen = [names[of][(p + 2 * part + i) % 6] for of in reversed(names) for i in range(2)]
            write(root / "labels" / f"{side}{p}.txt", chosen)
    return Built(numbers, 12, 6)


CALTECH = {"BACKGROUND_Google": 33, "Faces": 32, "Faces_easy": 31, "airplanes": 31, "water_lilly": 5}


def caltech101(data: Path) -> Built:
    """Five classes of 31 images or more, but for one; capital letters come first, as in the original."""
    root = data / "caltech101" / "101_ObjectCategories"
    for number, (of, count) in enumerate(CALTECH.items()):
        for i in range(count):
            put(root / of / f"image_{i + 1:04d}.jpg", number)
    (root / "BACKGROUND_Google" / "tmp").write_text("as in the original")
    names = ("background", "face", "face up close", "airplane", "water lily")
    return Built({name: number for number, name in enumerate(names)}, 124, 8)


PETS = {
    "Abyssinian": 1,
    "american_bulldog": 2,
    "Bengal": 6,
}  # as the lists number them, which is not by ASCII


def pets(data: Path) -> Built:
    """Three breeds, three images each to train on and two to test on."""
    root = data / "oxford-iiit-pet"
    for side, first, count in (("trainval", 1, 3), ("test", 10, 2)):
        lines = [f"{of}_{i} {n} 1 {n}" for of, n in PETS.items() for i in range(first, first + count)]
        write(root / "annotations" / f"{side}.txt", reversed(lines))
        for line in lines:
            name, number, *_ = line.split()
            put(root / "images" / f"{name}.jpg", int(number))
    return Built({name.replace("_", " "): number for name, number in PETS.items()}, 9, 6)


DOMAINNET = {"aircraft_carrier": 0, "t-shirt": 1, "The_Eiffel_Tower": 2, "zebra": 3}


def domainnet(domain: str) -> Callable[[Path], Built]:
    """Four classes, of three images to train on and two to test on."""

    def build(data: Path) -> Built:
        root = data / "domainnet"
        for side, first, count in (("train", 1, 3), ("test", 7, 2)):
            lines = []
            for of, label in reversed(DOMAINNET.items()):
                for i in range(first, first + count):
                    file = f"{domain}/{of}/{domain}_{label + 1:03d}_{i:06d}.jpg"
                    put(root / file, label + 20)
                    lines.append(f"{file} {label}")
            write(root / f"{domain}_{side}.txt", lines)
        return Built({name.replace("_", " "): number + 20 for name, number in DOMAINNET.items()}, 12, 8)

    return build


EUROSAT = {
    "AnnualCrop": "fields of annual crops",
    "Forest": "forest",
    "HerbaceousVegetation": "wild grass and shrubs",
    "Highway": "a highway",
    "Industrial": "industrial buildings",
    "Pasture": "pasture land",
    "PermanentCrop": "orchards or vineyards",
    "Residential": "houses where people live",
    "River": "a river",
    "SeaLake": "a sea or a lake",
}


def eurosat(data: Path) -> Built:
    """Ten classes of ten."""
    for number, of in enumerate(EUROSAT):
        for i in range(1, 11):
            put(data / "eurosat" / "2750" / of / f"{of}_{i}.jpg", number)
    return Built({name: number for number, name in enumerate(EUROSAT.values())}, 80, 20)


DISEASES = {
    "0": "Cassava Bacterial Blight (CBB)",
    "1": "Cassava Brown Streak Disease (CBSD)",
    "2": "Cassava Green Mottle (CGM)",
    "3": "Cassava Mosaic Disease (CMD)",
    "4": "Healthy",
}


def cassava(data: Path) -> Built:
    """Five classes of ten, 30 of one."""
    root = data / "cassava"
    root.mkdir(parents=True)
    (root / "label_num_to_disease_map.json").write_text(
        json.dumps(dict(sorted(DISEASES.items(), reverse=True)))
    )
    rows = [(f"{1000 * label + i}.jpg", label) for label in range(5) for i in range(30 if label == 3 else 10)]
    for file, label in rows:
        put(root / "train_images" / file, label + 10)
    with (root / "train.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("image_id", "label"), *reversed(rows)])
    names = ("bacterial blight", "brown streak disease", "green mottle", "mosaic disease", "healthy")
    return Built({name: label + 10 for label, name in enumerate(names)}, 56, 14)


TRAPS = {"bobcat": 6, "opossum": 1, "empty": 30, "car": 33, "coyote": 9}  # the order of the file, and its ids


def traps_list(root: Path, side: str, wanted: dict[str, list[list[str]]]) -> None:
    """Write a COCO file: {image: the categories of its boxes}."""
    images, annotations = [], []
    for name, boxes in wanted.items():
        images.append({"id": name, "file_name": f"{name}.jpg", "location": 38, "width": 16, "height": 16})
        number = TRAPS[boxes[0]] if boxes else 0
        put(root / "eccv_18_all_images_sm" / f"{name}.jpg", number)
        for of in boxes:
            annotations.append(
                {"id": f"{name}{len(annotations)}", "image_id": name, "category_id": TRAPS[of]}
            )
    content = {
        "info": {},
        "categories": [{"id": n, "name": of} for of, n in TRAPS.items()],
        "images": images,
        "annotations": annotations,
    }
    file = root / "eccv_18_annotation_files" / f"{side}_annotations.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def camera_traps(data: Path) -> Built:
    """Four classes; frames that are empty, without a box, of two animals, and of one twice; trans has no car."""
    root, animals = data / "cct20", ("bobcat", "opossum", "car", "coyote")
    odd = {"e1": ["empty"], "e2": ["empty"], "n": [], "two": ["car", "bobcat"], "pair": ["bobcat", "bobcat"]}
    traps_list(root, "train", {**{f"{of}{i}": [of] for of in animals for i in range(3)}, **odd})
    traps_list(root, "cis_test", {**{f"c{of}{i}": [of] for of in animals for i in range(2)}, "ce": ["empty"]})
    traps_list(root, "trans_test", {f"t{of}{i}": [of] for of in animals if of != "car" for i in range(2)})
    return Built({"opossum": 1, "bobcat": 6, "coyote": 9, "car": 33}, 13, 8)


SUN = {"/b/beach": 4, "/a/apartment_building/outdoor": 8, "/s/subway_station/platform": 90}  # not sorted


def sun397(data: Path) -> Built:
    """Three classes of five images, in partition p two to train on and two to test on, shifted by p."""
    root = data / "SUN397"
    write(root / "ClassName.txt", SUN)
    for of, number in SUN.items():
        for i in range(5):
            put(root / f"{of[1:]}/sun_{i}.jpg", number)
    for p in range(1, 11):
        for side, first in (("Training", 0), ("Testing", 2)):
            lines = [f"{of}/sun_{(p + first + i) % 5}.jpg" for of in reversed(SUN) for i in range(2)]
            write(root / f"{side}_{p:02d}.txt", lines)
    return Built({"beach": 4, "outdoor apartment building": 8, "subway station platform": 90}, 6, 6)


# The two of one name at OpenAI, a bird and a machine of one name in WordNet, in the order of their ids.
WNIDS = {"n01440764": 50, "n02012849": 51, "n03126707": 52, "n04355933": 53, "n04356056": 54}


def imagenet(data: Path) -> Built:
    """Five classes, three images each to train on and two for validation, in folders."""
    root = data / "imagenet"
    for order, (wnid, number) in enumerate(reversed(WNIDS.items())):
        for i in range(3):
            put(root / "train" / wnid / f"{wnid}_{i}.JPEG", number)
        for i in range(2):
            put(root / "val" / wnid / f"ILSVRC2012_val_{2 * order + i + 1:08d}.JPEG", number)
    names = ("tench", "crane bird", "construction crane", "sunglass", "sunglasses")
    return Built(dict(zip(names, WNIDS.values(), strict=True)), 15, 10)


BUILDERS: dict[str, Callable[[Path], Built]] = {
    "caltech101": caltech101,
    "camera-traps": camera_traps,
    "cassava": cassava,
    "cifar10": cifar10,
    "cifar100": cifar100,
    **{
        f"domainnet-{domain}": domainnet(domain)
        for domain in ("real", "clipart", "infograph", "painting", "quickdraw", "sketch")
    },
    "dtd": dtd,
    "eurosat": eurosat,
    "imagenet": imagenet,
    "pets": pets,
    "sun397": sun397,
}

Opened = dict[str, tuple[Path, Built, list[Task]]]  # by the task's name


def open_all(scratch: Path) -> Opened:
    """Write and open every task: where, what was written, and its partitions."""
    found = {}
    for name, builder in BUILDERS.items():
        found[name] = (scratch / name, builder(scratch / name), open_tasks(name, [scratch / name]))
    return found
