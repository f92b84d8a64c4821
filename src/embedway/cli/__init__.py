"""Command line. One file per command; heavy modules are imported when a command runs.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 over budget, 4 partial failure, 130 stopped by Ctrl-C,
143 by SIGTERM, 129 by SIGHUP. `quality check` exits with 1 only for a drift, and with 4 for a failure.
Results go to standard output; progress, notes and errors to standard error.
"""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from embedway._version import __version__
from embedway.cli import (
    budget,
    cache,
    conformance,
    doctor,
    embed,
    export,
    forget,
    init,
    keys,
    models,
    plan,
    quality,
    run,
    search,
    select,
    serve,
    state,
    sync,
    trust,
    verify,
    verify_models,
)
from embedway.cli.log import show_log
from embedway.cli.options import Invocation
from embedway.cli.output import flush_result, print_line, print_message, print_traceback
from embedway.cli.streams import OutputError, standard_streams
from embedway.errors import EmbedwayError
from embedway.interrupts import explain, handled
from embedway.isolation import isolate_children
from embedway.remedies import in_command
from embedway.text import has_surrogate

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
app.command("sync", short_help="Keep a collection equal to its sources.")(sync.sync)
app.command("search", short_help="Search a collection by meaning and by words.")(search.search)
app.command("verify", short_help="Prove that the rows of a collection are right; repair them.")(verify.verify)
app.command("forget", short_help="Remove documents from collections, older versions and the cache.")(forget.forget)
app.command("export", short_help="Convert a collection into another store, without embedding.")(export.export)
app.command("embed", short_help="Print vectors of texts as JSON lines.")(embed.embed)
app.command("select", short_help="Show which model fits the texts best, and why.")(select.select)
app.command("plan", short_help="Show tokens, cost and time of embedding texts with each model.")(plan.plan)
models.app.command("verify", short_help="Compare the vector spaces of two models or routes.")(verify_models.verify)
app.command("serve", short_help="Serve embeddings over HTTP, as OpenAI and others.")(serve.serve)
app.add_typer(models.app, name="models", short_help="List, pull, tune and compare models.")
app.add_typer(cache.app, name="cache")
app.add_typer(budget.app, name="budget")
app.add_typer(keys.app, name="keys")
app.add_typer(quality.app, name="quality", short_help="Notice models that change under their name.")
app.add_typer(state.app, name="state")
app.command("init", short_help="Create an embedway.toml and trust it.")(init.init)
app.command("trust", short_help="Trust an embedway.toml in the working directory.")(trust.trust)
app.command("conformance", short_help="Judge a server with OpenAI's embeddings API.")(conformance.conformance)
app.command("doctor", short_help="Check this installation and show how to fix problems.")(doctor.doctor)


#: Options before the command that may also follow it. No command has an option of these names.
_COMMON_FLAGS = {"--quiet", "-q", "--verbose", "-v", "--traceback"}


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"embedway {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    context: typer.Context,
    *,
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
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Print the log with retries, skipped routes and skipped files on standard error."
        ),
    ] = False,
    show_traceback: Annotated[bool, typer.Option("--traceback", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Store the options that precede the command."""
    del version  # handled by its callback
    explain("no result is stored; run the same command again")
    context.call_on_close(show_log(verbose=verbose, quiet=quiet))
    invocation = context.find_object(Invocation)
    if invocation is not None:  # None while a shell asks for completions
        invocation.files = tuple(config or ())
        invocation.quiet = quiet
        invocation.verbose = verbose
        invocation.traceback = show_traceback


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit. Report each error as one message on standard error, and an exit code.

    Without arguments, this is the whole program: it reads those of the process, and handles signals.
    """
    if arguments is not None:
        with standard_streams():
            _main(list(arguments))
    with handled(), standard_streams():
        _main(sys.argv[1:])


def _main(arguments: list[str]) -> NoReturn:
    isolate_children()
    with in_command():
        _run_command(common_first(arguments), Invocation())


def common_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the common flags before the command, where typer expects them."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    given, rest = arguments[:end], arguments[end:]
    flags = [one for one in given if one in _COMMON_FLAGS]
    return [*flags, *(one for one in given if one not in _COMMON_FLAGS), *rest]


def _run_command(arguments: list[str], invocation: Invocation) -> NoReturn:
    try:
        try:
            # This call exits: after wrong usage, or with a command's exit code.
            typer.main.get_command(app).main(args=arguments, prog_name="embedway", obj=invocation)
        except SystemExit:
            # A write error can still be reported here, but not at interpreter exit.
            flush_result()
            raise
    except EmbedwayError as error:
        _report(error, "\n".join((str(error), *getattr(error, "__notes__", ()))), invocation)
        sys.exit(error.exit_code)
    except OutputError as error:
        if not error.reader_left:
            _report(error, str(error), invocation)
        sys.exit(_exit_code(error))
    except OSError as error:
        _report(error, _describe(error), invocation)
        sys.exit(_exit_code(error))
    except Exception as error:  # noqa: BLE001  last resort: a message, not a traceback
        if isinstance(error, UnicodeEncodeError) and any(map(has_surrogate, arguments)):
            advice = "use another one, or a UTF-8 locale, such as LC_ALL=C.UTF-8"
            _report(error, f"an argument is not text in this locale's encoding: {advice}", invocation)
            sys.exit(2)
        # Its message may contain texts of the user, so by default only its type and location are shown.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        message = f"unexpected {type(error).__name__} in {where}; run `embedway --traceback …` for details"
        _report(error, message, invocation)
        sys.exit(_exit_code(error))
    sys.exit(0)


def _exit_code(error: Exception) -> int:
    """Return the exit code that a command has given an error; 1 without one."""
    code = getattr(error, "exit_code", 1)
    return code if isinstance(code, int) else 1


def _describe(error: OSError) -> str:
    """Return the message of a system error that no command expects."""
    reason = error.strerror or type(error).__name__
    if error.filename:
        return f"{reason}: {error.filename}"
    if isinstance(error, FileNotFoundError):
        try:
            Path.cwd()
        except FileNotFoundError:
            return "the working directory was deleted: run the command in another folder"
    return reason


def _report(error: BaseException, message: str, invocation: Invocation) -> None:
    if invocation.traceback:
        print_traceback(error)
    print_message(f"error: {message}")
