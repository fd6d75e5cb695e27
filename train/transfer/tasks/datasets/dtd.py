"""DTD: textures, named by how they look, in ten official partitions."""

from __future__ import annotations

from train.transfer.tasks.readers.downloads import Download
from train.transfer.tasks.readers.labeled_files import LabeledFile, display_names, labeled_file
from train.transfer.tasks.task import Task
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

PARTITIONS = 10
TEMPLATES = (
    "a photo of a {} texture.",
    "a close-up of a {} surface.",
    "a {} pattern.",
    "a photo of something {}.",
)


def open_dtd(request: TaskRequest) -> list[Task]:
    """Open one official partition or all; its train and val are trained on."""
    partitions = request.partition(PARTITIONS, "1")
    root = request.find("dtd/dtd/labels", "dtd/labels").parent
    return [_open(Download(request.info, root), partition) for partition in partitions]


def _open(download: Download, partition: int) -> Task:
    train = [one for side in ("train", "val") for one in _rows(download, f"labels/{side}{partition}.txt")]
    test = _rows(download, f"labels/test{partition}.txt")
    train, train_notes = download.once("train", train)
    test, test_notes = download.once("test", test)
    ids = sorted({one.class_id for one in train + test})
    return download.task(
        display_names(ids),
        train,
        test,
        templates=TEMPLATES,
        notes=train_notes + test_notes,
        partition=partition,
    )


def _rows(download: Download, file: str) -> list[LabeledFile]:
    rows = []
    for line in download.lines(file, 1):
        folder, slash, name = line.words[0].partition("/")
        if not slash or not name or "/" in name:
            download.damaged(line.where, f"{line.words[0]!r} is no CLASS/IMAGE")
        rows.append(labeled_file(line.words[0], folder, below="images"))
    return rows


TASKS = [
    TaskInfo(
        name="dtd",
        about="textures, named by how they look",
        source="Cimpoi et al., CVPR 2014, https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        splits="official partition 1 (of ten; all for their mean): train and val to train on, test",
        get="unpack https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz; below --data: "
        "dtd/images/CLASS/*.jpg and dtd/labels/train1.txt, … (or dtd/dtd/…, as torchvision has it)",
        open=open_dtd,
        argument="[:PARTITION]",
        sizes=(47, 3_760, 1_880),
    )
]
