"""Generated images of 12 ImageNet classes that the generated pool has not; needs no download."""

from __future__ import annotations

from curate.errors import RecipeError
from curate.io.files import cache_folder
from curate.sources.synthetic.classes import DOWNSTREAM
from curate.sources.synthetic.folders import write_folder
from curate.sources.synthetic.images import DRAWING_VERSION
from train.transfer.tasks.datasets.folder import open_folder
from train.transfer.tasks.task import Task
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

COUNTS = {"train": 60, "test": 50}  # of each class
SIZE = 48  # pixels


def open_synthetic(request: TaskRequest) -> list[Task]:
    """Draw the images into the cache, unless they are there, and open them.

    Raises:
        RecipeError: PIXELS is no number from 16 to 1,024.
    """
    argument = request.argument
    size = SIZE if argument is None else int(argument) if argument.isdigit() else 0
    if not 16 <= size <= 1024:
        raise RecipeError(
            f"task synthetic:{argument}: no size in pixels", hint="write: synthetic or synthetic:64"
        )
    name = f"downstream-{COUNTS['train']}-{COUNTS['test']}-{size}px-v{DRAWING_VERSION}"
    place = cache_folder() / "synthetic" / name
    write_folder(place, classes=DOWNSTREAM, images_per_class=COUNTS, size=size, seed=0)
    return [open_folder(place)]


TASKS = [
    TaskInfo(
        name="synthetic",
        about="generated images of 12 ImageNet classes that the generated pool has not",
        source="drawn here",
        splits="60 and 50 images of each class",
        get="needs no download; PIXELS is their side, 48 without it",
        open=open_synthetic,
        argument="[:PIXELS]",
        sizes=(12, 720, 600),
    )
]
