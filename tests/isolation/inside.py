"""What a container can see and do, found out inside of it. Standard library only.

Tests send this file into a container as the text of a program: `python -c TEXT NAME ARGUMENTS`
calls the function of that name and prints what it returns as JSON.
"""

import ctypes
import errno
import json
import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
SOCKET_DIR = Path("/run/instance")
SECONDS = 2.0


def tried(act: Callable[[], Any]) -> str:
    """Do something; return "done" or the name of the error."""
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


def called(name: str, *arguments: Any) -> str:
    """Call a function of the C library; return "done" or the name of the error."""
    ctypes.set_errno(0)
    if getattr(libc, name)(*arguments) != -1:
        return "done"
    return errno.errorcode.get(ctypes.get_errno(), "?")


# --- facts ---------------------------------------------------------------------------------------


def facts() -> dict[str, Any]:
    """Everything that can be found out without disturbing anybody."""
    return {
        "interfaces": os.listdir("/sys/class/net"),
        "routes": Path("/proc/net/route").read_text().splitlines()[1:],
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "status": {str(pid): status(pid) for pid in ("1", "self")},
        "setuid": setuid_programs(),
        "writable": writable(),
        "sockets": sockets(),
        "mounts": mounts(),
        "environment": environment(),
        "limits": {n: resource.getrlimit(getattr(resource, n)) for n in ("RLIMIT_CORE",)},
        "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES},
        "hostname": socket.gethostname(),
        "devices": sorted(os.listdir("/dev")),
        "masked": {path: content(path) for path in MASKED},
        "read_only": {path: tried(lambda path=path: append(path)) for path in READ_ONLY},
        "syscalls": syscalls(),
    }


NAMESPACES = ("ipc", "mnt", "net", "pid", "uts")
STATUS = ("Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")


def status(pid: str | int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {name: fields[name] for name in STATUS}


def walk(top: str = "/") -> Iterator[tuple[str, os.stat_result]]:
    """Yield everything in the file system but /proc and /sys."""
    for where, directories, files in os.walk(top):
        if where == "/":
            directories[:] = [name for name in directories if name not in ("proc", "sys")]
        for name in directories + files:
            path = os.path.join(where, name)
            try:
                yield path, os.lstat(path)
            except OSError:
                continue


def setuid_programs() -> list[str]:
    found = (
        p
        for p, s in walk()
        if stat.S_ISREG(s.st_mode) and s.st_mode & (stat.S_ISUID | stat.S_ISGID)
    )
    return sorted(found)


def writable() -> list[str]:
    """Directories and files that we may write to, without those in a directory that is one."""
    found: list[str] = []
    for path, state in [("/", os.lstat("/")), *walk()]:
        if any(path.startswith(f"{top}/") for top in found):
            continue
        real = stat.S_ISDIR(state.st_mode) or stat.S_ISREG(state.st_mode)
        if real and os.access(path, os.W_OK):
            found.append(path)
    return found


def sockets() -> list[str]:
    return [path for path, state in walk() if stat.S_ISSOCK(state.st_mode)]


def mounts() -> list[dict[str, str]]:
    """Return what is mounted where, what of it, the options, and the kind of file system."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ")
        _, _, _, root, point, options = before.split()[:6]
        kind = after.split()[0]
        found.append({"root": root, "point": point, "options": options, "kind": kind})
    return found


def environment() -> list[str]:
    names = Path("/proc/1/environ").read_bytes().split(b"\0")
    return sorted(name.decode().split("=")[0] for name in names if name)


MASKED = (
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/latency_stats",
    "/proc/acpi",
    "/proc/scsi",
    "/sys/firmware",
)
READ_ONLY = ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/sys/kernel/uevent_helper")


def content(path: str) -> int | str:
    """How much there is to read in a file, or how many names in a directory."""
    try:
        return len(os.listdir(path)) if os.path.isdir(path) else len(Path(path).read_bytes())
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")


def append(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"")


NEW_USER, NEW_NET, NEW_NS = 0x10000000, 0x40000000, 0x00020000
SYS = {  # x86_64, aarch64
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "init_module": (175, 105),
    "open_by_handle_at": (304, 265),
}


def syscalls() -> dict[str, str]:
    """Try what only a privileged process, or an escaping one, wants to do."""
    column = 0 if os.uname().machine == "x86_64" else 1
    raw = {name: called("syscall", numbers[column], 0, 0, 0, 0, 0) for name, numbers in SYS.items()}
    return raw | {
        "unshare user": called("unshare", NEW_USER),
        "unshare net": called("unshare", NEW_NET),
        "unshare mount": called("unshare", NEW_NS),
        "setns": tried(lambda: setns("/proc/1/ns/net")),
        "mount": called("mount", b"none", b"/tmp", b"tmpfs", 0, None),
        "chroot": tried(lambda: os.chroot("/tmp")),
        "mknod": tried(lambda: os.mknod("/data/disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))),
        "setuid": tried(lambda: os.setuid(0)),
        "setgid": tried(lambda: os.setgid(0)),
        "chown": tried(chown),
        "raw socket": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()),
        "packet socket": tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
        "remount root": called("mount", None, b"/", None, 0x20 | 0x1000, None),
        "nice": tried(lambda: os.setpriority(os.PRIO_PROCESS, 0, -10)),
        "clock": tried(lambda: time.clock_settime(time.CLOCK_REALTIME, time.time())),
    }


def setns(path: str) -> None:
    with open(path) as namespace:
        if libc.setns(namespace.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


def chown() -> None:
    path = Path("/data/chown")
    path.touch()
    try:
        os.chown(path, 0, 0)
    finally:
        path.unlink()


# --- limits --------------------------------------------------------------------------------------


def fork_bomb() -> dict[str, Any]:
    """Fork until the kernel says no, then clear up."""
    children, refused = [], ""
    try:
        while len(children) < 5000:
            pid = os.fork()
            if not pid:
                signal.pause()
                os._exit(0)
            children.append(pid)
    except OSError as error:
        refused = errno.errorcode[error.errno or 0]
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return {"children": len(children), "refused": refused}


def memory_hog() -> None:
    """Take memory, and use it, until the kernel ends this."""
    held = []
    while True:
        held.append(b"x" * (8 << 20))


def burn(seconds: str, processes: str) -> float:
    """Spin in several processes; return the seconds of processor time that they got in all."""
    end = time.monotonic() + float(seconds)
    for _ in range(int(processes)):
        if not os.fork():
            while time.monotonic() < end:
                pass
            os._exit(0)
    for _ in range(int(processes)):
        os.wait()
    times = os.times()
    return times.children_user + times.children_system


def fill(directory: str) -> dict[str, Any]:
    """Write until there is no room; return how much fitted in, and clear up."""
    path, written, ended = Path(directory) / "filler", 0, ""
    try:
        with path.open("wb", buffering=0) as file:
            while written < 1 << 30:
                written += file.write(b"x" * (1 << 20))
    except OSError as error:
        ended = errno.errorcode[error.errno or 0]
    path.unlink(missing_ok=True)
    return {"written": written, "ended": ended}


def run_from(directory: str) -> str:
    """Try to run a program that was written there."""
    path = Path(directory) / "program"
    try:
        shutil.copy("/bin/true", path)
        path.chmod(0o755)
        return tried(lambda: subprocess.run([str(path)], check=True))
    finally:
        path.unlink(missing_ok=True)


# --- the socket directory ------------------------------------------------------------------------


def attack_socket_directory() -> dict[str, str]:
    """Try to change what the router sees there."""
    own = str(SOCKET_DIR / "http.sock")
    other = socket.socket(socket.AF_UNIX)
    return {
        "create": tried(lambda: (SOCKET_DIR / "file").write_bytes(b"x")),
        "mkdir": tried((SOCKET_DIR / "directory").mkdir),
        "symlink": tried(lambda: (SOCKET_DIR / "link").symlink_to("/")),
        "bind": tried(lambda: other.bind(str(SOCKET_DIR / "other.sock"))),
        "unlink": tried(lambda: os.unlink(own)),
        "rename": tried(lambda: os.rename(own, str(SOCKET_DIR / "old"))),
        "replace": tried(lambda: os.rename("/tmp", own)),
        "chmod": tried(lambda: os.chmod(SOCKET_DIR, 0o777)),  # noqa: S103
        "parent": tried(lambda: os.mkdir("/run/other")),
        "up": ",".join(sorted(os.listdir(SOCKET_DIR / ".."))),
    }


def hold_socket_directory() -> None:
    """Be the container's program that prepares to fill the host; then wait to be asked to.

    Opens a file and makes a directory of its own while it may; a SIGUSR1 begins the filling.
    """
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(SOCKET_DIR / "http.sock"))
    server.listen()
    os.chmod(SOCKET_DIR / "http.sock", 0o666)  # noqa: S103
    os.umask(0)
    (SOCKET_DIR / "mine").mkdir(mode=0o777)
    held = (SOCKET_DIR / "mine" / "file").open("wb", buffering=0)
    done = []

    def begin(number: int, frame: Any) -> None:
        done.append(1)

    signal.signal(signal.SIGUSR1, begin)
    print("prepared", flush=True)
    while not done:
        signal.pause()
    written, ended = 0, ""
    try:
        while written < 64 << 20:
            written += held.write(b"x" * 4096)
    except OSError as error:
        ended = errno.errorcode[error.errno or 0]
    names = 0
    while names < 1000 and tried((SOCKET_DIR / "mine" / str(names)).touch) == "done":
        names += 1
    print(json.dumps({"written": written, "ended": ended, "names": names}), flush=True)
    signal.pause()


def link_socket(target: str) -> None:
    """Be a program that puts a symbolic link where its socket should be."""
    (SOCKET_DIR / "http.sock").symlink_to(target)
    print("prepared", flush=True)
    signal.pause()


# --- networks ------------------------------------------------------------------------------------


def connect(*addresses: str) -> dict[str, str]:
    """Try to open a TCP connection to each address "host port", all at once; say how it went."""
    return dict(zip(addresses, _connect_all(addresses), strict=True))


def _connect_all(addresses: tuple[str, ...]) -> list[str]:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    with ThreadPoolExecutor(min(16, len(addresses))) as pool:
        return list(pool.map(_connect, addresses))


def _connect(address: str) -> str:
    host, port = address.split(" ")
    if host.startswith("@"):
        return tried(lambda: _connect_unix("\0" + host[1:]))
    try:
        with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
            # The kernel connects; who greets is a program on a machine that may be busy.
            connection.settimeout(30 * SECONDS)
            return connection.recv(100).decode()
    except TimeoutError:
        return "timeout"
    except socket.gaierror:
        return "no such interface"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def _connect_unix(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(name)


def send_udp(*addresses: str) -> dict[str, str]:
    """Send a datagram to each address."""
    outcome = {}
    for address in addresses:
        host, port = address.split(" ")
        kind = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(kind, socket.SOCK_DGRAM) as sender:
            outcome[address] = tried(lambda h=host, p=port: sender.sendto(b"hello", (h, int(p))))
    return outcome


def listen(port: str) -> None:
    """Greet everybody who connects, on every address there is."""
    with socket.create_server(("0.0.0.0", int(port))) as server:  # noqa: S104
        print("listening", flush=True)
        while True:
            client, _ = server.accept()
            client.sendall(b"neighbour")
            client.close()


def resolve(name: str) -> str:
    """Ask for the address of a name, once and for a second."""
    os.environ["RES_OPTIONS"] = "timeout:1 attempts:1"
    try:
        return str(socket.getaddrinfo(name, 80)[0][4][0])
    except OSError as error:
        return type(error).__name__


def addresses() -> list[str]:
    """The IPv6 addresses of this network namespace."""
    try:
        return re.findall(r"^\S+", Path("/proc/net/if_inet6").read_text(), re.MULTILINE)
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])), flush=True)
