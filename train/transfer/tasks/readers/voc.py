"""PASCAL VOC as it is on disk: lists of images, and an XML file of the objects of each."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from curate.errors import DataError, did_you_mean
from train.transfer.splits import in_threads

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
ACTIONS = (
    "jumping", "phoning", "playinginstrument", "reading", "ridingbike", "ridinghorse", "running", "takingphoto",
    "usingcomputer", "walking",
)  # fmt: skip
OTHER = "other"  # a person who does none of them
CORNERS = ("xmin", "ymin", "xmax", "ymax")
SLACK = 1  # pixels that a box may stick out of its image; it is cut off

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class VocObject:
    """An object of an image.

    Args:
        name: of its class.
        box: xmin, ymin, xmax, ymax in pixels from the image's upper left corner: VOC's, which count from 1 and
            include the last pixel, less one at xmin and ymin.
        difficult: not counted by the metric.
        truncated: a part of it is outside the image.
        actions: what a person does: 1 or 0 of each action, where the file says so.
    """

    name: str
    box: Box
    difficult: bool = False
    truncated: bool = False
    actions: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Annotation:
    """The content of an XML file: the size of an image in pixels, and its objects in the order of the file."""

    width: int
    height: int
    objects: tuple[VocObject, ...]


class _Builder(ET.TreeBuilder):
    """Makes the tree, and refuses a document type: VOC has none, and its entities can fill the memory."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise ValueError("it declares a document type, which VOC's files do not")


def read_annotation(path: Path) -> Annotation:
    """Read an XML file of VOC.

    Raises:
        DataError: it is not there, is no XML, or is none of VOC's; a class is unknown; a box is outside the image or
            has no area.
    """
    try:
        root = ET.parse(path, parser=ET.XMLParser(target=_Builder())).getroot()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror})",
            hint="a list of images names it; unpack the archive again",
        ) from error
    except ET.ParseError as error:
        raise DataError(
            f"{path}, line {error.position[0]}: damaged XML ({error})", hint="unpack the archive again"
        ) from error
    except (ValueError, LookupError) as error:  # an encoding that nobody knows is a LookupError
        raise DataError(f"{path}: {error}", hint="take the file of the archive") from error
    if root.tag != "annotation":
        raise DataError(f"{path}: begins with <{root.tag}>, not <annotation>", hint="it is no file of VOC")
    width, height = (int(_number(path, root, f"size/{side}")) for side in ("width", "height"))
    if width < 1 or height < 1:
        raise DataError(f"{path}: an image of {width} x {height} pixels", hint="take the file of the archive")
    found = (
        _thing(f"{path}, object {i}", one, width, height) for i, one in enumerate(root.iterfind("object"), 1)
    )
    return Annotation(width, height, tuple(found))


def _thing(where: str, element: ET.Element, width: int, height: int) -> VocObject:
    name = (element.findtext("name") or "").strip()
    if name not in CLASSES:
        near = did_you_mean(name, CLASSES)
        raise DataError(
            f"{where}: no class {name!r}", hint=f"{near + '; ' if near else ''}there are {', '.join(CLASSES)}"
        )
    xmin, ymin, xmax, ymax = (_number(where, element, f"bndbox/{corner}") for corner in CORNERS)
    description = f"{where}: box {xmin:g}, {ymin:g}, {xmax:g}, {ymax:g}"
    if xmin < 1 - SLACK or ymin < 1 - SLACK or xmax > width + SLACK or ymax > height + SLACK:
        raise DataError(
            f"{description} is outside the image of {width} x {height} pixels",
            hint="pixels count from 1; is the XML file of another image?",
        )
    box = (max(xmin, 1) - 1, max(ymin, 1) - 1, min(xmax, width), min(ymax, height))
    if not (box[2] > box[0] and box[3] > box[1]):
        raise DataError(f"{description} has no area", hint="xmin, ymin, xmax, ymax, the last pixel included")
    acts = element.find("actions")
    actions = {} if acts is None else {one.tag: int(_number(where, acts, one.tag)) for one in acts}
    return VocObject(
        name, box, _flag(where, element, "difficult"), _flag(where, element, "truncated"), actions
    )


def _flag(where: str, element: ET.Element, name: str) -> bool:
    return element.find(name) is not None and _number(where, element, name) != 0


def _number(where: str | Path, element: ET.Element, name: str) -> float:
    """Return a number: whole in VOC 2007, and now and then with decimals in 2012."""
    text = element.findtext(name)
    if text is None:
        raise DataError(f"{where}: <{name}> is missing", hint="it is no file of VOC, or a damaged one")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: <{name}> is {text.strip()!r}", hint="it should be a number")
    return value


def read_annotations(root: Path, names: Sequence[str]) -> list[Annotation]:
    """Read the XML files of images, in several threads.

    Args:
        root: the folder of a year, which holds Annotations.

    Raises:
        DataError: as `read_annotation`.
    """
    return list(in_threads(lambda i: read_annotation(root / "Annotations" / f"{names[i]}.xml"), len(names)))


def image_file(name: str) -> str:
    """Return where an image is below the folder of its year."""
    return f"JPEGImages/{name}.jpg"


def read_names(root: Path, listed: str) -> tuple[str, ...]:
    """Return the images of a list, such as Main/trainval, or Action/train, whose images come once for each person.

    Raises:
        DataError: the list is empty, or names an image that is not there.
    """
    path = list_file(root, listed)
    names = tuple(dict.fromkeys(words[0] for _, words in read_lines(path)))
    missing = [name for name in names if not (root / image_file(name)).is_file()]
    if missing:
        more = f", and of {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"{path}: there is no image {root / image_file(missing[0])}{more}",
            hint="VOC comes in several archives, to be unpacked in one place; is one of them missing?",
        )
    return names


def list_file(root: Path, listed: str) -> Path:
    """Return the file of a list of images."""
    return root / "ImageSets" / f"{listed}.txt"


def read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the words of each line of a list, with the line's number; those without words are passed over.

    Raises:
        DataError: it cannot be read, or says nothing.
    """
    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no plain text"
        raise DataError(f"{path}: cannot be read ({reason})", hint="unpack the archive again") from error
    found = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not found:
        raise DataError(f"{path}: is empty", hint="unpack the archive again")
    return found


def read_labels(path: Path, wanted: Sequence[tuple[str, ...]]) -> list[int]:
    """Return the number that ends each line of a list of one class: 1 has it, -1 has not, 0 is not counted.

    Args:
        wanted: how the lines begin, in any order: the image; and for actions the number of the object.

    Raises:
        DataError: a line is none such, or the list is of other images.
    """
    labels: dict[tuple[str, ...], int] = {}
    for number, words in read_lines(path):
        if len(words) != len(wanted[0]) + 1 or words[-1] not in ("1", "0", "-1"):
            form = "an image, an object and 1, 0 or -1" if len(wanted[0]) > 1 else "an image and 1, 0 or -1"
            raise DataError(f"{path}, line {number}: {' '.join(words)!r}", hint=f"a line is {form}")
        labels[tuple(words[:-1])] = int(words[-1])
    strange = set(wanted) ^ set(labels)
    if strange:
        first = " ".join(min(strange))
        raise DataError(
            f"{path}: is of other images than the list of all classes (such as {first}, which one of them lacks)",
            hint="unpack the archive again",
        )
    return [labels[start] for start in wanted]
