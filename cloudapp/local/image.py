"""`make image`: build the control plane's image on the engine that is there."""

import os
import secrets
import signal
import subprocess

from cloudapp.local.engine import Engine
from cloudapp.local.packages import ensure_packages
from cloudapp.local.places import PROJECT, VAR
from cloudapp.local.processes import manage
from cloudapp.local.programs import last_lines, launch_command
from cloudapp.local.say import Console, Failure
from cloudapp.local.tools import SYSTEM_PATH
from cloudapp.local.venv import RUNTIME_LOCK, ensure_venv

# Building needs neither a database nor Redis.
NOT_NEEDED = {"DATABASE_URL": "not needed", "REDIS_URL": "not needed"}


def image() -> int:
    """Build it; return the exit code."""
    console = Console()
    given = {"DOCKER_HOST": os.environ.get("DOCKER_HOST", "")}
    with console.step("packages") as step:
        ensure_packages(step, {**given, **NOT_NEEDED})
    with console.step("python") as step:
        ensure_venv(step, RUNTIME_LOCK)
    engine = Engine(given["DOCKER_HOST"] or None)
    try:
        with console.step("engine") as step:
            engine.start()
            step.detail = engine.description
        with console.step("image") as step:
            step.now("fetching wheels and building; the first time takes a minute or two")
            step.detail = _build(engine.host)
    finally:
        engine.release()
    return 0


def _build(host: str) -> str:
    """Build in the virtual environment, where Django and the engine's client are."""
    environment = {
        **os.environ,
        "PATH": f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}",
        "DOCKER_HOST": host,
        "LOCAL": "1",
        "STATE_DIR": str(VAR),
        # Only so that the settings load; nothing of them gets into the image.
        "SECRET_KEY": secrets.token_urlsafe(48),
        "ROUTER_SECRET": secrets.token_urlsafe(48),
    }
    done = subprocess.run(
        launch_command(manage("build_control_image"), signal.SIGKILL, None),
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failure(f"The image was not built. The last lines:\n{last_lines(done.stdout)}")
    return done.stdout.strip().splitlines()[-1]
