"""`make bench`: a whole product of its own, on a free port, and the benchmark against it."""

import os
import shlex
import signal
import subprocess

from cloudapp.local.packages import Purpose, ensure_packages
from cloudapp.local.places import PROJECT, VAR
from cloudapp.local.processes import bin_dir
from cloudapp.local.product import Product, free_port
from cloudapp.local.programs import launch_command
from cloudapp.local.run import given_settings
from cloudapp.local.say import Console
from cloudapp.local.signals import Stop, stop_on_signals
from cloudapp.local.venv import DEVELOPMENT_LOCK, ensure_venv


def bench() -> int:
    """Run the benchmark; return its exit code.

    The benchmark gets the product's own environment, and BENCH_URL, BENCH_STATE_DIR.
    """
    console = Console()
    given = {
        **given_settings(),
        "CLOUDAPP_OPERATOR_EMAIL": "bench@localhost",
        "API_REQUESTS_PER_MINUTE": "100000",
        "CREATIONS_PER_HOUR": "100000",
    }
    product = Product(VAR / "bench", free_port(), env=given, console=console, echo=False)
    with stop_on_signals(product.hurry):
        try:
            console.line("cloudapp benchmark")
            with console.step("packages") as step:
                ensure_packages(step, given, purpose=Purpose.BENCH)
            with console.step("python") as step:
                ensure_venv(step, DEVELOPMENT_LOCK)
            product.start()
            command = [str(bin_dir() / "python"), "-m", "tests.bench"]
            environment = {
                **product.environment,
                "BENCH_URL": product.base_url,
                "BENCH_STATE_DIR": str(product.places.state),
            }
            done = subprocess.run(
                launch_command(
                    [*command, *shlex.split(os.environ.get("ARGS", ""))], signal.SIGTERM, None
                ),
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.DEVNULL,
                check=False,
            )
            return done.returncode
        except Stop:
            console.line("\nStopping.")
            return 130
        finally:
            product.discard()
