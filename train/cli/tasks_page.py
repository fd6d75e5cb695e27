"""The page of the tasks, made from the registry so that it cannot say anything else."""

from __future__ import annotations

from train.transfer.tasks.datasets import task_infos
from train.transfer.tasks.task_info import TaskInfo

INTRODUCTION = """\
# Tasks

Generated from the task registry by `make reference`; see `curate tasks`.

A task is named with `--task`: `--task dtd`, `--task folder:PATH`, `--task dtd:3` for one of its partitions, or
`--task textures=dtd` to call it something else in the results. Those that ask for data find it below `--data`, which
may be given several times: a folder that holds what was downloaded and unpacked, or one of the unpacked folders itself.

    curate transfer RUN --task dtd --task pets --data /data --shots 1,5,full

Nothing is downloaded unasked. What is missing, damaged or of another task is refused with the file and the line. A part
of a set is taken as it is, and the results' notes say of what it is a part. Images that do not decode, or whose bytes
are in train and in test, are left out and counted; of a task that does not fit into memory, one that does not decode
stops the measuring, and is named.

Every measurement is over the whole test set, whatever the shots. A task's own metric is named below; accuracy (`top1`)
and its mean over the classes (`mean_per_class`) are recorded for every task of one label an image. Where a set has no
official split, who is tested on follows from the name of the image and never changes.
"""


def markdown() -> str:
    """Return the page of all tasks."""
    infos = task_infos().values()
    lines = [
        INTRODUCTION,
        "| task | classes | train | test | metric | splits | source |",
        "|---|---|---|---|---|---|---|",
        *map(_line, infos),
        "",
        "Sizes are those published, or, without an official split, those that follow from it.",
        "",
        *(line for info in infos for line in _section(info)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _line(info: TaskInfo) -> str:
    sizes = [f"{size:,}" for size in info.sizes] if info.sizes else ["", "", ""]
    cells = [f"`{info.usage}`", *sizes, info.metric, info.splits, _source(info)]
    return f"| {' | '.join(cells)} |"


def _source(info: TaskInfo) -> str:
    """Return the source, a link where it ends in an address."""
    text, _, address = info.source.rpartition(" ")
    return f"[{text.rstrip(',;')}]({address})" if address.startswith("http") else info.source


def _section(info: TaskInfo) -> list[str]:
    about = info.about[0].upper() + info.about[1:]
    return [f"## {info.usage}", "", f"{about}.", "", f"Data: {info.get.removesuffix('…')}.", ""]


if __name__ == "__main__":
    print(markdown(), end="")
