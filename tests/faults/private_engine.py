"""A container engine that a test may stop and kill, apart from the one that others use."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cloudapp.local.engine_api import EngineApi
from cloudapp.local.tools import find_tool
from deploy import mounts
from tests.faults.processes import Child, Process, wait_for


class PrivateEngine:
    """A dockerd in a network of its own, all in one directory. It needs root."""

    def __init__(self, directory: Path, env: Mapping[str, str]) -> None:
        self._directory = directory
        self._env = env
        self._process: Child | None = None
        self.url = f"unix://{directory}/docker.sock"
        self.log = directory / "dockerd.log"

    def start(self) -> None:
        """Have it run, also after it was killed; return when it answers."""
        if self._process and self._process.alive:
            return
        self._forget_dead_containerd()
        dockerd = find_tool("dockerd")
        assert dockerd
        command = [
            # A network of its own, so that it leaves the host's firewall alone.
            *("unshare", "--net", dockerd, "--bridge=none", "--host", self.url),
            *("--data-root", str(self._directory / "data")),
            *("--exec-root", str(self._directory / "exec")),
            *("--pidfile", str(self._directory / "docker.pid")),
        ]
        self._process = Child("dockerd", command, self._env, self.log)
        api = EngineApi(self.url)
        wait_for(lambda: api.version(timeout=2), "the private engine answers")

    def kill(self) -> None:
        """End it as a power cut of the engine alone would: its containers run on."""
        assert self._process
        self._process.kill()

    def stop(self) -> None:
        """Ask it to end, as a package update does: it stops its containers."""
        assert self._process
        self._process.stop()

    def load(self, image: str, source: str) -> None:
        """Copy an image from the engine at the URL `source`."""
        save = ["docker", "--host", source, "save", image]
        load = ["docker", "--host", self.url, "load", "--quiet"]
        with subprocess.Popen(save, stdout=subprocess.PIPE) as saving:
            subprocess.run(load, stdin=saving.stdout, stdout=subprocess.DEVNULL, check=True)
        assert saving.returncode == 0

    def close(self) -> None:
        """End it and its containers, and leave nothing behind."""
        if self._process and self._process.alive:
            self._process.stop()
        mounts.unmount_below(self._directory)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _forget_dead_containerd(self) -> None:
        """Its pid file makes the next engine wait for 15 s where nobody buries orphans."""
        pidfile = self._directory / "exec" / "containerd" / "containerd.pid"
        if pidfile.exists():
            Process("containerd", int(pidfile.read_text())).wait_dead()
            pidfile.unlink(missing_ok=True)
