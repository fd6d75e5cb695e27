"""The page of the tasks is generated from their info, so it cannot say anything else."""

from pathlib import Path

from train.cli.tasks_page import markdown
from train.transfer.tasks.datasets import task_infos

PAGE = Path(__file__).parents[3] / "docs" / "tasks.md"


def test_the_page_is_what_the_listings_say() -> None:
    assert PAGE.read_text() == markdown(), "`make reference` writes it again"


def test_every_task_is_on_the_page_once() -> None:
    lines = PAGE.read_text().splitlines()
    assert len(task_infos()) > 15
    for info in task_infos().values():
        assert lines.count(f"## {info.usage}") == 1
        assert sum(line.startswith(f"| `{info.usage}` |") for line in lines) == 1
    assert (
        "| `pets` | 37 | 3,680 | 3,669 | mean_per_class | the official trainval and test |"
        in PAGE.read_text()
    )
