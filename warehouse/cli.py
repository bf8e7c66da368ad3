"""The command line: thin, results on stdout, all else on stderr.

Exit status 0, 1 (a ``WarehouseError``, one clear line) or 2 (usage).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Annotated, Literal

import duckdb
import typer

from warehouse import catalog, change_cli, changes, compare_cli, demo, extract_cli, figure_cli, output, verify_cli
from warehouse.connection import connect
from warehouse.engines import chosen_runner
from warehouse.errors import QueryError, WarehouseError, duckdb_message
from warehouse.ingest import Summary
from warehouse.ingest import ingest as run_ingest
from warehouse.label_files import read_labels
from warehouse.lake import DATABASE
from warehouse.legible import counted, printable
from warehouse.maintenance import vacuum as run_vacuum
from warehouse.options import (
    ConfOption,
    EngineOption,
    MasterOption,
    MetaOption,
    ThreadsOption,
    WarehousePath,
    assignments,
)
from warehouse.output import errors, note
from warehouse.progress import bar, bytes_text
from warehouse.restricted import Limits, RestrictedWarehouse
from warehouse.runner import for_stage
from warehouse.sample import write_sample
from warehouse.session import Warehouse, did_you_mean
from warehouse.version import __version__

Layout = Literal["v1", "v0.1", "lens"]

app = typer.Typer(
    name="warehouse",
    help="A SQL analytics warehouse for trained convolution filters.",
    epilog="Begin with: warehouse demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
INFO = (
    (
        "Contents",
        "select * exclude grp, (select sum(n_unclaimed) from sources) as n_unclaimed from groups('all')",
    ),
    (
        "Lake",
        "select name, count(*) as files, sum(n_rows) as rows, sum(bytes) as bytes from files group by name order by 1",
    ),
    ("Basis", "select component, explained_variance_ratio, cumulative_ratio from pca('all')"),
)
"""Titles and queries of ``warehouse info``."""
SOURCES_SHOWN = 10

FormatOption = Annotated[
    Literal["table", "csv", "json", "parquet"] | None,
    typer.Option("--format", help="By default what the file's name says, and else a table."),
]
FileOption = Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file.")]
MaxRowsOption = Annotated[int, typer.Option(min=1, help="Rows of a table to show.")]
RestrictedOption = Annotated[
    bool, typer.Option("--restricted", help="For a query that a stranger wrote: it can read this warehouse, no more.")
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help="With --restricted: seconds, memory_mb, threads, rows or result_mb; can be repeated.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"warehouse {__version__}, duckdb {duckdb.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: warehouse ingest dataset.h5 cnn.warehouse")
def ingest(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="dataset.h5 or dataset.h5.xz, or several; or model files."),
    ],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder to make.")],
    replace: Annotated[bool, typer.Option(help="Replace the warehouse that is there.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew where an interrupted ingest would go on.")
    ] = False,
    append: Annotated[
        bool, typer.Option("--append", help="Add to the warehouse that is there, on its basis and range.")
    ] = False,
    allow_nonfinite: Annotated[
        bool, typer.Option(help="Keep layers with NaN or infinite weights, with NULL statistics.")
    ] = False,
    allow_source: Annotated[
        list[Path] | None,
        typer.Option(help="A file or folder from which a virtual dataset may draw; can be repeated."),
    ] = None,
    meta: MetaOption = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out files that cannot be read, and tell of them.")
    ] = False,
    threads: ThreadsOption = None,
    engine: EngineOption = "local",
    master: MasterOption = None,
    conf: ConfOption = None,
) -> None:
    """Make a warehouse of dataset files or model files, or add a dataset to it."""
    if append:
        if replace or restart:
            raise typer.BadParameter("--append cannot go with --replace or --restart")
        if len(sources) > 1 or meta or skip_bad:
            raise typer.BadParameter("--append takes one dataset; models are added by: warehouse add")
        with chosen_runner(engine, threads, master, conf) as runner, bar(errors) as progress:
            change = changes.append(
                sources[0],
                path,
                allow_nonfinite=allow_nonfinite,
                allow_sources=allow_source or (),
                runner=runner,
                progress=progress,
            )
        change_cli.tell(change)
        return
    with chosen_runner(engine, threads, master, conf) as runner, bar(errors) as progress:
        summary = run_ingest(
            sources,
            path,
            replace=replace,
            restart=restart,
            allow_nonfinite=allow_nonfinite,
            allow_sources=allow_source or (),
            labels=read_labels(meta, sources) if meta else None,
            skip_bad=skip_bad,
            runner=runner,
            progress=progress,
        )
    _report(summary)


def _report(summary: Summary) -> None:
    lines = [
        *summary.notes,
        *(f"left out: {reason}" for reason in summary.left_out),
        f"{summary.path}: {counted(summary.filters, 'filter')}, {counted(summary.layers, 'layer')}, "
        f"{counted(summary.models, 'model')}",
        f"{summary.seconds:.1f} s, {summary.filters_per_second:,.0f} filters/s, {bytes_text(summary.bytes)}",
    ]
    if summary.unclaimed_filters:
        lines.append(f"{counted(summary.unclaimed_filters, 'filter')} of no layer: kept with layer_id NULL")
    if summary.nonfinite_layers:
        lines.append(change_cli.nonfinite_note(summary.nonfinite_layers))
    if summary.leftover_bytes:
        lines.append(
            f"{bytes_text(summary.leftover_bytes)} of files that no longer belong to it are left for its readers; "
            f"once there are none, free them with: warehouse vacuum {summary.path}"
        )
    for line in lines:
        note(line)


@app.command(epilog="Example: warehouse query cnn.warehouse 'from drift(task)' --format csv -o drift.csv")
def query(
    path: WarehousePath,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="The question; - reads it from standard input.")],
    format_: FormatOption = None,
    file: FileOption = None,
    max_rows: MaxRowsOption = 200,
    restricted: RestrictedOption = False,
    limit: LimitOption = None,
    engine: EngineOption = "local",
    master: MasterOption = None,
    conf: ConfOption = None,
) -> None:
    """Ask a question in SQL."""
    text = sys.stdin.read() if sql == "-" else sql
    if engine == "spark":
        if restricted or limit:
            raise typer.BadParameter("Spark protects from no query; ask without it", param_hint="--restricted")
        _query_spark(path, text, output.chosen_format(format_, file), file, max_rows, master, conf)
        return
    if master or conf:
        raise typer.BadParameter("go with --engine spark", param_hint="--master and --conf")
    with _opened(path, restricted, limit) as warehouse:
        output.write(warehouse, text, format_, file, max_rows=max_rows)


def _query_spark(
    path: Path, text: str, format_: str, file: Path | None, max_rows: int, master: str | None, conf: list[str] | None
) -> None:
    from warehouse.on_spark.engine import started
    from warehouse.on_spark.session import SparkWarehouse, understood

    settings = assignments(conf, "--conf")
    # before Spark takes some seconds to start
    with Warehouse(path) as warehouse:
        understood(text, warehouse)
    with started(master, settings) as session:
        output.write_relation(SparkWarehouse(path, session).collected(text), format_, file, max_rows=max_rows)


def _opened(path: Path, restricted: bool, limit: list[str] | None) -> Warehouse | RestrictedWarehouse:
    if restricted:
        return RestrictedWarehouse(path, Limits.from_texts(assignments(limit, "--limit")))
    if limit:
        raise typer.BadParameter("goes with --restricted", param_hint="--limit")
    return Warehouse(path)


@app.command(
    "analyses", epilog="Example: warehouse analyses cnn.warehouse coefficient_density --set y=2 -o density.csv"
)
def analyses_(
    path: WarehousePath,
    name: Annotated[str | None, typer.Argument(help="An analysis; without one, they are listed.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set a parameter; can be repeated.")
    ] = None,
    sql: Annotated[bool, typer.Option("--sql", help="Show the query instead of running it.")] = False,
    format_: FormatOption = None,
    file: FileOption = None,
    max_rows: MaxRowsOption = 200,
    restricted: RestrictedOption = False,
    limit: LimitOption = None,
) -> None:
    """List the published analyses, or run one."""
    chosen = output.chosen_format(format_, file)
    if name is not None and sql:
        # which runs nothing
        with Warehouse(path) as stored:
            typer.echo(stored.find_analysis(name).text)
        return
    with _opened(path, restricted, limit) as warehouse:
        if name is None:
            result = warehouse.sql("select name, source, purpose from analyses order by name")
        else:
            result = warehouse.analysis(name, **assignments(set_, "--set"))
        output.write_relation(result, chosen, file, max_rows=max_rows)


@app.command(
    epilog="Example: warehouse shell cnn.warehouse",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def shell(context: typer.Context, path: WarehousePath) -> None:
    """Open the DuckDB shell, read-only; further arguments are passed on to it."""
    connect(path).close()
    program = shutil.which("duckdb", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    if program is None:
        raise WarehouseError(
            "the DuckDB shell `duckdb` is not installed; get it with `pip install duckdb-cli`, "
            "or ask with `warehouse query`"
        )
    command = [program, "-readonly", "-cmd", catalog.search_in(path), str(path.absolute() / DATABASE), *context.args]
    raise typer.Exit(subprocess.run(command, check=False).returncode)  # noqa: S603 - the user's own shell


@app.command(epilog="Example: warehouse info cnn.warehouse")
def info(path: WarehousePath) -> None:
    """Show what a warehouse holds: counts, sizes, source, basis, versions."""
    with Warehouse(path) as warehouse:
        for title, question in INFO:
            output.heading(title)
            output.write(warehouse, question)
        sources = warehouse.sql("from sources").pl().to_dicts()
        for source in sources[:SOURCES_SHOWN]:
            output.heading("Source")
            for name, value in source.items():
                typer.echo(printable(f"{name}: {value}"))
        if len(sources) > SOURCES_SHOWN:
            output.heading(f"And {len(sources) - SOURCES_SHOWN:,} more: from sources")


@app.command("help", epilog="Example: warehouse help cnn.warehouse drift")
def help_(
    path: WarehousePath,
    name: Annotated[str | None, typer.Argument(help="A table, view, macro or function.")] = None,
) -> None:
    """List what can be asked, or describe one object."""
    with Warehouse(path) as warehouse:
        if name is None:
            output.write(warehouse, "select name, kind, purpose from help order by kind = 'analysis', kind, name")
            return
        described = {row["name"]: row for row in warehouse.sql("from help").pl().to_dicts()}
        # an analysis has more to tell than help has columns for
        described |= {row["name"]: row for row in warehouse.sql("from analyses select * exclude query").pl().to_dicts()}
        if name not in described:
            raise QueryError(f"nothing is called {name!r}{did_you_mean(name, set(described))}")
        for column, value in described[name].items():
            if value is not None:
                told = printable(f"{column}: {value}")
                typer.echo(told.replace("; ", "\n    ") if column in ("columns", "parameters") else told)


app.command(epilog="Example: warehouse extract resnet18.onnx -o dataset.h5")(extract_cli.extract)
app.command(epilog="Example: warehouse add cnn.warehouse resnet18.onnx --task Classification")(change_cli.add)
app.command(epilog="Example: warehouse compare resnet18.onnx cnn.warehouse -o resnet18.html")(compare_cli.compare)
app.command(epilog="Example: warehouse remove cnn.warehouse resnet18.onnx")(change_cli.remove)
app.command(epilog="Example: warehouse refit cnn.warehouse")(change_cli.refit)
app.command(epilog="Example: warehouse verify cnn.warehouse --quick")(verify_cli.verify)
app.command(epilog="Example: warehouse figure cnn.warehouse drift_heatmap --axis task -o drift.pdf")(figure_cli.figure)
app.command(epilog="Example: warehouse report cnn.warehouse -o report.html --axis task")(figure_cli.report)


@app.command(epilog="Example: warehouse sample sample.h5 --filters 300000")
def sample(
    path: Annotated[Path, typer.Argument(metavar="OUT.h5", help="The file to make.")],
    filters: Annotated[int, typer.Option(min=1)] = 300_000,
    layers: Annotated[int, typer.Option(min=1)] = 400,
    models: Annotated[int, typer.Option(min=1)] = 40,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    layout: Annotated[Layout, typer.Option(help="Whose file to imitate.")] = "v1",
) -> None:
    """Make a synthetic dataset in the genuine layout."""
    with bar(errors) as progress:
        write_sample(
            path,
            filters=filters,
            layers=layers,
            models=models,
            seed=seed,
            layout=layout,
            progress=for_stage(progress, "generating"),
        )
    note(f"{path}: {counted(filters, 'synthetic filter')}, {counted(layers, 'layer')}, {counted(models, 'model')}")


@app.command("demo", epilog="Example: warehouse demo")
def demo_(
    folder: Annotated[Path, typer.Argument(help="Where to put the sample and its warehouse.")] = Path("warehouse-demo"),
) -> None:
    """Make a sample, ingest it and show what can be asked."""
    with bar(errors) as progress:
        summary = demo.prepare(folder, progress)
    _report(summary)
    with Warehouse(summary.path) as warehouse:
        for title, question in demo.QUESTIONS:
            output.heading(title, question)
            output.write(warehouse, question)
    typer.echo(demo.next_steps(summary.path))


@app.command(epilog="Example: warehouse vacuum cnn.warehouse")
def vacuum(path: WarehousePath) -> None:
    """Remove files that no longer belong to a warehouse."""
    n, n_bytes = run_vacuum(path)
    note(f"{path}: removed {counted(n, 'file')}, {bytes_text(n_bytes)}")


def _tell(error: str) -> None:
    # those of DuckDB have several lines
    for line in f"error: {error}".expandtabs(2).split("\n"):
        note(line)


def main() -> None:
    """Run the command line and exit."""
    try:
        try:
            app()
        finally:
            # here, where a closed pipe is no surprise, and not when the interpreter ends
            sys.stdout.flush()
    except BrokenPipeError:
        # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except duckdb.Error as error:
        _tell(duckdb_message(error))
        sys.exit(1)
    except (WarehouseError, OSError) as error:
        _tell(str(error))
        sys.exit(1)
