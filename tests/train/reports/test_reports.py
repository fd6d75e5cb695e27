"""Reports of many runs: each that was measured is in every table, told from the others; names do nothing but show."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from train.models.registry import ModelSpec
from train.reports import gather, headline, write_report
from train.reports.tables import datasets as datasets_table
from train.reports.tables import gaps
from train.reports.tables import runs as runs_table
from train.runs import DatasetUsed, Machine, RunInfo
from train.transfer import results
from train.transfer.run_names import RunFacts, unique_labels
from train.transfer.summary import summary_rows, summary_table

SPEC = ModelSpec(name="convnet", image_size=16, num_classes=0, stem="small")


def write_run(folder: Path, name: str, digest: str, **changes: Any) -> None:
    folder.mkdir(parents=True)
    used = DatasetUsed(name=changes.pop("dataset", "birds"), digest="sha256:d", rows=10, classes=2, path="/x")
    told: dict[str, Any] = {
        "name": name, "method": "supervised", "spec": SPEC, "dataset": used, "config": {}, "seed": 0, "steps": 3,
        "samples_seen": 30, "seconds": 1.0, "metrics": {"loss": 1.0}, "weights": digest, "code": "1",
        "machine": Machine(python="3", torch="2", device="cpu", cores=1),
    }  # fmt: skip
    (folder / "run.json").write_text(RunInfo(**told | changes).model_dump_json())
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n')


def row(run: str, digest: str, value: float, **others: Any) -> dict[str, Any]:
    kinds: dict[pa.DataType, Any] = {pa.string(): "text", pa.float64(): 0.5, pa.bool_(): True}
    told = {field.name: kinds.get(field.type, 1) for field in results.SCHEMA}
    told |= {"run": run, "run_digest": digest, "value": value, "task": "digits", "shots": "5", "config": "{}"}
    told |= {
        "protocol": "linear",
        "metric": "top1",
        "partition": None,
        "select": None,
        "sampling": "distinct",
    }
    told |= {"dataset": "birds", "ci_low": value - 0.1, "ci_high": value + 0.1, "n": 100} | others
    return told | {"cell": str(sorted((k, str(v)) for k, v in told.items()))}


RUNS = [(method, seed) for method in ("supervised", "clip", "simclr") for seed in (0, 1)]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Two experiments: each has a run `birds` by each method, of a seed of its own, and scratch."""
    for number, (method, seed) in enumerate(RUNS):
        folder = tmp_path / f"seed{seed}" / "runs" / method
        write_run(folder, "birds", f"sha256:{number}", method=method, seed=seed)
        value = 0.5 + number / 100
        results.append(
            tmp_path / f"seed{seed}" / "results.parquet", [row("birds", f"sha256:{number}", value)]
        )
    for seed in (0, 1):
        scratch = row(f"scratch-convnet-seed{seed}", f"sha256:s{seed}", 0.2 + seed / 100, dataset=None)
        results.append(tmp_path / f"seed{seed}" / "results.parquet", [scratch])
        told = {"name": "x", "accuracy": {"clip": {"top1": 0.7 + seed / 10}}}
        (tmp_path / f"seed{seed}" / "experiment.json").write_text(json.dumps(told))
    return tmp_path


def test_no_run_of_a_shared_name_is_missing_from_a_table_or_a_figure(many: Path) -> None:
    findings = gather(many)
    expected = {f"birds ({method}, seed {seed})" for method, seed in RUNS}
    table = headline(findings)
    scratch = {f"nothing (scratch-convnet-seed{seed})" for seed in (0, 1)}
    assert {line[0] for line in table.rows} == expected | scratch
    shown_values = sorted(line[-1].split(" ± ")[0] for line in table.rows)
    assert shown_values == ["20.0", "21.0", "50.0", "51.0", "52.0", "53.0", "54.0", "55.0"]
    assert {line[0] for line in runs_table(findings).rows} == expected
    [gap] = gaps(findings).rows
    assert gap[3:] == ["birds (simclr, seed 1) 55.0", "birds (supervised, seed 0) 50.0", "5.0", "+30.0"]
    page, _ = write_report(many, many / "out")
    for text in (page.read_text(), (many / "out" / "report.md").read_text()):
        assert all(name in text for name in expected)
    figures = drawn(findings)
    assert expected <= figures["transfer"]
    assert expected <= figures["pretraining"]
    assert {f"{name}, 5-shot" for name in expected} <= figures["worth"]


def drawn(findings: Any) -> dict[str, set[str]]:
    """Return the texts of each figure."""
    import matplotlib
    from matplotlib.text import Text

    matplotlib.use("Agg")
    from train.reports import figures

    return {
        name: {text.get_text() for text in getattr(figures, name)(findings).findobj(Text)}
        for name in ("worth", "transfer", "pretraining")
    }


def test_each_experiment_tells_the_accuracy_of_its_own_runs(many: Path) -> None:
    table = headline(gather(many))
    top1 = {line[0]: line[table.columns.index("top-1")] for line in table.rows}
    assert (top1["birds (clip, seed 0)"], top1["birds (clip, seed 1)"]) == ("70.0", "80.0")
    assert top1["birds (simclr, seed 0)"] == "–"


def test_a_run_that_was_not_transferred_is_in_the_table_beside_those_that_were(many: Path) -> None:
    write_run(many / "alone", "alone", "sha256:alone", metrics={"top1": 0.25})
    table = headline(gather(many))
    [line] = [line for line in table.rows if line[0] == "alone"]
    assert line[-1] == "–"
    assert "25.0" in line


def test_one_measurement_in_two_files_counts_once_and_others_are_added(tmp_path: Path) -> None:
    both = [row("a", "sha256:1", 0.5, seed=seed) for seed in range(3)]
    results.append(tmp_path / "x" / "results.parquet", both[:2])
    results.append(tmp_path / "y" / "results.parquet", both[1:])
    [cell] = gather(tmp_path).summary
    assert cell.seeds == 3


def test_runs_of_one_name_stand_side_by_side_in_the_table_of_transfer() -> None:
    rows = [
        row("birds", f"sha256:{i}abcdefgh", i / 10, dataset=name) for i, name in enumerate(["a", "b", "b"])
    ]
    rows.append(row("birds", "sha256:0abcdefgh", 0.9, dataset="a", task="other"))
    columns, lines = summary_table(pa.Table.from_pylist(rows, schema=results.SCHEMA))
    assert columns[4:] == ["birds (on a, 0abcdefg)", "birds (on b, 1abcdefg)", "birds (on b, 2abcdefg)"]
    assert [[cell.split(" ± ")[0] for cell in line[4:]] for line in lines] == [
        ["0.0", "10.0", "20.0"],
        ["90.0", "–", "–"],
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"select": "test"},
        {"metric": "map"},
        {"config": '{"odd": 1}', "protocol": "unknown"},
        {"image_size": 9},
    ],
)
def test_cells_that_differ_in_anything_are_two(changes: dict[str, Any]) -> None:
    one = row("a", "sha256:1", 0.5, protocol=changes.get("protocol", "linear"))
    table = pa.Table.from_pylist([one, row("a", "sha256:1", 0.6, **changes)], schema=results.SCHEMA)
    cells = summary_rows(table)
    assert len({(c.run, c.task, c.shots, c.protocol) for c in cells}) == len(cells) == 2


def test_labels_differ_whatever_is_known() -> None:
    runs = [RunFacts("a", f"sha256:{i:09d}") for i in range(3)]
    runs += [
        RunFacts("b", "1", "clip", 0),
        RunFacts("b", "2", "clip", 1),
        RunFacts("b (seed 0)", "3"),
        runs[0],
    ]
    found = unique_labels(runs)
    assert len(set(found.values())) == len(found) == 6
    assert found["b", "2"] == "b (seed 1)"
    assert found["b (seed 0)", "3"] == "b (seed 0)"


ODD = "a$b_{$ <script>x</script> [red]x[/red] |`**\x1b[31m\u202e:smile:"


@pytest.mark.filterwarnings("ignore:Glyph")
def test_odd_names_are_shown_and_do_nothing(tmp_path: Path, run_curate: Any) -> None:
    write_run(tmp_path / "one", ODD, "sha256:1", dataset=ODD)
    write_run(tmp_path / "two", "_hidden", "sha256:2")
    for name, digest in ((ODD, "sha256:1"), ("_hidden", "sha256:2")):
        results.append(tmp_path / "results.parquet", [row(name, digest, 0.5, task=ODD, dataset=ODD)])
    results.append(tmp_path / "results.parquet", [row("scratch", "sha256:3", 0.1, task=ODD, dataset=None)])
    result = run_curate("report", tmp_path)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert "\u202e" not in result.output
    page = (tmp_path / "report" / "index.html").read_text()
    assert "<script" not in page
    assert page.count("data:image/png;base64,") == 3
    lines = (tmp_path / "report" / "report.md").read_text().splitlines()
    rows = [line for line in lines if "a\\$b" in line and line.startswith("|")]
    assert rows
    assert all("\\<script\\>" in line and "\x1b" not in line for line in rows)
    tables = [line for line in lines if line.startswith("|")]
    heads = [i for i, line in enumerate(tables) if set(line) == {"|", "-"}]
    for head in heads:  # a name adds no cell to its line
        assert len(re.findall(r"(?<!\\)\|", tables[head - 1])) == tables[head].count("|")
        assert len(re.findall(r"(?<!\\)\|", tables[head + 1])) == tables[head].count("|")
    assert " _hidden" in drawn(gather(tmp_path))["pretraining"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("odd/run.json", b"[]"),
        ("odd/run.json", b'{"name": "x"}'),
        ("odd/run.json", b"\xff"),
        ("odd/dataset.json", b"{"),
        ("odd/results.parquet", b"PAR1"),
        ("odd/metrics.jsonl", b"[1]\n"),
        ("odd/metrics.jsonl", b'{"step": 1, "loss": {}}'),
        ("experiment.json", b"[1]"),
        ("experiment.json", b"{"),
    ],
)
def test_an_odd_file_is_told_and_passed_over(
    tmp_path: Path, run_curate: Any, file: str, content: bytes
) -> None:
    write_run(tmp_path / "odd", "odd", "sha256:1")
    write_run(tmp_path / "sound", "sound", "sha256:2")
    (tmp_path / file).write_bytes(content)
    result = run_curate("report", tmp_path)
    assert result.exit_code == 0, result.output
    assert f"note: {tmp_path / file}: " in result.stderr
    assert "sound" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize("change", [{"value": "high"}, {"value": None}, {"config": None}, {"seed": [1]}, {}])
def test_odd_results_are_told_and_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    write_run(tmp_path / "sound", "sound", "sha256:2")
    odd = row("odd", "sha256:1", 0.5) | change
    if not change:
        del odd["task"]
    (tmp_path / "odd").mkdir()
    pq.write_table(pa.Table.from_pylist([odd]), tmp_path / "odd" / "results.parquet")
    assert gather(tmp_path).summary == []
    assert f"{tmp_path / 'odd' / 'results.parquet'}: not results" in capsys.readouterr().err


def test_odd_settings_and_names_of_an_experiment_are_as_if_they_were_not(many: Path) -> None:
    told = {"name": 1, "order": 5, "tasks": {"a": 1}, "notes": [1, "x"], "accuracy": {"clip": 3}}
    (many / "experiment.json").write_text(json.dumps(told))
    odd = row("birds", "sha256:0", 0.5, shots="²", config="[1", protocol="linear")
    results.append(many / "seed0" / "results.parquet", [odd])
    findings = gather(many)
    assert (findings.title, findings.notes) == (many.name, ["x"])
    assert headline(findings).rows
    assert datasets_table(findings).rows == []
