"""What img2dataset imports and a guarded download never uses: kept out of its processes.

torch (through webdataset), wandb and albumentations make five of six seconds of its start and 300 MB of each process.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

ABSENT = ("torch",)  # webdataset does without
EMPTY = ("wandb", "albumentations")  # imported by name, and looked into only for logging and resizing


@contextmanager
def spared() -> Iterator[None]:
    """Import without these modules, unless they are there already."""
    new: dict[str, ModuleType | None] = dict.fromkeys(ABSENT) | {n: ModuleType(n) for n in EMPTY}
    new = {name: module for name, module in new.items() if name not in sys.modules}
    sys.modules.update(new)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in new:
            del sys.modules[name]
