"""Debian packages: which are missing, and how they get here."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from cloudapp.local import postgres
from cloudapp.local.programs import last_lines
from cloudapp.local.say import Failure, Step
from cloudapp.local.tools import as_root, find_tool, root_prefix


class Purpose(Enum):
    """What the packages are for."""

    RUN = "run"
    TEST = "test"
    BENCH = "bench"


LUA_MODULE = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def _has_venv() -> bool:
    """Debian's Python comes without the part that makes virtual environments."""
    try:
        import ensurepip  # noqa: F401, PLC0415  # its absence is the very question
    except ImportError:
        return False
    return True


def _has_font() -> bool:
    fonts = Path("/usr/share/fonts")
    return any(path.suffix in (".ttf", ".otf", ".ttc") for path in fonts.rglob("*"))


def missing_packages(given: Mapping[str, str], *, purpose: Purpose = Purpose.RUN) -> list[str]:
    """Return the Debian packages whose programs are not here.

    With DATABASE_URL, REDIS_URL or DOCKER_HOST in `given`, nothing of that kind is needed.
    """
    needed: dict[str, bool] = {
        "python3-venv": _has_venv(),
        "nginx-light": find_tool("nginx") is not None,
        # Connections to the instances are kept by a few lines of Lua.
        "libnginx-mod-http-lua": LUA_MODULE.exists() or given.get("ROUTER_MODULES") == "",
        # The base of the images where no container registry answers.
        "debootstrap": find_tool("debootstrap") is not None,
    }
    if not given.get("DATABASE_URL"):
        needed["postgresql"] = postgres.binaries() is not None
    if not given.get("REDIS_URL"):
        needed["redis-server"] = find_tool("redis-server") is not None
    if not given.get("DOCKER_HOST"):
        needed["docker.io"] = find_tool("dockerd") is not None
        needed["iptables"] = find_tool("iptables") is not None
    if purpose is Purpose.TEST:
        needed["chromium"] = any(find_tool(name) for name in BROWSERS)
        needed["fonts-dejavu-core"] = _has_font()
    if purpose is Purpose.BENCH:
        needed["nghttp2-client"] = find_tool("h2load") is not None
    return [package for package, present in needed.items() if not present]


def ensure_packages(
    step: Step, given: Mapping[str, str], *, purpose: Purpose = Purpose.RUN
) -> None:
    """Install what is missing; Failure with the exact command where that is not possible."""
    missing = missing_packages(given, purpose=purpose)
    if not missing:
        step.detail = "nothing is missing"
        return
    names = " ".join(missing)
    if shutil.which("apt-get") is None:
        raise Failure(
            f"Not here: {names} (names of Debian's packages), and this system has no apt-get.\n"
            "Install what provides them, or use Debian 12. With DATABASE_URL, REDIS_URL and "
            "DOCKER_HOST set, the servers may be elsewhere."
        )
    if root_prefix() is None:
        raise Failure(
            f"Not here: {names}. Installing them takes root, and sudo does not work for you.\n"
            f"Have somebody run:\n    apt-get update && apt-get install {names}"
        )
    step.now(f"installing {names}")
    with _no_new_services():
        # An outdated list names files that the mirror no longer has.
        _apt(["update"])
        _apt(["install", "--yes", "--no-install-recommends", *missing])
    still = missing_packages(given, purpose=purpose)
    if still:
        raise Failure(f"apt-get installed {names}, and yet these are not here: {' '.join(still)}")
    step.detail = f"installed {len(missing)}"


def _apt(arguments: Sequence[str]) -> None:
    """Run apt-get as root with the machine's own settings."""
    command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    # Another apt may be at work, as on a machine that has just been started.
    command += ["-o", "DPkg::Lock::Timeout=180", *arguments]
    done = subprocess.run(
        as_root(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise Failure(f"apt-get {arguments[0]} failed. Its last lines:\n{last_lines(done.stdout)}")


@contextmanager
def _no_new_services() -> Iterator[None]:
    """Keep apt from starting the servers that it installs: we run our own, on private sockets.

    Without this, a laptop would get an nginx on port 80. Debian asks /usr/sbin/policy-rc.d; ours
    says no only while this process lives, so it does no harm should it stay behind. Docker may
    start where systemd is there to look after it.
    """
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    allow = "docker) exit 0;;" if Path("/run/systemd/system").exists() else ""
    text = (
        "#!/bin/sh\n# Made for one run of cloudapp's set-up; may be deleted.\n"
        f"[ -d /proc/{os.getpid()} ] || exit 0\n"
        f'case "$1" in {allow} *) exit 101;; esac\n'
    )
    with tempfile.NamedTemporaryFile("w", prefix="policy-") as file:
        file.write(text)
        file.flush()
        subprocess.run(as_root(["install", "-m", "755", file.name, str(policy)]), check=False)
    try:
        yield
    finally:
        subprocess.run(as_root(["rm", "-f", str(policy)]), check=False)
