"""Transfer: what a run is worth on other tasks, by few shots and by all, by probes and by fine-tuning."""

from train.transfer.finetunes import Finetune
from train.transfer.measurements import transfer
from train.transfer.names import named_task, open_subject
from train.transfer.probes import Linear
from train.transfer.results import summary
from train.transfer.tasks import Arrays, Files, Split, Task, open_task

__all__ = [
    "Arrays",
    "Files",
    "Finetune",
    "Linear",
    "Split",
    "Task",
    "named_task",
    "open_subject",
    "open_task",
    "summary",
    "transfer",
]
