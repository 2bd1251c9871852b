"""`make run`: set up what is missing, start the whole product, stay in the foreground."""

import os
import signal
from pathlib import Path

from cloudapp.local.packages import ensure_packages
from cloudapp.local.places import VAR
from cloudapp.local.product import Product
from cloudapp.local.say import Console, Failure
from cloudapp.local.signals import Stop, stop_on_signals
from cloudapp.local.venv import RUNTIME_LOCK, ensure_venv

# Settings that a person may give `make run`; all others would be a surprise inside a shell.
GIVEN = (
    *("DATABASE_URL", "REDIS_URL", "DOCKER_HOST", "CLOUD_URL", "APPS_DOMAIN", "NAMESPACE"),
    *("SECRET_KEY", "SECRET_KEY_FILE", "ROUTER_SECRET", "ROUTER_SECRET_FILE", "DEBUG"),
    *("EMAIL_URL", "MAIL_DIR"),
)


def given_settings() -> dict[str, str]:
    """Return the settings in our environment that a product takes over as they are."""
    return {name: os.environ[name] for name in GIVEN if os.environ.get(name)}


def port_from_environment() -> int:
    """Return PORT; Failure when it is none."""
    text = os.environ.get("PORT") or "8000"
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise Failure(f"PORT is {text!r}; it must be a number from 1 to 65535.")
    return int(text)


def set_up(console: Console, given: dict[str, str]) -> None:
    """Install what the product needs to run."""
    with console.step("packages") as step:
        ensure_packages(step, given)
    with console.step("python") as step:
        ensure_venv(step, RUNTIME_LOCK)


def only_set_up() -> int:
    """`make setup`: install, start nothing; return the exit code."""
    set_up(Console(), given_settings())
    return 0


def run() -> int:
    """Run the product until somebody stops it; return the exit code."""
    console = Console()
    given = given_settings()
    state = Path(os.environ.get("STATE_DIR") or VAR)
    product = Product(state, port_from_environment(), env=given, console=console)
    with stop_on_signals(product.hurry):
        try:
            console.line("cloudapp")
            set_up(console, given)
            try:
                product.start()
            except Failure:
                # A password that is shown once must not be lost because a later step failed.
                for note in product.notes:
                    console.line(f"  {note}")
                raise
            _greet(console, product)
            while True:
                signal.pause()
        except Stop:
            console.line("\nStopping. Ctrl-C again stops at once.")
        finally:
            product.stop()
    console.line(f"Stopped; everything that you made is kept in {product.places.state}.")
    return 0


def _greet(console: Console, product: Product) -> None:
    """Say where it is and how to sign in."""
    console.line()
    console.line(f"  cloudapp    {product.base_url}/")
    console.line(f"  workspaces  http://<name>.{product.environment['APPS_DOMAIN']}/")
    console.line(f"  operators   {product.base_url}/admin/")
    for note in product.notes:
        console.line(f"              {note}")
    if not product.given.get("EMAIL_URL"):
        console.line(f"  mail        as files in {product.mail}")
    console.line("\n  Ctrl-C stops it all.\n")
