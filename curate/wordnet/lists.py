"""Named lists of ImageNet classes, as timm ships them."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from curate.errors import MissingError, reject_unknown

# Name → timm's file and the start of the sha256 of its wnids, sorted, a line each: a list that changed is refused.
LISTS = {
    "imagenet-1k": ("imagenet_synsets.txt", "385e02404994"),
    "imagenet-12k": ("imagenet12k_synsets.txt", "009d4c9f1966"),
    "imagenet-21k": (
        "imagenet22k_synsets.txt",
        "6320b72b72e4",
    ),  # 21,841 of autumn 2011; lacks n04399382, teddy, of the 1,000
    "imagenet-21k-p": ("imagenet21k_miil_synsets.txt", "e96927e3af1c"),
    "imagenet-21k-p-winter21": ("imagenet21k_miil_w21_synsets.txt", "68202583aa20"),
    "imagenet-a": ("imagenet_a_synsets.txt", "f6aa4b232445"),
    "imagenet-r": ("imagenet_r_synsets.txt", "e19a59d84e37"),
    "mini-imagenet": ("mini_imagenet_synsets.txt", "1b4824645ca6"),
}


@cache
def wnids_of(name: str) -> tuple[str, ...]:
    """Return the wnids of a named list, in the list's order.

    Raises:
        RecipeError: no list has this name.
        MissingError: timm is not installed, or has another list under this name.
    """
    hint = f"there are {', '.join(LISTS)}; `file` takes your own"
    reject_unknown(name, LISTS, f"no list of classes {name!r}", hint=hint)
    file, expected = LISTS[name]
    spec = importlib.util.find_spec("timm")  # finds the package without running it, so without torch
    path = Path(spec.origin).parent / "data" / "_info" / file if spec and spec.origin else None
    if path is None or not path.is_file():
        raise MissingError(f"the list {name!r} is taken from timm", hint="pip install timm")
    wnids = tuple(path.read_text(encoding="utf-8").split())
    found = hashlib.sha256("\n".join(sorted(wnids)).encode()).hexdigest()[:12]
    if found != expected:
        raise MissingError(
            f"{path}: {len(wnids):,} classes, which are not those of {name!r}",
            hint="another release of timm has the list, or give it as `file`",
        )
    return wnids
