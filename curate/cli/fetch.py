"""The command `curate fetch`: parse, call one function, print."""

from __future__ import annotations

from typing import Annotated

import typer

from curate.cli.options import AllowLoopback, Json, QuietOption, bars, report_errors


@report_errors
def fetch(
    table: Annotated[
        list[str],
        typer.Argument(metavar="TABLE", help="A dataset of URLs, or tables; with --again, a pool."),
    ],
    out: Annotated[str | None, typer.Option(help="The pool's folder.")] = None,
    layout: Annotated[str, typer.Option("--as", help="The layout of tables.")] = "auto",
    retry: Annotated[bool, typer.Option("--retry", help="Also retry failures that may have passed.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Request a pool's URLs again; report what is gone or has changed.")
    ] = False,
    number: Annotated[
        int | None, typer.Option(min=1, help="With --again: request so many, drawn by chance.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Processes; one a core by default.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=10_000, help="Transfers at once in each process.")] = 64,
    samples_per_shard: Annotated[
        int, typer.Option(min=1, max=100_000_000, help="Samples of a shard, at most.")
    ] = 10_000,
    distributor: Annotated[
        str, typer.Option(metavar="multiprocessing|pyspark|ray", help="How img2dataset spreads its work.")
    ] = "multiprocessing",
    timeout: Annotated[float, typer.Option(help="Seconds for a connection, and for each next byte.")] = 10.0,
    deadline: Annotated[float, typer.Option(help="Seconds for one whole attempt at a URL.")] = 60.0,
    max_bytes: Annotated[int, typer.Option(min=1, help="Bytes of one image, at most.")] = 20_000_000,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Pixels of one image, at most; 89 million by default.")
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, help="Retries after HTTP 429 and 5xx, resets, and no connection in time.")
    ] = 2,
    per_host: Annotated[int, typer.Option(min=1, help="Connections at once to a host, in each process.")] = 4,
    interval: Annotated[float, typer.Option(min=0, help="Seconds between requests to a host.")] = 0.0,
    robots: Annotated[bool, typer.Option("--robots/--no-robots", help="Obey each host's robots.txt.")] = True,
    opt_out: Annotated[
        bool, typer.Option("--opt-out/--no-opt-out", help="Obey X-Robots-Tag: noai and the like.")
    ] = True,
    user_agent: Annotated[str | None, typer.Option(help="The name that servers see.")] = None,
    allow_loopback: AllowLoopback = False,
    json: Json = False,
    quiet: QuietOption = False,
) -> None:
    """Download the images of a table of URLs into a pool, with img2dataset and within limits."""
    from curate.cli import printing
    from curate.errors import RecipeError
    from curate.fetch.drift import again as ask_again
    from curate.fetch.fetching import fetch as run
    from curate.fetch.limits import FetchLimits
    from curate.fetch.passes import FetchOptions
    from curate.io.executors import cores

    wanted_limits: dict[str, object] = {
        "timeout_s": timeout, "deadline_s": deadline, "max_bytes": max_bytes, "max_pixels": max_pixels,
        "retries": retries, "connections_per_host": per_host, "interval_s": interval, "robots": robots,
        "opt_outs": None if opt_out else (), "user_agent": user_agent, "loopback": allow_loopback,
    }  # fmt: skip
    limits = FetchLimits(**{k: v for k, v in wanted_limits.items() if v is not None})  # type: ignore[arg-type]
    options = FetchOptions(distributor, processes or cores(), threads, samples_per_shard)
    if again:
        if len(table) != 1 or out or retry:
            raise RecipeError("--again takes one pool and no --out or --retry")
        printing.print_drift(
            ask_again(table[0], number=number, limits=limits, options=options, progress=bars(quiet)),
            json=json,
        )
        return
    if out is None or number is not None:
        what = "--out is missing" if out is None else "--number goes with --again"
        raise RecipeError(what, hint="`curate fetch TABLE --out POOL`")
    wanted = table[0] if len(table) == 1 else table
    fetched = run(
        wanted, out, layout=layout, limits=limits, options=options, retry=retry, progress=bars(quiet)
    )
    printing.print_fetched(fetched, json=json)
