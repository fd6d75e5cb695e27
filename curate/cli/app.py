"""The commands of `curate`: parse, call one function, print. What is slow to import is imported where it is used."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Annotated

import typer

from curate.cli.fetch import fetch
from curate.cli.options import (
    AllowLoopback,
    ExecutorOption,
    Json,
    QuietOption,
    Sets,
    Workers,
    bars,
    report_errors,
    settings,
)
from curate.cli.plain import plain_app
from curate.datasets import exports
from curate.errors import RecipeError

app = plain_app(
    help="Build controlled pre-training sets, train on them, and see what the data was worth.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_versions(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        versions = [f"{name} {version(name)}" for name in ("curate-train", "duckdb", "pyarrow", "torch")]
        typer.echo(", ".join([*versions, f"Python {platform.python_version()}", platform.platform()]))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_versions, is_eager=True, help="Print versions and stop."),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command()
@report_errors
def build(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    out: Annotated[str | None, typer.Option(help="The dataset's folder, or a URL (s3://…).")] = None,
    set_: Sets = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Leave the images where they are; write no shards.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Check, print the plan and stop.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a dataset of another name in --out.")
    ] = False,
    workers: Workers = None,
    executor: ExecutorOption = "local",
    allow_loopback: AllowLoopback = False,
    json: Json = False,
    quiet: QuietOption = False,
) -> None:
    """Build a dataset from a recipe."""
    from curate.builds import build
    from curate.builds.plan import plan as make_plan
    from curate.cli import printing
    from curate.recipes.recipe import load

    loaded = load(recipe, settings(set_))
    if plan:
        for member in loaded.family or (loaded,):
            printing.print_plan(make_plan(member))
        return
    if out is None:
        raise RecipeError("--out is missing", hint="name the dataset's folder, or use --plan")
    options = {"overlay": overlay, "workers": workers, "executor": executor, "replace": replace}
    built = build.build(loaded, out, **options, progress=bars(quiet))  # type: ignore[arg-type]
    printing.print_built(built, json=json)


@app.command()
@report_errors
def shard(
    dataset: Annotated[str, typer.Argument(help="An overlay.")],
    workers: Workers = None,
    executor: ExecutorOption = "local",
    allow_loopback: AllowLoopback = False,
    json: Json = False,
    quiet: QuietOption = False,
) -> None:
    """Give an overlay its shards."""
    from curate.builds import sharding
    from curate.cli import printing

    printing.print_built(
        [sharding.shard(dataset, workers=workers, executor=executor, progress=bars(quiet))], json=json
    )


@app.command()
@report_errors
def verify(
    paths: Annotated[
        list[str],
        typer.Argument(help="Datasets; or other tars: files, folders of them, patterns, URLs."),
    ],
    images: Annotated[bool, typer.Option(help="Also decode every image.")] = True,
    allow_loopback: AllowLoopback = False,
    json: Json = False,
    quiet: QuietOption = False,
) -> None:
    """Check that datasets hold what they say; of other tars, say what readers would fail on."""
    from curate.cli import printing
    from curate.datasets import verification

    verdict = verification.check(paths, images=images, progress=bars(quiet))
    printing.print_checked(verdict, json=json)
    if verdict.failed:
        raise typer.Exit(3)


@app.command()
@report_errors
def export(
    dataset: Annotated[str, typer.Argument(help="A dataset.")],
    to: Annotated[str, typer.Option(metavar="NAME[,NAME…]", help=f"Formats: {', '.join(exports.names())}.")],
    out: Annotated[
        str | None,
        typer.Option(
            help="The folder of a copy. Sidecars go beside the shards; those of dali and wids may go here."
        ),
    ] = None,
    allow_loopback: AllowLoopback = False,
    json: Json = False,
    quiet: QuietOption = False,
) -> None:
    """Write what other libraries need to read a dataset: sidecars of its shards, or a copy in another format."""
    from curate.cli import printing

    printing.print_exports(exports.export(dataset, to.split(","), out, progress=bars(quiet)), json=json)


@app.command()
@report_errors
def diff(
    datasets: Annotated[
        list[str],
        typer.Argument(
            help="Two datasets; or more, each compared with the next; or a folder of them, in order of size."
        ),
    ],
    json: Json = False,
) -> None:
    """Show how datasets differ, and whether one is a subset of the next."""
    from curate.cli import printing
    from curate.datasets import diffs

    differences = diffs.chain(datasets)
    printing.print_json(
        [vars(d) | {"relation": d.relation} for d in differences]
    ) if json else printing.print_diffs(differences)


@app.command()
@report_errors
def query(
    sql: Annotated[str, typer.Argument(help="SQL of DuckDB; `SHOW TABLES` lists the tables.")],
    root: Annotated[Path, typer.Option(help="Look for datasets, runs and results below this folder.")] = Path(
        "."
    ),
    json: Json = False,
) -> None:
    """Run SQL over every dataset, run and result below a folder, by name."""
    from curate.cli import printing
    from curate.datasets import queries

    answer = queries.query(sql, root)
    rows = answer.to_pylist()
    printing.print_json(rows) if json else printing.print_table(
        answer.column_names, [list(r.values()) for r in rows]
    )


@app.command()
@report_errors
def show(
    dataset: Annotated[str, typer.Argument(help="A dataset.")],
    html: Annotated[
        bool, typer.Option("--html", help="Also write gallery.html with thumbnails into the dataset.")
    ] = False,
    allow_loopback: AllowLoopback = False,
    json: Json = False,
) -> None:
    """Show what is in a dataset: ledger, classes, sizes, captions, noise."""
    from curate.cli import printing
    from curate.datasets.summary import summarize

    summary = summarize(dataset)
    printing.print_json(summary.document()) if json else printing.print_summary(summary)
    if html:
        from curate.datasets.gallery import write_gallery

        typer.echo(str(write_gallery(dataset)), err=json)


@app.command()
@report_errors
def ops(
    name: Annotated[str | None, typer.Argument(help="An operation or source; all by default.")] = None,
    json: Json = False,
) -> None:
    """List the operations and sources of the recipe language, or explain one."""
    from curate.cli import printing, reference

    if json:
        printing.print_json(reference.document(name))
    elif name:
        typer.echo(reference.explain(name))
    else:
        printing.print_table(["kind", "name", "what it does"], reference.overview())


@app.command()
@report_errors
def synth(
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    images: Annotated[int, typer.Option(min=1, help="Training images a class.")] = 250,
    val_images: Annotated[int, typer.Option(min=1, help="Validation images a class.")] = 50,
    size: Annotated[int, typer.Option(min=16, max=1024, help="Width and height in pixels.")] = 48,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1)] = 0,
    downstream: Annotated[
        bool, typer.Option("--downstream", help="Write the classes of the downstream task instead.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Write the generated mini-ImageNet as a folder of JPEGs."""
    from curate.sources.synthetic.classes import DOWNSTREAM, POOL
    from curate.sources.synthetic.folders import write_folder

    classes = DOWNSTREAM if downstream else POOL
    counts = {"train": images, "test" if downstream else "val": val_images}
    with bars(quiet).stage("drawing", len(classes) * (images + val_images)) as stage:
        write_folder(
            out, classes=classes, images_per_class=counts, size=size, seed=seed, progress=stage.advance
        )
    typer.echo(f"{out}: {len(classes)} classes, {len(classes) * (images + val_images):,} images of {size} px")


app.command()(fetch)
