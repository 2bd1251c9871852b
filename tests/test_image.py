"""The control plane's image: built without a network, not root, and safe to deploy."""

import secrets
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from django.conf import settings

from cloudapp.local.control_image import build, lock_for
from cloudapp.local.places import PROJECT
from deploy.engines import get_builder

REFERENCE = f"cloudapp:{settings.NAMESPACE}"
# What a deployment mounts there; everything else of the image is read-only.
SCRATCH = {"/tmp": "", "/run/cloudapp": "uid=10100", "/var/lib/cloudapp": "uid=10100"}
PRODUCTION = {
    "SECRET_KEY": secrets.token_urlsafe(48),
    "ROUTER_SECRET": secrets.token_urlsafe(48),
    "CLOUD_URL": "https://cloud.example.com",
    "APPS_DOMAIN": "workspaces.example.net",
}


@pytest.fixture(scope="module")
def client() -> Iterator[docker.APIClient]:
    one = docker.APIClient(settings.DOCKER_HOST, version="auto", timeout=300)
    yield one
    one.close()


@pytest.fixture(scope="module")
def image(client: docker.APIClient) -> Iterator[str]:
    build(get_builder(), REFERENCE)
    yield REFERENCE
    client.remove_image(REFERENCE, force=True)


def run(
    client: docker.APIClient,
    image: str,
    *command: str,
    environment: dict[str, str] | None = None,
    **options: Any,
) -> tuple[int, str]:
    """Run the image to its end, without a network; return exit code and output."""
    container = client.create_container(
        image,
        list(command),
        environment=environment,
        labels={"cloudapp.namespace": settings.NAMESPACE},
        host_config=client.create_host_config(
            network_mode="none", read_only=True, tmpfs=SCRATCH, cap_drop=["ALL"]
        ),
        **options,
    )
    try:
        client.start(container)
        code = client.wait(container, timeout=240)["StatusCode"]
        return code, client.logs(container).decode()
    finally:
        client.remove_container(container, force=True)


def test_it_passes_the_deployment_checks(client: docker.APIClient, image: str) -> None:
    code, output = run(
        client, image, "check", "--deploy", "--fail-level", "WARNING", environment=PRODUCTION
    )
    assert code == 0, output
    assert "no issues" in output


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY is missing"),
        ({"SECRET_KEY": "short"}, "SECRET_KEY is too weak"),
        ({"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS"),
        ({"SESSION_COOKIE_SECURE": "0"}, "SESSION_COOKIE_SECURE"),
        ({"APPS_DOMAIN": "apps.example.com"}, "APPS_DOMAIN"),
    ],
)
def test_it_refuses_to_start_unsafely_and_says_why(
    client: docker.APIClient, image: str, change: dict[str, str], word: str
) -> None:
    code, output = run(client, image, "web", environment={**PRODUCTION, **change})
    assert code != 0
    assert word in output


def test_it_is_not_root_and_holds_no_secrets(client: docker.APIClient, image: str) -> None:
    inspected = client.inspect_image(image)["Config"]
    assert inspected["User"] == "10100:10100"
    assert not any("SECRET" in variable for variable in inspected["Env"])
    code, output = run(client, image, "-c", "id -u; ls /app", entrypoint="sh")
    assert code == 0
    uid, *names = output.split()
    assert uid == "10100"
    assert {"manage.py", "cloudapp", "accounts", "deploy", "workspaces", "staticfiles"} <= {*names}
    assert not {"tests", "var", ".git", ".venv"} & {*names}


def test_static_files_are_collected(client: docker.APIClient, image: str) -> None:
    code, output = run(client, image, "-c", "ls /app/staticfiles", entrypoint="sh")
    assert code == 0
    assert "staticfiles.json" in output


def test_on_a_bare_machine_it_says_exactly_what_is_missing(
    client: docker.APIClient, image: str
) -> None:
    """The image is Debian without our packages, and its user may not install any."""
    code, output = run(client, image, "-m", "cloudapp.local", "run", entrypoint="python")
    assert code == 1
    assert "apt-get update && apt-get install" in output
    for package in ("nginx-light", "postgresql", "redis-server", "docker.io", "debootstrap"):
        assert package in output
    assert "Traceback" not in output


def test_the_lock_is_cut_down_to_the_image_s_system() -> None:
    lock = (PROJECT / "requirements.txt").read_text()
    cut = lock_for("x86_64", lock)
    names = {line.split("==")[0] for line in cut.splitlines() if "==" in line}
    assert {"django", "celery", "psycopg-binary", "cffi"} <= names
    assert not {"colorama", "pywin32", "async-timeout"} & names
    assert cut.count("--hash=sha256:") > len(names)
    assert ";" not in cut
