"""What strangers wrote into a dataset is shown by galleries, cards and terminals, and does nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curate.cli.printing import print_json, print_table
from curate.datasets.cards import card
from curate.datasets.dataset import Dataset, DatasetInfo
from curate.io.markdown import code, code_block, markdown
from curate.io.progress import Bars

ODD = "<img src=x onerror=alert(1)> [a](http://b.c) |`x`**b** $y$ ```"
COMMANDS = "\x1b[31m\x9b2J\u202e\x07\udcff"


def strange(value: Any) -> Any:
    """Return a document with every text in it made odd, but for those that are read as something else."""
    if isinstance(value, dict):
        kept = {"root", "columns", "format", "manifest_sha256", "digest", "plan", "seal"}
        return {k: v if k in kept else strange(v) for k, v in value.items()}
    if isinstance(value, list):
        return [strange(one) for one in value]
    return value + ODD if isinstance(value, str) else value


def test_no_text_of_a_dataset_is_markup_in_its_gallery(
    built: Callable[..., Dataset], run_curate: Callable[..., Any]
) -> None:
    data = built([{"caption": {"templates": [f"a {{}} {ODD}"]}}, {"noise": {"rate": 0.5}}])
    file = data.path / "dataset.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps(strange(document) | {"name": document["name"]}))
    result = run_curate("show", data.path, "--html")
    assert result.exit_code == 0, result.output
    page = (data.path / "gallery.html").read_text()
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") > 60  # in captions and classes
    assert "<img src=x" not in page


def test_no_text_of_a_dataset_is_markup_in_its_card(built: Callable[..., Dataset]) -> None:
    data = built([{"caption": {"templates": ["a {}"]}}])
    info = DatasetInfo.model_validate(strange(json.loads((data.path / "dataset.json").read_text())))
    text = card(info, {ODD: 1, "train": 2})
    body = text.split("\n---\n", 1)[1]
    fence = re.search(r"^(`{4,})yaml$", body, re.MULTILINE)
    assert fence
    after = body.rsplit(f"\n{fence[1]}\n", 1)[1]
    for part in (next(line for line in body.splitlines() if line.startswith("# ")), after):
        assert "img src" in part
        assert not re.search(r"(?<!\\)[<\[`$]", part)
        assert "**" not in part.replace("\\*", "")
    lines = [line for line in after.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {7}


@pytest.mark.parametrize(
    "text", ["snow leopard, ounce", "a_b", "n01440764", "köln", "1 + 1 = 2 (two)", "a.b"]
)
def test_plain_names_stay_as_they_are_in_markdown(text: str) -> None:
    assert markdown(text) == text


def test_code_holds_any_number_of_backticks() -> None:
    assert code("a") == "`a`"
    assert code("a``b`") == "``` a``b` ```"
    assert code_block("x\n````\n", "yaml")[0] == "`````yaml"
    assert "\n" not in markdown("a\n\n# b")


def test_no_text_commands_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([COMMANDS], [[COMMANDS], [f"[red]x[/red]{COMMANDS}"]], title=COMMANDS)
    print_json({COMMANDS: COMMANDS})
    Bars().say(f"[red]:smile: {COMMANDS}")
    with Bars().stage(COMMANDS) as stage:
        stage.tell(COMMANDS)
    seen = capsys.readouterr()
    for text in (seen.out, seen.err):
        assert not re.search("[\x1b\x9b\u202e\x07\udcff]", text)
    assert "[red]x[/red]" in seen.out
    assert "[red]:smile: " in seen.err
    document = seen.out[seen.out.index("{") :]
    assert json.loads(document) == {COMMANDS: COMMANDS}


def test_what_classes_are_called_commands_no_terminal(
    built: Callable[..., Dataset], run_curate: Callable[..., Any], tmp_path: Path
) -> None:
    data = built([{"noise": {"rate": 0.5}}])
    file = data.path / "dataset.json"
    document = json.loads(file.read_text())
    for one in document["classes"]:
        one["name"] += "\x1b[2J"
    file.write_text(json.dumps(document))
    for command in (["show", data.path], ["query", "SELECT name FROM classes", "--root", tmp_path]):
        result = run_curate(*command)
        assert result.exit_code == 0, result.output
        assert "\x1b" not in result.output
        assert "dog\\x1b[2J" in result.output
