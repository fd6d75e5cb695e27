"""DomainNet: 345 classes in six styles, each style a task."""

from __future__ import annotations

from train.transfer.tasks.readers.downloads import Download, Line
from train.transfer.tasks.readers.labeled_files import (
    LabeledFile,
    display_names,
    labeled_file,
    shared_classes,
)
from train.transfer.tasks.task import Task
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

# Style → training and test images of the cleaned version, what its images are, and texts.
DOMAINS = {
    "real": (120_906, 52_041, "photographs", ("a photo of a {}.", "a picture of a real {}.")),
    "clipart": (33_525, 14_604, "clip art", ("a clip art picture of a {}.", "a cartoon drawing of a {}.")),
    "infograph": (36_023, 15_582, "infographics", ("an infographic about a {}.", "a poster with a {}.")),
    "painting": (50_416, 21_850, "paintings", ("a painting of a {}.", "a work of art that shows a {}.")),
    "quickdraw": (
        120_750,
        51_750,
        "drawings of some seconds",
        ("a quick line drawing of a {}.", "a {} drawn in a few strokes."),
    ),
    "sketch": (
        48_212,
        20_916,
        "sketches",
        ("a pencil sketch of a {}.", "a black and white drawing of a {}."),
    ),
}
# The official lists of paintings have no t-shirt to train on and no syringe to test on.
ABSENT = {"painting": frozenset({"t-shirt", "syringe"})}


def open_domain(request: TaskRequest) -> list[Task]:
    """Open a style with the official lists; classes are in the order of their numbers there."""
    request.no_argument()
    info = request.info
    domain = info.name.partition("-")[2]
    places = [f"{folder}/{domain}_train.txt" for folder in ("domainnet", "DomainNet", "domain_net")]
    download = Download(info, request.find(*places).parent)
    lists = [download.lines(f"{domain}_{side}.txt", 2) for side in ("train", "test")]
    pairs = [[(line, _row(download, line, domain)) for line in lines] for lines in lists]
    ids = download.numbered((line.where, one.class_id, line.words[1]) for side in pairs for line, one in side)
    train, train_notes = download.once("train", [one for _, one in pairs[0]])
    test, test_notes = download.once("test", [one for _, one in pairs[1]])
    sizes = (len(ids), len(train), len(test))
    train, test, dropped = shared_classes(train, test, ABSENT.get(domain, ()))
    there = {one.class_id for one in train + test}
    names = display_names(name for name in ids if name in there)
    notes = [*train_notes, *test_notes, *dropped]
    return [download.task(names, train, test, templates=DOMAINS[domain][3], notes=notes, sizes=sizes)]


def _row(download: Download, line: Line, domain: str) -> LabeledFile:
    parts = line.words[0].split("/")
    if len(parts) != 3 or parts[0] != domain:
        download.damaged(line.where, f"{line.words[0]!r} is no {domain}/CLASS/IMAGE")
    return labeled_file(line.words[0], parts[1])


def _info(domain: str) -> TaskInfo:
    train, test, what, _ = DOMAINS[domain]
    lacks = ", without t-shirt and syringe, each of which one side lacks" if domain in ABSENT else ""
    return TaskInfo(
        name=f"domainnet-{domain}",
        about=f"{what} of 345 kinds of things and animals",
        source="Peng et al., ICCV 2019, http://ai.bu.edu/M3SDA/",
        splits=f"the official lists{lacks}",
        get=f"of http://ai.bu.edu/M3SDA/, the cleaned version: unpack {domain}.zip and put {domain}_train.txt and "
        f"{domain}_test.txt beside it; below --data: domainnet/{domain}/CLASS/* and domainnet/{domain}_*.txt",
        open=open_domain,
        sizes=(345, train, test),
    )


TASKS = [_info(domain) for domain in DOMAINS]
