"""A Postgres cluster of our own: on a unix socket in a private directory, never on the network."""

import contextlib
import os
import pwd
import re
import shutil
import signal
import tempfile
from pathlib import Path
from urllib.parse import quote

from cloudapp.local.places import Places, short_name
from cloudapp.local.programs import Program, output_of
from cloudapp.local.say import Console, Failure

# It owns the cluster and all tables.
ROLE = "cloudapp"
# The processes' role: it reads and writes rows. See cloudapp.postgres.roles.
RUNTIME_ROLE = "cloudapp_runtime"
SYSTEM_USER = "postgres"
# Nothing of a test's database is worth waiting for a disk. Commits still reach the system's cache,
# so killing the server loses nothing.
FAST = {"fsync": "off", "full_page_writes": "off"}


def binaries(major: str | None = None) -> Path | None:
    """Return the directory with the server's programs; the newest, or this major version's."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob(f"{major or '*'}/bin/postgres"),
        key=lambda path: float(path.parts[-3]),
    )
    if debian:
        return debian[-1].parent
    on_path = shutil.which("postgres")
    if on_path is None:
        return None
    if major and f" {major}." not in output_of([on_path, "--version"]):
        return None
    return Path(on_path).resolve().parent


def _others_may_pass(path: Path) -> bool:
    """Tell whether any user may walk down to `path`; its own permissions do not matter."""
    return all(parent.stat().st_mode & 0o001 for parent in path.parents if parent.exists())


class Postgres:
    """One cluster. Make it, prepare() it, run its program, then create_database()."""

    name = "postgres"

    def __init__(self, places: Places, console: Console, *, fast: bool = False) -> None:
        """`fast` gives up safety against a crash of the machine; for tests."""
        self._places = places
        self._console = console
        self._fast = fast
        # Postgres refuses to run as root.
        self._user = SYSTEM_USER if os.geteuid() == 0 else None
        self.sockets = places.run / "postgres"
        self.data = self._choose_data_directory()

    def _choose_data_directory(self) -> Path:
        wanted = self._places.state / "postgres"
        if self._user is None or _others_may_pass(wanted):
            return wanted
        name = f"cloudapp-{short_name(self._places.state)}"
        if self._fast:
            return Path(tempfile.gettempdir()) / f"{name}-postgres"
        return Path("/var/lib") / name / "postgres"

    def url(self, database: str = ROLE, role: str = ROLE) -> str:
        """Return the DATABASE_URL of one of its databases."""
        return f"postgres://{role}@/{database}?host={quote(str(self.sockets), safe='/')}"

    def prepare(self) -> None:
        """Make the cluster if it is not there, and clear away what a crash left."""
        if self.data.parent != self._places.state:
            self._console.line(
                f"  · postgres       its data lies in {self.data}: the user {SYSTEM_USER} cannot "
                f"reach {self._places.state}"
            )
        for path in (self.sockets, self.data.parent):
            path.mkdir(parents=True, exist_ok=True)
        self._own(self.sockets, 0o700)
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        self._clear_stale_locks()

    def _own(self, path: Path, mode: int) -> None:
        if self._user:
            entry = pwd.getpwnam(self._user)
            os.chown(path, entry.pw_uid, entry.pw_gid)
        path.chmod(mode)

    def _tool(self, name: str) -> str:
        version = self.data / "PG_VERSION"
        major = version.read_text().strip() if version.exists() else None
        where = binaries(major)
        if where is None:
            raise Failure(
                f"{self.data} was made by PostgreSQL {major}, which is not installed here.\n"
                f"Install it (apt-get install postgresql-{major}), or move {self.data} away to "
                "begin with an empty database."
            )
        return str(where / name)

    def _initialise(self) -> None:
        """Make a cluster, next to where it belongs first: half a cluster is worse than none."""
        half = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(half, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)
        half.mkdir()
        self._own(half, 0o700)
        command = [
            self._tool("initdb"),
            *("--pgdata", str(half), "--username", ROLE, "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C.UTF-8", "--no-instructions"),
        ]
        if self._fast:
            command.append("--no-sync")
        output_of(command, user=self._user)
        half.rename(self.data)

    def _clear_stale_locks(self) -> None:
        """Remove lock files whose process is gone, also when another one got its number since."""
        for lock in (self.data / "postmaster.pid", self.sockets / ".s.PGSQL.5432.lock"):
            with contextlib.suppress(OSError):
                first = lock.read_text().split("\n", 1)[0]
                pid = int(re.sub(r"\D", "", first) or 0)
                if not _is_postgres(pid):
                    lock.unlink()

    def program(self) -> Program:
        """Return the server as a program to run."""
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "max_connections": "200",
            "logging_collector": "off",
            "log_destination": "stderr",
            **(FAST if self._fast else {}),
        }
        return Program(
            name=self.name,
            command=[
                *(self._tool("postgres"), "-D", str(self.data)),
                *(part for key, value in options.items() for part in ("-c", f"{key}={value}")),
            ],
            log=self._places.logs / "postgres.log",
            user=self._user,
            # SIGINT is its "fast shutdown"; SIGTERM would wait for every client to leave.
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGINT,
            grace=20,
            echo=False,
            ready=self.is_ready,
        )

    def _client(self, name: str, *arguments: str) -> list[str]:
        """Return the command of a client program that asks this server and no other."""
        return [self._tool(name), "-h", str(self.sockets), "-p", "5432", "-U", ROLE, *arguments]

    def is_ready(self) -> bool:
        """Tell whether it takes connections."""
        try:
            output_of(self._client("pg_isready", "-q", "-t", "2"))
        except Failure:
            return False
        return True

    def create_database(self, name: str = ROLE) -> None:
        """Create a database if it is not there."""
        ask = self._client("psql", "-d", "postgres", "-XAtqc")
        # A name of ours, never a person's; it holds neither quotes nor dashes.
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"not a database name: {name!r}")
        if not output_of([*ask, f"SELECT 1 FROM pg_database WHERE datname='{name}'"]).strip():  # noqa: S608
            output_of([*ask, f"CREATE DATABASE {name}"])

    def create_runtime_role(self) -> None:
        """Create the role of the processes if it is not there; grant_runtime tells what it may."""
        ask = self._client("psql", "-d", "postgres", "-XAtqc")
        if not output_of([*ask, f"SELECT 1 FROM pg_roles WHERE rolname='{RUNTIME_ROLE}'"]).strip():  # noqa: S608
            output_of([*ask, f"CREATE ROLE {RUNTIME_ROLE} LOGIN"])

    def discard(self) -> None:
        """Delete the cluster with all that is in it. It must not run."""
        shutil.rmtree(self.data, ignore_errors=True)
        if self.data.parent not in (self._places.state, Path(tempfile.gettempdir())):
            shutil.rmtree(self.data.parent, ignore_errors=True)


def _is_postgres(pid: int) -> bool:
    try:
        return b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        # No /proc on this system: ask whether the process lives, and believe the lock if so.
        with contextlib.suppress(ProcessLookupError, OverflowError):
            if not Path("/proc/self").exists() and pid > 0:
                os.kill(pid, 0)
                return True
        return False
