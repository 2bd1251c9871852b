"""What the control plane's image runs: one of the product's processes, or a management command.

The flags are those of `make run`, so what is tried at home is what production runs.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cloudapp.local.processes import (
    WORKERS,
    beat_command,
    manage,
    waiting_command,
    web_command,
    worker_command,
)


def command_for(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the command for the image's arguments: web, worker, ... or a management command."""
    name = arguments[0] if arguments else "web"
    run_dir = Path(environment.get("RUN_DIR", "/run/cloudapp"))
    state_dir = Path(environment.get("STATE_DIR", "/var/lib/cloudapp"))
    processes = {
        "web": web_command(environment.get("WEB_LISTEN") or f"unix:{run_dir}/web.sock", "/dev/shm"),  # noqa: S108
        "waiting": waiting_command(
            environment.get("WAITING_LISTEN") or f"unix:{run_dir}/waiting.sock",
            "/dev/shm",  # noqa: S108
        ),
        **{name: worker_command(*of) for name, of in WORKERS.items()},
        "beat": beat_command(state_dir / "celerybeat-schedule"),
        "watcher": manage("watch"),
    }
    return processes[name] if name in processes else manage(*arguments)


def main() -> None:
    """Become that command, so that signals reach it."""
    command = command_for(sys.argv[1:], os.environ)
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
