"""Makes changes of plugins and is killed in the middle.

    python -m tests.plugins.dying_change

For each line on its input, `CHANGE POINT before|after`, it forks a worker that runs the change and
kills itself by SIGKILL at that point; then it prints how that one ended. Nothing is replaced: the
real calls are made, before or after.
"""

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import django


def _die_at(owner: Any, name: str, moment: str) -> None:
    call: Callable[..., Any] = getattr(owner, name)

    @wraps(call)
    def fatal(*args: Any, **kwargs: Any) -> Any:
        if moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        call(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, fatal)


def main() -> None:
    """Fork a worker for each line."""
    django.setup()
    from cloudapp.celery import app  # noqa: PLC0415 - the models need django.setup()
    from deploy import images  # noqa: PLC0415
    from deploy.engines import get_builder  # noqa: PLC0415
    from workspaces import change_runs  # noqa: PLC0415

    app.set_default()
    modules = {"images": images, "change_runs": change_runs}
    for line in sys.stdin:
        pk, point, moment = line.split()
        child = os.fork()
        if child == 0:
            module, _, name = point.partition(".")
            _die_at(modules[module], name, moment)
            change_runs.run(int(pk), get_builder())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
