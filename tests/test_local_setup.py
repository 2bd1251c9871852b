"""Setting up: secrets, packages, ports, the words for what goes wrong."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cloudapp.local.packages import Purpose, missing_packages
from cloudapp.local.places import PROJECT, Places, run_dir_for
from cloudapp.local.product import Product
from cloudapp.local.run import port_from_environment
from cloudapp.local.say import Failure
from cloudapp.local.secret_files import ensure_secrets


def test_secrets_are_made_once_and_only_for_us(tmp_path: Path) -> None:
    first = ensure_secrets(tmp_path / "secrets", {})
    assert set(first) == {"SECRET_KEY_FILE", "ROUTER_SECRET_FILE"}
    values = {name: Path(path).read_text() for name, path in first.items()}
    assert len(set(values.values())) == 2
    assert all(len(value.strip()) >= 48 for value in values.values())
    assert {Path(path).stat().st_mode & 0o777 for path in first.values()} == {0o600}
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert ensure_secrets(tmp_path / "secrets", {}) == first
    assert {name: Path(path).read_text() for name, path in first.items()} == values


def test_a_given_secret_is_not_made(tmp_path: Path) -> None:
    made = ensure_secrets(tmp_path, {"SECRET_KEY": "given", "ROUTER_SECRET_FILE": "/given"})
    assert made == {}
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_missing_where_the_tests_run() -> None:
    assert missing_packages({}, purpose=Purpose.TEST) == []


def test_what_is_given_need_not_be_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("cloudapp.local.tools.SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr("cloudapp.local.packages.LUA_MODULE", tmp_path / "none.so")
    bare = missing_packages({})
    assert {"nginx-light", "debootstrap", "redis-server", "docker.io", "iptables"} <= set(bare)
    given = {"DATABASE_URL": "postgres://x", "REDIS_URL": "redis://x", "DOCKER_HOST": "tcp://x"}
    assert set(missing_packages(given)) == {"nginx-light", "libnginx-mod-http-lua", "debootstrap"}


def test_standard_library_only() -> None:
    """The commands must load on a machine that has nothing but Python."""
    script = "import cloudapp.local.__main__, sys; sys.exit('django' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], cwd=PROJECT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        product = Product(tmp_path / "state", other.getsockname()[1])
        with pytest.raises(Failure, match=r"Port .* make run PORT="):
            product.start()
    assert product.pids() == {}
    assert not (tmp_path / "state" / "secrets").exists()
    product.places.discard()


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_a_port_that_is_none(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", port)
    with pytest.raises(Failure, match="PORT"):
        port_from_environment()


def test_socket_paths_are_short_however_deep_the_project_lies(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-rather-long-name"] * 8)
    longest = run_dir_for(deep) / "instances" / ("0" * 36) / "http.sock"
    assert len(str(longest)) < 108 or os.geteuid() != 0
    assert run_dir_for(deep) != run_dir_for(tmp_path)
    assert Places.of(deep).run == run_dir_for(deep)
