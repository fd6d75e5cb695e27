"""Transfer: what a run is worth on other tasks, by few shots and by all, by probes and by fine-tuning."""

from train.transfer.measurements import Grid, transfer
from train.transfer.names import named_tasks, open_subject
from train.transfer.protocols.finetune import Finetune, LpFt
from train.transfer.protocols.linear import Linear
from train.transfer.results import summary
from train.transfer.splits import Arrays, Files, Split
from train.transfer.tasks.datasets import open_tasks
from train.transfer.tasks.task import Task

__all__ = [
    "Arrays",
    "Files",
    "Finetune",
    "Grid",
    "Linear",
    "LpFt",
    "Split",
    "Task",
    "named_tasks",
    "open_subject",
    "open_tasks",
    "summary",
    "transfer",
]
