"""What all tests share: real Postgres, a real engine in a namespace of its own, real images.

`make test` provides the services and says in the environment where they are. Whatever the tests
make on the engine carries the run's namespace, and is removed at the end, also after a failure.
"""

import json
import os
import secrets
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import docker
import pytest
from django.conf import settings
from django.core.servers.basehttp import WSGIRequestHandler
from django.db import connection
from django.test.utils import setup_databases, teardown_databases
from pytest_django import DjangoDbBlocker

from cloudapp.local.engine_api import NAMESPACE_LABEL, EngineApi
from deploy import mounts, trace
from deploy.engines import firewall, get_engine
from deploy.engines.base import Engine
from deploy.images import default_lock
from tests.browser import browser, new_page, page
from tests.database import part_all_connections
from tests.deploy.workspace_support import built_image
from tests.shelf import shelf

# Here and nowhere else: each conftest that imports them would start a browser of its own.
__all__ = ["browser", "new_page", "page", "shelf"]

NEEDED = ("SECRET_KEY", "ROUTER_SECRET", "DATABASE_URL", "REDIS_URL", "RUN_DIR", "STATE_DIR")
NAMESPACE_PREFIX = "cloudapp-test-"
LOG_LINES = 40

# The live server writes each answer in pieces: on a kept connection, the kernel would hold the
# second one back for 40 ms (Nagle's algorithm).
WSGIRequestHandler.disable_nagle_algorithm = True


def pytest_sessionstart() -> None:
    """Refuse to begin on somebody's real services, and keep to a namespace of our own."""
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        pytest.exit(f"not set: {', '.join(missing)}. `make test` sets up what the tests need.", 4)
    if not settings.NAMESPACE.startswith(NAMESPACE_PREFIX):
        settings.NAMESPACE = f"{NAMESPACE_PREFIX}{secrets.token_hex(4)}"
    # Every new test client makes the middleware anew, and WhiteNoise would look at each static file
    # each time: half of all the time that the API's tests took.
    settings.WHITENOISE_AUTOREFRESH = True
    # Processes that tests start read the environment.
    os.environ["NAMESPACE"] = settings.NAMESPACE


def pytest_sessionfinish() -> None:
    """Leave nothing behind, whatever happened."""
    if settings.configured and settings.NAMESPACE.startswith(NAMESPACE_PREFIX):
        clean_up(settings.NAMESPACE)
        mounts.unmount_below(Path(settings.RUN_DIR) / "instances")
        shutil.rmtree(Path(settings.RUN_DIR) / "instances", ignore_errors=True)


def clean_up(namespace: str) -> None:
    """Remove what the engine and the host hold of one namespace."""
    try:
        EngineApi(settings.DOCKER_HOST).remove_namespace(namespace)
    except OSError as error:
        print(f"nothing could be removed from the engine: {error}")
    if os.geteuid() == 0:
        for reach in firewall.Reach:
            firewall.remove(firewall.interface(namespace, reach))


# --- a failure shows what the engine says --------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add logs and inspect output of our containers to the report of a test that failed."""
    report = yield
    used = getattr(item, "fixturenames", ())
    if report.failed and "engine" in used:
        report.sections += [(f"container {name}", text) for name, text in containers_report()]
    return report


def containers_report() -> list[tuple[str, str]]:
    """Return the name of each of our containers, and what there is to know of it."""
    try:
        client = docker.APIClient(settings.DOCKER_HOST, version="auto", timeout=60)
        listed = client.containers(all=True, filters={"label": NAMESPACE_LABEL})
        ours = [c for c in listed if c["Labels"][NAMESPACE_LABEL].startswith(settings.NAMESPACE)]
        return [_container_report(client, container["Id"]) for container in ours]
    except (docker.errors.DockerException, OSError) as error:
        return [("?", f"the engine does not say: {error}")]


def _container_report(client: docker.APIClient, container: str) -> tuple[str, str]:
    inspected = client.inspect_container(container)
    told = {name: inspected[name] for name in ("State", "HostConfig", "Mounts", "NetworkSettings")}
    log = client.logs(container, tail=LOG_LINES).decode(errors="replace")
    return inspected["Name"], f"{log}\n{json.dumps(told)}"


# --- services ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None,
    django_db_modify_db_settings: None,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[None]:
    """The test database, for whoever asks.

    pytest-django's own makes it only where some test of the selection has its mark, and with the
    mark come a transaction or a flush for each test. Tests with real transactions empty all tables:
    as the owner, and in this database only, we let them; UPDATE and DELETE of the audit log stay
    refused.
    """
    with django_db_blocker.unblock():
        made = setup_databases(
            verbosity=0, interactive=False, aliases={"default"}, serialized_aliases=set()
        )
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE accounts_auditentry DISABLE TRIGGER append_only_truncate")
    yield
    with django_db_blocker.unblock():
        part_all_connections()
        teardown_databases(made, verbosity=0)


@pytest.fixture(autouse=True)
def no_request() -> Iterator[None]:
    """What a test's deeds belong to, outside of any request, the next test's do not."""
    with trace.within():
        yield


@pytest.fixture
def without_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis does not answer those who look into the queues: nobody listens at its address."""
    monkeypatch.setenv("CELERY_BROKER_READ_URL", "redis://127.0.0.1:1/0")


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The engine that the settings name, with our namespace."""
    return get_engine()


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.APIClient]:
    """The same engine, without anything of ours in between."""
    client = docker.APIClient(settings.DOCKER_HOST, version="auto", timeout=60)
    yield client
    client.close()


@pytest.fixture(scope="session")
def workspace_image(engine: Engine) -> str:
    """The reference of the default workspace image, built and tried out when there is none."""
    return built_image(default_lock())
