"""Oxford-IIIT Pet: breeds of cats and dogs."""

from __future__ import annotations

from train.transfer.tasks.readers.downloads import Download
from train.transfer.tasks.readers.labeled_files import LabeledFile, display_names, labeled_file
from train.transfer.tasks.task import Task
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

TEMPLATES = (
    "a photo of a {}.",
    "a photo of a {}, a breed of pet.",
    "a close-up of a {}.",
    "a photo of my {}.",
)


def open_pets(request: TaskRequest) -> list[Task]:
    """Open it with the official lists; classes are in the order of their numbers there."""
    request.no_argument()
    root = request.find("oxford-iiit-pet/annotations/trainval.txt", "annotations/trainval.txt").parents[1]
    download = Download(request.info, root)
    lists = [download.lines(f"annotations/{side}.txt", 4) for side in ("trainval", "test")]
    ids = download.numbered(
        (line.where, _breed(download, line.where, line.words[0]), line.words[1])
        for lines in lists
        for line in lines
    )
    train, train_notes = download.once("train", [_row(line.words[0]) for line in lists[0]])
    test, test_notes = download.once("test", [_row(line.words[0]) for line in lists[1]])
    return [
        download.task(display_names(ids), train, test, templates=TEMPLATES, notes=train_notes + test_notes)
    ]


def _breed(download: Download, where: str, image: str) -> str:
    """Return the breed that an image's name tells: american_bulldog_100 is one of american_bulldog."""
    breed, _, number = image.rpartition("_")
    if not breed or not number.isdecimal():
        download.damaged(where, f"{image!r} is no breed and number, such as Abyssinian_100")
    return breed


def _row(image: str) -> LabeledFile:
    return labeled_file(f"{image}.jpg", image.rpartition("_")[0], below="images")


TASKS = [
    TaskInfo(
        name="pets",
        about="37 breeds of cats and dogs",
        source="Parkhi et al., CVPR 2012, https://www.robots.ox.ac.uk/~vgg/data/pets/",
        splits="the official trainval and test",
        get="unpack images.tar.gz and annotations.tar.gz of https://www.robots.ox.ac.uk/~vgg/data/pets/ into one "
        "folder; below --data: oxford-iiit-pet/images/*.jpg and oxford-iiit-pet/annotations/trainval.txt, test.txt",
        open=open_pets,
        metric="mean_per_class",
        sizes=(37, 3_680, 3_669),
    )
]
