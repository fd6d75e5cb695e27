"""Build controlled pre-training sets: two sets differ in the one thing that is named, and in nothing else.

The verbs of the command line, for Python: `curate.build(curate.load("recipe.yaml"), out)`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.builds.build import build, shard
    from curate.builds.plan import plan
    from curate.datasets.dataset import open_dataset
    from curate.datasets.diffs import diff
    from curate.datasets.queries import query
    from curate.datasets.summary import summarize
    from curate.datasets.verification import verify
    from curate.recipes.recipe import load

# Each is imported when it is first used: `import curate` costs nothing, and needs no DuckDB.
_HOMES = {
    "build": "builds.build",
    "diff": "datasets.diffs",
    "load": "recipes.recipe",
    "open_dataset": "datasets.dataset",
    "plan": "builds.plan",
    "query": "datasets.queries",
    "shard": "builds.build",
    "summarize": "datasets.summary",
    "verify": "datasets.verification",
}

__all__ = ["build", "diff", "load", "open_dataset", "plan", "query", "shard", "summarize", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'curate' has no attribute {name!r}")
    return getattr(import_module(f"curate.{_HOMES[name]}"), name)
