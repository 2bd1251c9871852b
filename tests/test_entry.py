"""What production runs: the processes of `make run`, and what an operator adds to them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloudapp.local.entry import command_for
from cloudapp.local.processes import WORKERS

PROJECT = Path(__file__).parent.parent


def test_the_sockets_are_where_the_settings_say() -> None:
    environment = {"RUN_DIR": "/run/x", "WEB_LISTEN": "unix:/run/x/web/web.sock"}
    assert "unix:/run/x/web/web.sock" in command_for(["web"], environment)
    assert "unix:/run/x/waiting.sock" in command_for(["waiting"], environment)
    assert "web" not in command_for(["migrate"], environment)


@pytest.mark.parametrize(
    ("process", "flag"), [("web", "--workers"), *((name, "--concurrency") for name in WORKERS)]
)
def test_what_an_operator_adds_comes_last(process: str, flag: str) -> None:
    command = command_for([process, flag, "7"], {})
    assert command[:-2] == command_for([process], {})
    assert command[-2:] == [flag, "7"]


def test_beat_makes_its_directory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cloudapp.local.entry", "beat", "--help"],
        cwd=PROJECT,
        env={**os.environ, "STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--schedule" in done.stdout
    assert (tmp_path / "beat").is_dir()
