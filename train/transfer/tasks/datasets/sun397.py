"""SUN397: scenes, in ten official partitions of 50 images of each class to train on and 50 to test on."""

from __future__ import annotations

from train.transfer.tasks.readers.downloads import Download
from train.transfer.tasks.readers.labeled_files import LabeledFile, labeled_file, with_spaces
from train.transfer.tasks.task import Task
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

PARTITIONS = 10
# Of /s/subway_station/platform the second word is the thing; of /c/church/outdoor it says which church.
THINGS = frozenset(
    {"backseat", "barrel_storage", "bottle_storage", "coral_reef", "door", "frontseat", "platform"}
)
TEMPLATES = ("a photo of a {}.", "a picture of the scene: {}.", "a view of a {}.", "this place is a {}.")


def open_sun397(request: TaskRequest) -> list[Task]:
    """Open the official partitions, all ten unless one is asked for; classes are in the order of ClassName.txt."""
    partitions = request.partition(PARTITIONS)
    images = request.find("SUN397/ClassName.txt", "sun397/ClassName.txt").parent
    lists = request.find(
        "SUN397/Training_01.txt",
        "SUN397/Partitions/Training_01.txt",
        "Partitions/Training_01.txt",
        "sun397/Training_01.txt",
        "sun397/Partitions/Training_01.txt",
    ).parent
    download, listed = Download(request.info, images), Download(request.info, lists)
    ids = [line.words[0] for line in download.lines("ClassName.txt", 1)]
    known: dict[str, LabeledFile] = {}  # an image is in several partitions, as one row
    return [_open(download, listed, ids, known, partition) for partition in partitions]


def _open(
    download: Download, listed: Download, ids: list[str], known: dict[str, LabeledFile], partition: int
) -> Task:
    sides, notes = [], []
    for side, name in (("train", "Training"), ("test", "Testing")):
        rows, again = download.once(side, _rows(listed, f"{name}_{partition:02d}.txt", set(ids), known))
        sides.append(rows)
        notes += again
    names = {path: _name(path) for path in ids}
    return download.task(names, *sides, templates=TEMPLATES, notes=notes, partition=partition)


def _rows(listed: Download, file: str, ids: set[str], known: dict[str, LabeledFile]) -> list[LabeledFile]:
    rows = []
    for line in listed.lines(file, 1):
        place = line.words[0]
        of = place.rpartition("/")[0]
        if of not in ids:
            listed.damaged(line.where, f"{place!r} is of no class that ClassName.txt names")
        if place not in known:
            known[place] = labeled_file(place.removeprefix("/"), of)
        rows.append(known[place])
    return rows


def _name(path: str) -> str:
    """Return what people call a class: of /a/apartment_building/outdoor, outdoor apartment building."""
    thing, *which = path.split("/")[2:]
    words = [thing, *which] if THINGS & set(which) else [*which, thing]
    return with_spaces(" ".join(words))


TASKS = [
    TaskInfo(
        name="sun397",
        about="scenes, indoor and outdoor",
        source="Xiao et al., CVPR 2010, https://vision.princeton.edu/projects/2010/SUN/",
        splits="the ten official partitions, of which results are the mean; one where it is named",
        get="unpack SUN397.tar.gz and, beside or in it, Partitions.zip of "
        "https://vision.princeton.edu/projects/2010/SUN/; below --data: SUN397/ClassName.txt, SUN397/a/abbey/*.jpg, … "
        "and SUN397/Training_01.txt, Testing_01.txt, … (or in Partitions/)",
        open=open_sun397,
        argument="[:PARTITION]",
        sizes=(397, 19_850, 19_850),
    )
]
