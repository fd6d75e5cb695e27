"""EuroSAT: land seen by a satellite, in red, green and blue."""

from __future__ import annotations

from train.transfer.tasks.readers.downloads import Download
from train.transfer.tasks.readers.labeled_files import display_names, divide_by_chance, labeled_file
from train.transfer.tasks.task import Task
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

TEST_FRACTION = 0.2  # of each class
NAMES = {
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
TEMPLATES = ("a satellite photo of {}.", "an aerial view of {}.", "{} seen from space.")


def open_eurosat(request: TaskRequest) -> list[Task]:
    """Open it with a fifth of every class to test on, by chance of the image."""
    request.no_argument()
    root = request.find("eurosat/2750", "EuroSAT/2750", "eurosat/EuroSAT_RGB", "EuroSAT_RGB", "2750")
    download = Download(request.info, root)
    folders, notes = download.class_folders()
    strange = [name for name in folders if name not in NAMES]
    if strange:
        download.damaged(root / strange[0], f"is no class of EuroSAT, which has {', '.join(NAMES)}")
    rows = [labeled_file(f"{name}/{file}", name) for name, files in folders.items() for file in files]
    train, test = divide_by_chance(rows, TEST_FRACTION)
    return [download.task(display_names(folders, NAMES), train, test, templates=TEMPLATES, notes=notes)]


TASKS = [
    TaskInfo(
        name="eurosat",
        about="land seen by a satellite, 64 x 64 pixels, RGB",
        source="Helber et al., JSTARS 2019, https://github.com/phelber/EuroSAT",
        splits="none official: a fifth of every class is tested on, by chance of the image",
        get="unpack EuroSAT_RGB.zip of https://zenodo.org/records/7711810; below --data: EuroSAT_RGB/CLASS/*.jpg "
        "(or eurosat/2750/CLASS/*.jpg, as torchvision has it)",
        open=open_eurosat,
        sizes=(10, 21_600, 5_400),
    )
]
