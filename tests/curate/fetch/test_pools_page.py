"""The page "from a LAION table to shards": every command on it is run, as it stands there, against a web of our own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from webs import Web, picture

pytestmark = pytest.mark.skipif(find_spec("img2dataset") is None, reason="needs curate-train[fetch]")

PAGE = Path(__file__).resolve().parents[3] / "docs" / "pools.md"
IMAGES = {f"{i}.jpg": picture(i) for i in range(40)}


def blocks(page: str) -> list[str]:
    """The page's recipes and commands in order: a recipe as its YAML, a command as its line."""
    found = []
    for kind, body in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        found += [body] if kind == "yaml" else body.splitlines()
    return found


def write_tables(web: Web) -> None:
    Path("laion").mkdir()
    for part in range(2):
        numbers = range(part * 500, part * 500 + 500)
        urls = [
            web.url(f"/{'404' if i % 10 == 0 else 'gone' if i % 10 == 1 else 'ok'}/{i % 40}.jpg?{i}")
            for i in numbers
        ]
        rows = {
            "URL": urls, "TEXT": [f"a photograph of thing {i}" for i in numbers],
            "NSFW": ["UNLIKELY" if i % 9 else "NSFW" for i in numbers], "LANGUAGE": ["en"] * 500,
            "similarity": [0.3 if i % 7 else 0.2 for i in numbers],
        }  # fmt: skip
        pq.write_table(pa.table(rows), f"laion/part-{part:05d}.parquet")
    Path("cc3m.tsv").write_text("".join(f"a thing {i}\thttp://cc.example/{i}.jpg\n" for i in range(200)))


@pytest.mark.usefixtures("downloads_here")
def test_every_command_of_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_curate: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    said: dict[str, str] = {}
    with Web(IMAGES) as web:
        write_tables(web)
        for block in blocks(PAGE.read_text()):
            if block.startswith("# "):
                Path(block.split()[1]).write_text(block)
                continue
            words = shlex.split(block)
            assert words[0] == "curate"
            if words[1] == "fetch":
                words += ["--allow-loopback", "--threads", "8"]
                if words[2] == "pools/laion":
                    web.turn()
            result = run_curate(*words[1:])
            assert result.exit_code == 0, (block, result.stderr)
            said[block] = result.stdout
    told = {key: text for line, text in said.items() for key in (" ".join(line.split()[1:4]),)}
    assert "300 rows fetched" in told["fetch slices/laion --out"]
    assert "gone" in told["fetch pools/laion --again"]
    assert "http 404" in said[next(line for line in said if line.startswith("curate query"))]
    assert [f.name for f in sorted(Path("sets").iterdir())] == ["laion", "matched"]
    assert Path("runs/laion/run.json").exists()
