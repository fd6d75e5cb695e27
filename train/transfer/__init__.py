"""Transfer: measure runs on other tasks, with few images and with all, by probes and by fine-tuning."""

from train.transfer.jobs import transfer
from train.transfer.measurements import Grid
from train.transfer.protocols.finetune import Finetune, LpFt
from train.transfer.protocols.linear import Linear
from train.transfer.run_names import open_run_or_scratch
from train.transfer.splits import Arrays, Files, Split
from train.transfer.summary import summarize
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
    "open_run_or_scratch",
    "open_tasks",
    "summarize",
    "transfer",
]
