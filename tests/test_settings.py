"""With DEBUG off, nothing starts on unsafe settings, and it is said which."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
STRONG = "0123456789abcdefghijklmnopqrstuvwxyzABCDEF"

PRODUCTION = {
    "SECRET_KEY": STRONG,
    "ROUTER_SECRET": STRONG[::-1],
    "CLOUD_URL": "https://cloud.example.com",
    "APPS_DOMAIN": "example-apps.net",
    "PATH": os.environ["PATH"],
}


def start(*, show: str = "", **changes: str | None) -> subprocess.CompletedProcess[str]:
    """Import the settings in a process of its own, as every process of the product does."""
    environment = {**PRODUCTION, **changes}
    return subprocess.run(
        [sys.executable, "-c", f"import cloudapp.settings as s; print({show})"],
        cwd=PROJECT,
        env={name: value for name, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
    )


def test_production_settings_start() -> None:
    done = start()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"SECRET_KEY": None}, "SECRET_KEY is missing"),
        ({"SECRET_KEY": "short"}, "SECRET_KEY is too weak"),
        ({"SECRET_KEY": "a" * 50}, "SECRET_KEY is too weak"),
        ({"SECRET_KEY": f"django-insecure-{STRONG}"}, "SECRET_KEY is too weak"),
        ({"ROUTER_SECRET": None}, "ROUTER_SECRET is missing"),
        ({"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS lets any host in"),
        ({"SESSION_COOKIE_SECURE": "0"}, "SESSION_COOKIE_SECURE is off"),
        ({"CSRF_COOKIE_SECURE": "0"}, "CSRF_COOKIE_SECURE is off"),
        ({"CLOUD_URL": "http://cloud.example.com"}, "CLOUD_URL is not https"),
        ({"GOOGLE_ISSUER_URL": "http://id.example.com"}, "GOOGLE_ISSUER_URL is not https"),
        ({"APPS_DOMAIN": "apps.example.com"}, "on the same site"),
        ({"ENDPOINT_KIND": "carrier-pigeon"}, "ENDPOINT_KIND must be unix or tcp"),
        ({"LOCAL": "1"}, "is not a localhost name"),
    ],
)
def test_unsafe_settings_are_refused_by_name(changes: dict[str, str | None], words: str) -> None:
    done = start(**changes)
    assert done.returncode != 0
    assert words in done.stderr
    assert STRONG not in done.stderr, "a secret reached the log"


def test_every_problem_is_named_at_once() -> None:
    done = start(SECRET_KEY=None, ROUTER_SECRET=None, ALLOWED_HOSTS="*")
    for name in ("SECRET_KEY", "ROUTER_SECRET", "ALLOWED_HOSTS"):
        assert name in done.stderr


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(STRONG + "\n")
    assert start(SECRET_KEY=None, SECRET_KEY_FILE=str(secret)).returncode == 0


def test_local_lets_plain_http_on_localhost_names_only() -> None:
    local = {"LOCAL": "1", "CLOUD_URL": "http://localhost:8000", "APPS_DOMAIN": "localhost:8000"}
    assert start(**local).returncode == 0
    assert start(**local | {"CLOUD_URL": "http://cloud.example.com"}).returncode != 0
    assert start(**local | {"LOCAL": None}).returncode != 0


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (None, [STRONG]),
        ("", [STRONG]),
        (" , ,", [STRONG]),
        (" new , old ,", ["new", "old"]),
    ],
)
def test_no_key_that_everybody_knows_encrypts(keys: str | None, expected: list[str]) -> None:
    done = start(show="s.ENCRYPTION_KEYS", ENCRYPTION_KEYS=keys)
    assert done.stdout.strip() == str(expected)


def test_no_static_file_stands_in_the_way_of_another() -> None:
    """collectstatic would tell whoever upgrades to do something about it."""
    done = subprocess.run(
        [sys.executable, "manage.py", "collectstatic", "--no-input", "--dry-run"],
        cwd=PROJECT,
        env=PRODUCTION,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "another file" not in done.stdout
    assert "vendor/htmx" in done.stdout
