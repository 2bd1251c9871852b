"""What production runs, in an image or not: one of the processes, or a management command.

The flags are those of `make run`, so what is tried at home is what production runs. What follows a
process's name is added to them: `web --workers 4`.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cloudapp.local.processes import (
    ROOT_IS_MEANT,
    WORKERS,
    beat_command,
    manage,
    waiting_command,
    web_command,
    worker_command,
)


def command_for(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the command for the image's arguments: web, worker, ... or a management command."""
    name, *more = arguments or ["web"]
    run_dir = Path(environment.get("RUN_DIR", "/run/cloudapp"))
    processes = {
        "web": web_command(environment.get("WEB_LISTEN") or f"unix:{run_dir}/web.sock", "/dev/shm"),  # noqa: S108
        "waiting": waiting_command(
            environment.get("WAITING_LISTEN") or f"unix:{run_dir}/waiting.sock",
            "/dev/shm",  # noqa: S108
        ),
        **{name: worker_command(*of) for name, of in WORKERS.items()},
        "beat": beat_command(_beat_directory(environment) / "schedule"),
        "watcher": manage("watch"),
    }
    return [*processes[name], *more] if name in processes else manage(*arguments)


def _beat_directory(environment: Mapping[str, str]) -> Path:
    """Beat's own: it need not be root, while the rest of STATE_DIR is what root's builds trust."""
    return Path(environment.get("STATE_DIR", "/var/lib/cloudapp")) / "beat"


def main() -> None:
    """Become that command, so that signals reach it."""
    command = command_for(sys.argv[1:], os.environ)
    if sys.argv[1:2] == ["beat"]:
        _beat_directory(os.environ).mkdir(parents=True, exist_ok=True)
    os.execvpe(command[0], command, {"PYTHONWARNINGS": ROOT_IS_MEANT, **os.environ})  # noqa: S606


if __name__ == "__main__":
    main()
