"""The commands behind the Makefile: python3 -m cloudapp.local run | test | bench | image ..."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  # said in words, before newer syntax is read
    sys.exit(
        "cloudapp needs Python 3.11 or newer; this is {}.{}. "
        "Debian 12 has it; elsewhere: make PYTHON=/path/to/python3.11".format(*sys.version_info)
    )

from collections.abc import Callable, Mapping

from cloudapp.local import bench, clean, image, lock, run, test
from cloudapp.local.say import Failure

COMMANDS: Mapping[str, Callable[[], int]] = {
    "run": run.run,
    "test": test.test,
    "lint": test.lint,
    "format": test.format_code,
    "bench": bench.bench,
    "image": image.image,
    "setup": run.only_set_up,
    "lock": lock.lock,
    "clean": clean.clean,
}


def main() -> int:
    """Carry out the command that was asked for; return the exit code."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        print(f"usage: python3 -m cloudapp.local {' | '.join(COMMANDS)}")
        return 2
    try:
        return COMMANDS[name]()
    except Failure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except OSError as error:
        # A full disk, a directory that is not ours: the system's own words say it.
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
