"""The page of the tasks, told by their listings so that it cannot say anything else."""

from __future__ import annotations

from train.transfer.tasks.datasets import listings
from train.transfer.tasks.listing import Listing

INTRODUCTION = """\
# Tasks

Generated from the tasks' listings by `make reference`; see `curate tasks`.

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
    infos = listings().values()
    lines = [
        INTRODUCTION,
        "| task | classes | train | test | metric | splits | source |",
        "|---|---|---|---|---|---|---|",
        *map(_line, infos),
        "",
        "Sizes are those published, or, without an official split, those that follow from it.",
        "",
        *(line for listing in infos for line in _section(listing)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _line(listing: Listing) -> str:
    sizes = [f"{size:,}" for size in listing.sizes] if listing.sizes else ["", "", ""]
    cells = [f"`{listing.usage}`", *sizes, listing.metric, listing.splits, _source(listing)]
    return f"| {' | '.join(cells)} |"


def _source(listing: Listing) -> str:
    """Return the source, a link where it ends in an address."""
    text, _, address = listing.source.rpartition(" ")
    return f"[{text.rstrip(',;')}]({address})" if address.startswith("http") else listing.source


def _section(listing: Listing) -> list[str]:
    about = listing.about[0].upper() + listing.about[1:]
    return [f"## {listing.usage}", "", f"{about}.", "", f"Data: {listing.get.removesuffix('…')}.", ""]


if __name__ == "__main__":
    print(markdown(), end="")
