"""Command line. One file per command; heavy modules are imported when a command runs.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 over budget, 4 partial failure, 130 stopped by Ctrl-C.
Results go to standard output; progress, notes and errors to standard error.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from embedway._version import __version__
from embedway.cli import budget, cache, doctor, embed, init, models, plan, run, search, select, state, trust
from embedway.cli.options import Invocation
from embedway.errors import EmbedwayError
from embedway.isolation import isolate_children
from embedway.text import printable

# Plain help text: rich would use a third of the time limit of `--help`.
app = typer.Typer(
    name="embedway",
    help="Embed texts with the right model, fast, and never in the wrong vector space.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", short_help="Embed files, folders, tables or standard input.")(run.run)
app.command("search", short_help="Search the output of run.")(search.search)
app.command("embed", short_help="Print vectors of texts as JSON lines.")(embed.embed)
app.command("select", short_help="Show which model fits the texts best, and why.")(select.select)
app.command("plan", short_help="Show tokens, cost and time of embedding texts with each model.")(plan.plan)
app.add_typer(models.app, name="models")
app.add_typer(cache.app, name="cache")
app.add_typer(budget.app, name="budget")
app.add_typer(state.app, name="state")
app.command("init", short_help="Create an embedway.toml and trust it.")(init.init)
app.command("trust", short_help="Trust an embedway.toml in the working directory.")(trust.trust)
app.command("doctor", short_help="Check this installation and show how to fix problems.")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"embedway {__version__}\n")
        raise typer.Exit


@app.callback()
def _global_options(
    context: typer.Context,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            readable=False,  # `Config.load` reports a file that cannot be read, and doctor continues
            help="Settings file, TOML or JSON. May be given several times; later files override earlier ones, field by "
            "field. Default: embedway.toml in the working directory. Unless it is trusted (see `embedway trust`), only "
            "its safe settings apply.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no notes.")] = False,
    show_traceback: Annotated[bool, typer.Option("--traceback", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Store the options that precede the command."""
    del version  # handled by its callback
    invocation = context.find_object(Invocation)
    if invocation is not None:  # None while a shell asks for completions
        invocation.files = tuple(config or ())
        invocation.quiet = quiet
        invocation.traceback = show_traceback


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit. Report each error as one message on standard error, and an exit code."""
    isolate_children()
    invocation = Invocation()
    try:
        try:
            # This call exits: after wrong usage, after Ctrl-C, or with a command's exit code.
            given = sys.argv[1:] if arguments is None else list(arguments)
            typer.main.get_command(app).main(args=given, prog_name="embedway", obj=invocation)
        finally:
            # A write error can still be reported here, but not at interpreter exit.
            sys.stdout.flush()
    except EmbedwayError as error:
        _report(error, str(error), invocation)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of the output is gone. Drop buffered output, so that exit causes no second error.
        _drop_output()
        sys.exit(1)
    except OSError as error:
        _drop_output()
        name = f": {error.filename}" if error.filename else ""
        _report(error, f"{error.strerror or type(error).__name__}{name}", invocation)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  last resort: a message, not a traceback
        # Its message may contain texts of the user, so by default only its type and location are shown.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        message = f"unexpected {type(error).__name__} in {where}; run `embedway --traceback …` for details"
        _report(error, message, invocation)
        sys.exit(1)
    sys.exit(0)


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: BaseException, message: str, invocation: Invocation) -> None:
    if invocation.traceback:
        sys.stderr.write(printable("".join(traceback.format_exception(error)), keep_layout=True))
    sys.stderr.write(f"embedway: error: {printable(message, keep_layout=True)}\n")
