"""The entry point, PID 1 of the container.

Two things cannot wait for the slow imports. A PID 1 without a handler ignores SIGTERM, so a stop
during start-up would hang until the engine kills us. And the socket listens from the first
moment: whoever asks for readiness connects once and gets its answer the moment there is one,
instead of polling.
"""

from __future__ import annotations

import gc
import signal
import sys
from types import FrameType


def _stop_before_start(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> None:
    """Run until SIGTERM; exit 0 after a clean stop, 2 when the environment is not as agreed."""
    signal.signal(signal.SIGTERM, _stop_before_start)
    gc.disable()  # until server.py has started: there is nothing to collect, and much to look at
    from cloudapp_workspace.environment import (  # noqa: PLC0415 - after the handler
        WrongEnvironment,
        read_environment,
    )
    from cloudapp_workspace.listen import listen  # noqa: PLC0415

    try:
        environment = read_environment()
        listener = listen(environment.listen)
    except (WrongEnvironment, OSError) as error:
        print(f"cloudapp workspace cannot start: {error}", file=sys.stderr)
        sys.exit(2)

    from cloudapp_workspace.server import serve  # noqa: PLC0415 - the slow one, after listening

    serve(environment, listener)


if __name__ == "__main__":
    main()
