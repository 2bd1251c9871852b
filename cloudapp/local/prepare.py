"""What a product needs before its processes start. Runs inside the virtual environment.

Everything in one process, because importing Django takes longer than most of these steps. Prints
one line for each thing done: `step`, its name, what came of it, seconds; and `note` with a text
that a person should read; separated by tabs.
"""

import hashlib
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import django
from django.conf import settings
from django.core.management import CommandError, call_command

from accounts import origin
from accounts.origin import Origin, Via
from cloudapp.local.places import PROJECT
from cloudapp.local.processes import router_config


def say(kind: str, *words: str) -> None:
    """Tell the process that started us."""
    print(kind, *(word.replace("\t", " ") for word in words), sep="\t", flush=True)


def step(name: str, action: Callable[[], str]) -> None:
    """Do one thing and say how it went."""
    started = time.monotonic()
    detail = action()
    say("step", name, detail, f"{time.monotonic() - started:.2f}")


def migrate() -> str:
    """Bring the database up to date: tables, the one that rate limits live in, the catalogue."""
    call_command("migrate", interactive=False, verbosity=0)
    call_command("createcachetable", verbosity=0)
    call_command("load_catalogue", stdout=io.StringIO())
    if role := os.environ.get("RUNTIME_ROLE"):  # of a database that is ours
        call_command("grant_runtime", role, stdout=io.StringIO())
    return "migrated"


def _static_digest() -> str:
    """Return what the collected files depend on: installed packages and our own files."""
    digest = hashlib.sha256(PROJECT.joinpath("requirements.txt").read_bytes())
    for path in sorted(PROJECT.glob("*/static/**/*")):
        status = path.stat()
        digest.update(f"{path} {status.st_mtime_ns} {status.st_size}\n".encode())
    return digest.hexdigest()


def collect_static() -> str:
    """Collect, hash and compress the static files, unless they are as they were."""
    stamp = Path(settings.STATIC_ROOT) / ".collected"
    digest = _static_digest()
    if stamp.exists() and stamp.read_text() == digest:
        return "as they were"
    call_command("collectstatic", interactive=False, verbosity=0, clear=True)
    stamp.write_text(digest)
    return "collected"


def create_operator() -> str:
    """Make the first operator; wrong input is a warning, the product starts all the same."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("create_operator", stdout=out, stderr=err)
    except CommandError as error:
        say("note", f"No operator was made: {error}")
        return "not made, see below"
    for line in (err.getvalue() + out.getvalue()).splitlines():
        say("note", line)
    return "there"


def render_router() -> str:
    """Write the router's configuration."""
    out = io.StringIO()
    call_command("render_router", output=router_config(Path(settings.RUN_DIR)), stdout=out)
    return "configuration written"


STEPS: dict[str, Callable[[], str]] = {
    "database": migrate,
    "static files": collect_static,
    "operator": create_operator,
    "router": render_router,
}


def main() -> None:
    """Do the steps that are named on the command line, or all of them."""
    django.setup()
    origin.begin(Origin(Via.COMMAND, "prepare"))
    for name in sys.argv[1:] or STEPS:
        step(name, STEPS[name])


if __name__ == "__main__":
    main()
