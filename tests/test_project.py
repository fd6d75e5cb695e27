"""The project as others get it: what is declared is imported, what is imported is declared, and the wheel holds all."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
PRODUCT = ("curate", "train")
# Distributions with another name than their module.
NAMES = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "open_clip": "open-clip-torch"}
UNSEEN = {
    "s3fs": "fsspec opens s3:// with it",
    "standard-imghdr": "img2dataset imports it",
}


@pytest.fixture(scope="module")
def project() -> Any:
    tomllib = pytest.importorskip("tomllib", reason="Python reads TOML from 3.11 on")
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def required(project: Any, *extras: str) -> set[str]:
    """Return the names of what is always installed and of what extras add, as package indexes compare them."""
    lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    found = [re.match(r"[\w.-]+", requirement) for requirements in lists for requirement in requirements]
    return {re.sub(r"[-_.]+", "-", name[0]).lower() for name in found if name}


def extras_for_users(project: Any) -> set[str]:
    return set(project["optional-dependencies"]) - {"bench", "dev"}


def imported(tree: ast.Module, *, at_the_top: bool = False) -> Iterator[str]:
    """Yield the distributions that a module imports.

    Args:
        tree: the module.
        at_the_top: only those without which it cannot be imported.
    """
    for node in tree.body if at_the_top else ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for module in {name.partition(".")[0] for name in names} - {*sys.stdlib_module_names, *PRODUCT}:
            yield NAMES.get(module, module.lower().replace("_", "-"))


def modules(*folders: str) -> dict[Path, ast.Module]:
    files = [file for folder in folders for file in (REPOSITORY / folder).rglob("*.py")]
    assert len(files) > 50
    return {file: ast.parse(file.read_text()) for file in files}


def test_every_import_of_the_product_is_declared(project: Any) -> None:
    always, declared = required(project), required(project, *extras_for_users(project))
    for file, tree in modules(*PRODUCT).items():
        assert set(imported(tree)) <= declared, file
        assert set(imported(tree, at_the_top=True)) <= always, f"{file}: in an extra, and imported by all"


def test_every_import_of_the_tests_comes_with_the_extra_dev(project: Any) -> None:
    [own] = [one for one in project["optional-dependencies"]["dev"] if one.startswith(project["name"])]
    chosen = set(re.findall(r"\w+", own.partition("[")[2]))
    assert chosen == extras_for_users(project)
    declared = required(project, "dev", *chosen)
    ours = {file.stem.replace("_", "-") for file in modules("tests", "benchmarks")}
    for file, tree in modules("tests").items():
        assert set(imported(tree)) <= declared | ours, file


def test_every_declared_dependency_of_the_product_is_used(project: Any) -> None:
    used = set(UNSEEN)
    for tree in modules(*PRODUCT).values():
        used |= set(imported(tree))
        used |= {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    assert required(project, *extras_for_users(project)) <= used


def test_the_readme_says_what_each_extra_is_for(project: Any) -> None:
    table = (REPOSITORY / "README.md").read_text().partition("## Installation")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", "".join(rows))) == extras_for_users(project)


def test_the_citation_names_both_papers_and_our_licence(project: Any) -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    papers = re.findall(r"https://arxiv\.org/abs/[\d.]+", (REPOSITORY / "README.md").read_text())
    assert {paper["url"] for paper in citation["references"]} == set(papers)
    assert len(papers) == 2
    assert [a["name"] for a in citation["authors"]] == [a["name"] for a in project["authors"]]
    assert project["license"].startswith(citation["license"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    wheels = pytest.importorskip("hatchling.builders.wheel", reason="needs hatchling: curate-train[dev]")
    pytest.importorskip("hatch_fancy_pypi_readme", reason="needs hatch-fancy-pypi-readme: curate-train[dev]")
    [file] = wheels.WheelBuilder(str(REPOSITORY)).build(
        directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"]
    )
    return zipfile.ZipFile(file)


def test_the_wheel_holds_every_file_of_both_packages_and_the_recipes(wheel: zipfile.ZipFile) -> None:
    listed = subprocess.run(
        ["git", "ls-files", *PRODUCT, "recipes"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    expected = {re.sub("^recipes/", "curate/bundled_recipes/", name) for name in listed}
    assert {"curate/py.typed", "train/py.typed", "curate/bundled_recipes/demo.yaml"} <= expected
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == expected


def test_the_page_of_a_package_index_shows_no_picture_and_no_link_that_it_cannot_find(
    wheel: zipfile.ZipFile,
) -> None:
    [metadata] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    page = message_from_bytes(wheel.read(metadata)).get_payload()
    assert isinstance(page, str)
    assert page.startswith("# curate + train")
    assert "a table and a page.\n\n## What it is for" in page
    assert "[arXiv 1608.08614](https://arxiv.org/abs/1608.08614)" in page
    assert "(more)" not in page
    assert page.partition("## Read on\n\n")[2].startswith(
        "The pages of the documentation are in the folder `docs`"
    )
    assert not re.search(r"!\[|\]\((?!https:)", page)
