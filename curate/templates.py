"""Caption templates: texts with `{}` where the class name goes, and the sets that have a name."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from curate.errors import MissingError, RecipeError, did_you_mean

# Named set → the attribute of open_clip's zero_shot_metadata that holds it, as functions of the class name.
NAMED = {"openai-80": "OPENAI_IMAGENET_TEMPLATES", "simple-7": "SIMPLE_IMAGENET_TEMPLATES"}


def parse(templates: Sequence[str] | str) -> list[str]:
    """Return templates that each have exactly one `{}`.

    Raises:
        RecipeError: there are none, or one has no `{}`, several, or another brace.
    """
    texts = [templates] if isinstance(templates, str) else list(templates)
    if not texts:
        raise RecipeError("templates: the list is empty", hint="`templates: ['a photo of a {}.']`")
    for template in texts:
        if template.count("{}") != 1 or template.count("{") != 1 or template.count("}") != 1:
            raise RecipeError(
                f"template {template!r} needs exactly one {{}} for the class name, and no other brace",
                hint="write it as 'a photo of a {}.'",
            )
    return texts


def named(name: str) -> list[str]:
    """Return the templates of a named set, in its published order.

    Raises:
        RecipeError: no set has this name.
        MissingError: open_clip is not installed, or no longer has the set.
    """
    if name not in NAMED:
        raise RecipeError(
            f"no template set {name!r}",
            hint=did_you_mean(name, NAMED) or f"there are {', '.join(NAMED)}, or give texts with {{}}",
        )
    spec = importlib.util.find_spec("open_clip")  # finds the package without running it, so without torch
    file = Path(spec.origin).with_name("zero_shot_metadata.py") if spec and spec.origin else None
    if file is None or not file.exists():
        raise MissingError(
            f"template set {name!r} is taken from open_clip", hint="pip install open_clip_torch"
        )
    module_spec = importlib.util.spec_from_file_location("_open_clip_templates", file)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return parse([function("{}") for function in getattr(module, NAMED[name])])
