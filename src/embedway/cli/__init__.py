"""The command line. One file per command; what is heavy is imported when a command runs.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 over budget, 4 partly failed, 130 stopped by Ctrl-C.
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

# Plain help text: rich would cost a third of the time that `--help` may take.
app = typer.Typer(
    name="embedway",
    help="Text to vectors with the right model, fast, and never in the wrong space.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", short_help="Embed files, folders, tables or standard input.")(run.run)
app.command("search", short_help="Look something up in what run made.")(search.search)
app.command("embed", short_help="Print the vectors of texts as JSON lines.")(embed.embed)
app.command("select", short_help="Show which model fits some texts best, and why.")(select.select)
app.command("plan", short_help="Show what embedding some texts would take with each model.")(plan.plan)
app.add_typer(models.app, name="models")
app.add_typer(cache.app, name="cache")
app.add_typer(budget.app, name="budget")
app.add_typer(state.app, name="state")
app.command("init", short_help="Write a first embedway.toml, and trust it.")(init.init)
app.command("trust", short_help="Follow an embedway.toml of the working directory.")(trust.trust)
app.command("doctor", short_help="Say what works here, and how to get the rest.")(doctor.doctor)


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
            help="Settings, TOML or JSON. May be given several times; later files win, field by field. "
            "Without it, embedway.toml of the working directory is read: wholly if `embedway trust` trusts it, else "
            "what is harmless of it.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")] = False,
    show_traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error arose.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options that come before the command."""
    del version  # acted on by its callback
    invocation = context.find_object(Invocation)
    if invocation is not None:  # None while a shell asks for completions
        invocation.files = tuple(config or ())
        invocation.quiet = quiet
        invocation.traceback = show_traceback


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit. Every error is one message on standard error, and an exit code."""
    isolate_children()
    invocation = Invocation()
    try:
        try:
            # It exits by itself: after wrong usage, Ctrl-C, or with a command's code.
            given = sys.argv[1:] if arguments is None else list(arguments)
            typer.main.get_command(app).main(args=given, prog_name="embedway", obj=invocation)
        finally:
            # Here an error of writing can still be told; at the interpreter's end it cannot.
            sys.stdout.flush()
    except EmbedwayError as error:
        _report(error, str(error), invocation)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has gone. What is buffered goes nowhere, without a second error at exit.
        _drop_output()
        sys.exit(1)
    except OSError as error:
        _drop_output()
        name = f": {error.filename}" if error.filename else ""
        _report(error, f"{error.strerror or type(error).__name__}{name}", invocation)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  the last line before the user: a message, not a stack
        # Its own text may hold texts of the user's, so only its kind and place are told unasked.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        message = f"unexpected {type(error).__name__} in {where}; `embedway --traceback …` shows all of it"
        _report(error, message, invocation)
        sys.exit(1)
    sys.exit(0)


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: BaseException, message: str, invocation: Invocation) -> None:
    if invocation.traceback:
        sys.stderr.write(printable("".join(traceback.format_exception(error)), keep_layout=True))
    sys.stderr.write(f"embedway: error: {printable(message, keep_layout=True)}\n")
