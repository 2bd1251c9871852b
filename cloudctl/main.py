"""The program: its commands, and how it ends."""

import sys
from typing import Annotated, Any, NoReturn

import typer

from cloudctl.commands import account, live, people, setup, workspaces
from cloudctl.errors import Failure, Interrupted, WrongUsage
from cloudctl.output import Output

WORDS = """
Workspaces from a shell: make, watch, open, change and delete them.

Sign in once with `cloudctl login`, or set CLOUDCTL_URL and CLOUDCTL_TOKEN, which win. Every
command takes --json: then stdout holds JSON and nothing else, and an error is a problem document
on stderr.
"""
EXIT_CODES = """
Exit codes: 0 fine; 1 refused by the server; 2 wrong usage; 3 not signed in; 4 the server cannot be
reached; 5 it did not come true in time; 130 interrupted by Ctrl-C.
"""

app = typer.Typer(
    name="cloudctl",
    help=WORDS,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: quick to load, the same everywhere
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from cloudctl.version import installed  # noqa: PLC0415

        print(installed())
        raise typer.Exit


@app.callback()
def everything(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Take what concerns no single command."""


for name, command in (
    ("login", account.login),
    ("logout", account.logout),
    ("whoami", account.whoami),
    ("list", workspaces.list_),
    ("create", workspaces.create),
    ("show", workspaces.show),
    ("open", workspaces.open_),
    ("start", workspaces.start),
    ("stop", workspaces.stop),
    ("restart", workspaces.restart),
    ("wake", workspaces.wake),
    ("wait", workspaces.wait),
    ("events", live.events),
    ("logs", live.logs),
    ("rename", workspaces.rename),
    ("delete", workspaces.delete),
    ("undelete", workspaces.undelete),
):
    app.command(name)(command)

for name, commands in (
    ("plugins", setup.plugins),
    ("secrets", setup.secrets),
    ("members", people.members),
    ("tokens", people.tokens),
):
    app.add_typer(commands, name=name)


# --- how it ends ---------------------------------------------------------------------------------


def main() -> NoReturn:
    """Run the command line, and end with one of EXIT_CODES."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # they are text files
    # Asked of the arguments themselves: also what cannot be parsed shall be answered as wanted.
    out = Output(as_json="--json" in sys.argv)
    try:
        code: Any = app(prog_name="cloudctl", standalone_mode=False)
    except Failure as failure:
        sys.exit(_report(out, failure))
    except typer.TyperException as error:
        sys.exit(_misused(out, error))
    except typer.Abort:
        sys.exit(_report(out, WrongUsage("The input ended too soon.")))
    except UnicodeEncodeError:
        sys.exit(_report(out, WrongUsage("What was typed is not UTF-8.")))
    if code == Interrupted.exit_code:
        code = _report(out, Interrupted("Interrupted."))
    sys.exit(code or 0)


def _misused(out: Output, error: typer.TyperException) -> int:
    """Say what is wrong with the command line; return the exit code."""
    words = error.format_message().strip()
    if words.startswith("Usage:"):  # a group without a command: the error is its help
        if not out.as_json:
            out.to_stderr(words)
            return WrongUsage.exit_code
        words = "Which command?"
    context: Any = getattr(error, "ctx", None)
    hint = f"How it is used: {context.command_path} --help" if context is not None else ""
    return _report(out, WrongUsage(words if words.endswith((".", "?")) else f"{words}.", hint))


def _report(out: Output, failure: Failure) -> int:
    """Say what went wrong; return the exit code."""
    if out.as_json:
        out.problem(failure.document())
    else:
        out.complain(failure.detail, failure.hint)
    return failure.exit_code
