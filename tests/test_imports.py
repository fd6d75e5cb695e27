"""The order of the folders: each imports only what stands below it, and nothing climbs, also not inside a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# Lowest first. A name is a folder or a file of the package.
CURATE = (
    "errors", "io", "wordnet", "recipes", "rows", "captions", "datasets", "sources", "ops", "builds", "fetch", "cli",
)  # fmt: skip
TRAIN = (
    "augment", "models", "data", "runs", "loop", "eval", "methods", "transfer", "experiments", "reports", "cli",
)  # fmt: skip
ORDER = [f"curate.{wing}" for wing in CURATE] + [f"train.{wing}" for wing in TRAIN]
# The public names of a package are looked up in it when they are first used.
DOORS = {"curate/__init__.py", "train/__init__.py"}


def imports_of(file: Path, *, types: bool = True) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of each import of the two packages, wherever in the file it stands.

    Args:
        types: also those that only a type checker sees.
    """
    tree = ast.parse(file.read_text())
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    left_out = set() if types else {id(node) for block in blocks for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] in ("curate", "train"))


def wing_of(name: str) -> str:
    return ".".join(name.split(".")[:2])


def climbing(file: Path, module: str) -> list[str]:
    """Return the imports of a file that lead to a folder above its own."""
    own = ORDER.index(wing_of(module))
    return [
        f"{file.relative_to(REPOSITORY)}:{line}: {wing_of(module)} imports {name}, which stands above it"
        for line, name in imports_of(file)
        if wing_of(name) not in ORDER or ORDER.index(wing_of(name)) > own
    ]


def files_of(package: str) -> list[tuple[Path, str]]:
    files = sorted((REPOSITORY / package).rglob("*.py"))
    return [(f, ".".join(f.relative_to(REPOSITORY).with_suffix("").parts)) for f in files]


@pytest.mark.parametrize("package", ["curate", "train"])
def test_a_folder_imports_only_what_stands_below_it(package: str) -> None:
    found = [
        line
        for file, module in files_of(package)
        if str(file.relative_to(REPOSITORY)) not in DOORS
        for line in climbing(file, module)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("package", ["curate", "train"])
def test_each_folder_has_its_place_in_the_order(package: str) -> None:
    there = {wing_of(module) for _, module in files_of(package)} - {f"{package}.__init__"}
    assert there == {wing for wing in ORDER if wing.startswith(package + ".")}


def test_an_import_that_climbs_is_told_with_its_line() -> None:
    file = REPOSITORY / "curate" / "rows" / "sql.py"
    [line] = [n for n, name in imports_of(file) if name == "curate.io.files.unfinished"]
    assert climbing(file, "curate.rows.sql") == []
    assert climbing(file, "curate.errors") == [
        f"curate/rows/sql.py:{line}: curate.errors imports curate.io.files.unfinished, which stands above it"
    ]


@pytest.mark.parametrize("package", ["curate", "train"])
def test_no_file_imports_itself_through_others(package: str) -> None:
    modules = {module.removesuffix(".__init__"): file for file, module in files_of(package)}
    graph = {
        module: {
            nearest
            for _, name in imports_of(file, types=False)
            if (nearest := name if name in modules else name.rpartition(".")[0]) in modules
            and nearest != module
        }
        for module, file in modules.items()
        if str(file.relative_to(REPOSITORY)) not in DOORS
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
