"""Caption templates: texts with `{}` where the class name goes; the sets and class names that open_clip ships."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from curate.errors import MissingError, RecipeError, reject_unknown
from curate.wordnet.lists import wnids_of

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


def texts(templates: Sequence[str] | str) -> list[str]:
    """Return the templates that an option gives: a list of them, one alone, or the name of a set."""
    return named(templates) if isinstance(templates, str) and "{" not in templates else parse(templates)


def named(name: str) -> list[str]:
    """Return the templates of a named set, in its published order.

    Raises:
        RecipeError: no set has this name.
        MissingError: open_clip is not installed, or no longer has the set.
    """
    hint = f"there are {', '.join(NAMED)}, or give texts with {{}}"
    reject_unknown(name, NAMED, f"no template set {name!r}", hint=hint)
    return parse([function("{}") for function in getattr(_metadata(f"template set {name!r}"), NAMED[name])])


def curated() -> dict[str, str]:
    """Return wnid → the name that OpenAI gave the class, for the 1,000 classes of ImageNet.

    Raises:
        MissingError: open_clip, or timm for the order of the classes, is not installed.
    """
    names = _metadata("the list of class names").IMAGENET_CLASSNAMES
    return dict(zip(wnids_of("imagenet-1k"), names, strict=True))


def _metadata(wanted: str) -> ModuleType:
    """Return open_clip's module of templates and names, which runs without torch."""
    found = importlib.util.find_spec("open_clip")  # finds the package without running it, so without torch
    file = Path(found.origin).with_name("zero_shot_metadata.py") if found and found.origin else None
    if file is None or not file.exists():
        raise MissingError(f"{wanted} is taken from open_clip", hint="pip install open_clip_torch")
    spec = importlib.util.spec_from_file_location("_open_clip_templates", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
