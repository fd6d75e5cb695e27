"""Transfer: what a run is worth on other tasks, by few shots and by all, by probes and by fine-tuning."""

from train.transfer.finetunes import Finetune
from train.transfer.measurements import transfer
from train.transfer.probes import Linear
from train.transfer.results import summary
from train.transfer.tasks import Arrays, Files, Split, Task, open_task

__all__ = ["Arrays", "Files", "Finetune", "Linear", "Split", "Task", "open_task", "summary", "transfer"]
