"""Build controlled pre-training sets: two sets differ in the one thing that is named, and in nothing else.

The verbs of the command line, for Python: `curate.build(curate.load("recipe.yaml"), out)`. Those of the package `train`
are here too, for a script of yours that is called `train.py` hides the package of that name.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.builds.build import build
    from curate.builds.plan import plan
    from curate.builds.sharding import shard
    from curate.datasets.dataset import open_dataset
    from curate.datasets.diffs import diff
    from curate.datasets.queries import query
    from curate.datasets.summary import summarize
    from curate.datasets.verification import verify
    from curate.recipes.recipe import load
    from train.data.loader import Loader
    from train.eval.scores import score
    from train.methods.registry import train
    from train.reports import write_report as report
    from train.runs import open_run
    from train.transfer import Arrays, Files, Grid, Split, Task, open_run_or_scratch, open_tasks, transfer

# Each is imported when it is first used: `import curate` costs nothing, and needs neither DuckDB nor torch.
_HOMES = {
    "Arrays": "train.transfer",
    "Files": "train.transfer",
    "Grid": "train.transfer",
    "Loader": "train.data.loader",
    "Split": "train.transfer",
    "Task": "train.transfer",
    "build": "curate.builds.build",
    "diff": "curate.datasets.diffs",
    "load": "curate.recipes.recipe",
    "open_dataset": "curate.datasets.dataset",
    "open_run": "train.runs",
    "open_run_or_scratch": "train.transfer",
    "open_tasks": "train.transfer",
    "plan": "curate.builds.plan",
    "query": "curate.datasets.queries",
    "report": "train.reports:write_report",
    "score": "train.eval.scores",
    "shard": "curate.builds.sharding",
    "summarize": "curate.datasets.summary",
    "train": "train.methods.registry",
    "transfer": "train.transfer",
    "verify": "curate.datasets.verification",
}

__all__ = [
    "Arrays", "Files", "Grid", "Loader", "Split", "Task", "build", "diff", "load", "open_dataset", "open_run",
    "open_run_or_scratch", "open_tasks", "plan", "query", "report", "score", "shard", "summarize", "train", "transfer",
    "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'curate' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    if module.startswith("train."):
        _import_train()
    return getattr(import_module(module), attribute or name)


def _import_train() -> None:
    """Import the package `train` from beside this one, whatever else of that name comes first on the path.

    Raises:
        ImportError: another `train` is imported already.
    """
    ours = Path(__file__).parents[1] / "train" / "__init__.py"
    loaded = sys.modules.get("train")
    if loaded is None:
        spec = spec_from_file_location("train", ours)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["train"] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules["train"])
    elif not loaded.__file__ or not ours.samefile(loaded.__file__):
        raise ImportError(
            f"{loaded.__file__ or 'a module'} is imported as `train`, the name of a package that curate needs: give "
            "your file another name, or run it and do not import it"
        )
