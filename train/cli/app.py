"""The commands of `train`: parse, call one function, print. torch is imported where it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from curate.cli.options import Json, QuietOption, Sets, bars, report_errors, settings
from curate.cli.plain import plain_app
from train.cli.methods import run_method
from train.methods.registry import METHODS

DEMO = "demo.yaml"
# A method's own command has an option for each field of its config; only that command imports it.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

PROTOCOL = (
    "linear, ridge, knn, induction, zero-shot, finetune, lp-ft; for detection fast-rcnn and faster-rcnn; with a preset "
    "as finetune:kornblith, with settings as knn(k=200); repeatable."
)

train_app = plain_app(help="Pre-train a model on a dataset.", no_args_is_help=True)
more_app = typer.Typer()


def _method_command(name: str) -> Callable[[typer.Context], None]:
    def command(context: typer.Context) -> None:
        run_method(context, name)

    return command


for _name, (_, _about) in METHODS.items():
    train_app.command(_name, help=_about, context_settings=PASSED_ON)(_method_command(_name))


@train_app.command()
@report_errors
def score(
    run: Annotated[Path, typer.Argument(help="A finished run of supervised or clip.")],
    dataset: Annotated[str, typer.Argument(help="A dataset: a folder or a URL.")],
    out: Annotated[Path, typer.Option(help="A Parquet file.")] = Path("scores.parquet"),
    split: Annotated[str | None, typer.Option(help="Score only the rows of this split.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, max=1024, help="Processes that decode.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    json: Json = False,
) -> None:
    """Write what a run makes of each sample, by key: loss, confidence, prediction; similarity of image and text."""
    from curate.cli import printing
    from curate.datasets.dataset import open_dataset
    from train.eval import scores
    from train.runs import open_run

    file = scores.score(
        open_run(run), open_dataset(dataset), out, split=split, device=device, workers=workers
    )
    means = scores.summary(file)
    if json:
        printing.print_json({"file": str(file), **means})
        return
    typer.echo(f"{file}: " + ", ".join(f"{name} {value:,.4g}" for name, value in means.items()))


@more_app.command()
@report_errors
def transfer(
    run: Annotated[
        list[str], typer.Argument(help="Runs' folders; scratch:MODEL or scratch:RUN for no pre-training.")
    ],
    task: Annotated[
        list[str],
        typer.Option(
            help="[NAME=]TASK, such as digits, dtd or pets=folder:/data/pets; repeatable. `curate tasks` lists them."
        ),
    ],
    data: Annotated[
        list[Path] | None, typer.Option(help="A folder with the downloaded data of tasks; repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The file of results to add to.")] = Path("results.parquet"),
    shots: Annotated[
        str,
        typer.Option(
            help="Images of each class, `full`, or `total-1000` for so many in all; separated by commas."
        ),
    ] = "1,5,10,20,full",
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="Draws of each shot count.")] = 3,
    protocol: Annotated[list[str] | None, typer.Option(help=PROTOCOL)] = None,
    select: Annotated[
        str | None,
        typer.Option(help="`test` chooses by the test set itself, as some papers did; rows say so."),
    ] = None,
    sampling: Annotated[
        str, typer.Option(help="What a class with fewer images than shots gives: distinct or replacement.")
    ] = "distinct",
    image_size: Annotated[
        int | None, typer.Option(min=8, max=16_384, help="Image size in pixels; the run's own by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    executor: Annotated[str, typer.Option(help="local; or ray, for a grid over GPUs.")] = "local",
    json: Json = False,
    quiet: QuietOption = False,
) -> None:
    """Measure what runs are worth on other tasks, with few images and with all."""
    from curate.cli import printing
    from train.transfer import Grid, open_run_or_scratch, open_tasks
    from train.transfer import transfer as measure
    from train.transfer.summary import summary_table

    show = bars(quiet)
    rows = measure(
        [open_run_or_scratch(name, image_size) for name in run],
        [opened for name in task for opened in open_tasks(name, data or [])],
        Grid(shots.split(","), seeds, protocol or [], image_size, sampling, select),
        out=out,
        device=device,
        executor=executor,
        progress=show.say,
    )
    if json:
        printing.print_json(rows.to_pylist())
        return
    printing.print_table(*summary_table(rows))
    if "test" in rows["select"].to_pylist():
        typer.echo("† chosen by the test set itself: not to be compared with the others.")
    typer.echo(f"Other metrics, what was chosen, and notes: {out}")


@more_app.command()
@report_errors
def tasks(
    name: Annotated[
        str | None, typer.Argument(help="A task: where it is from and how to get its data.")
    ] = None,
    json: Json = False,
) -> None:
    """List the tasks that runs can be measured on, and where their data comes from."""
    from curate.cli import printing
    from train.transfer.tasks.datasets import describe_task, find_task_info, task_infos

    if json:
        printing.print_json(
            [describe_task(one) for one in ([find_task_info(name)] if name else task_infos().values())]
        )
        return
    if name:
        printing.print_table(
            ["", name], [[key, str(value)] for key, value in describe_task(find_task_info(name)).items()]
        )
        return
    rows = [[one.usage, one.about, one.size, one.metric] for one in task_infos().values()]
    printing.print_table(["task", "what", "classes / train / test", "metric"], rows)
    typer.echo("`curate tasks NAME` says where a task is from and how to get its data.")


@more_app.command()
@report_errors
def experiment(
    file: Annotated[Path, typer.Argument(help="An experiment (YAML).")],
    out: Annotated[Path, typer.Option(help="The folder for datasets, runs, results and the report.")],
    set_: Sets = None,
    quiet: QuietOption = False,
) -> None:
    """Build, train, measure and report as a file says; continue where it stopped."""
    from train.experiments.experiment import run_experiment
    from train.experiments.grid import load_experiment

    run_experiment(load_experiment(file, settings(set_)), out, progress=bars(quiet))
    _print_report(out)


@more_app.command()
@report_errors
def demo(
    out: Annotated[Path, typer.Option(help="The folder for datasets, runs, results and the report.")] = Path(
        "demo"
    ),
    set_: Sets = None,
    quiet: QuietOption = False,
) -> None:
    """Do the whole main job on generated images, on a CPU, in minutes."""
    from train.experiments.experiment import bundled, run_experiment
    from train.experiments.grid import load_experiment

    show = bars(quiet)
    show.say(
        "Five pre-training sets from one generated pool, a run on each, and what each was worth elsewhere."
    )
    run_experiment(load_experiment(bundled(DEMO), settings(set_)), out, progress=show)
    _print_report(out)


@more_app.command()
@report_errors
def report(
    folder: Annotated[
        Path, typer.Argument(help="An experiment's folder, or any with runs and results below it.")
    ],
    out: Annotated[Path | None, typer.Option(help="Where to write; FOLDER/report by default.")] = None,
) -> None:
    """Write tables and plots of what was measured: HTML, PNG, Markdown."""
    _print_report(folder, out)


def _print_report(folder: Path, out: Path | None = None) -> None:
    """Write the report; print its headline table and where its page is."""
    from curate.cli.printing import print_table
    from train.reports import headline, write_report

    page, findings = write_report(folder, out)
    table = headline(findings).transposed()
    print_table(table.columns, table.rows, title=table.title)
    if table.note:
        typer.echo(table.note)
    typer.echo(f"report: {page.resolve()}")
