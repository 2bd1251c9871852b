"""Schemathesis against a live server, from the document that it publishes, with all checks on.

Every operation of the document is taken by itself. What is found is printed with a curl command
that shows it again.
"""

import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.db.models.signals import post_save
from django.utils import timezone
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts import api_tokens
from accounts.models import ApiToken, User
from cloudapp.local.processes import bin_dir
from deploy import vault
from deploy.models import Instance, LogTail
from deploy.states import Status
from tests import factories
from tests.workspaces.api.conftest import EVERYTHING
from tests.workspaces.test_plugins_page import approve
from workspaces import changes
from workspaces.api.urls import api
from workspaces.models import Change, Member, Plan, Role, Workspace

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("ready"),
]

HOOKS = Path(__file__).parent / "fuzz_hooks.py"
SEED = 4711
EXAMPLES = 5
# More than a run needs; one that hangs is stopped.
SECONDS = 1800
CONFIG = """
seed = {seed}
continue-on-failure = true
request-timeout = 120
max-stream-events = 1
hooks = "{hooks}"

[auth.openapi.token]
bearer = "{token}"

[generation]
max-examples = {examples}
database = "none"
no-shrink = true

[checks.positive_data_acceptance]
# 408: what was waited for did not come true. 412: an If-Match of something else.
expected-statuses = ["2xx", "401", "403", "404", "408", "409", "412", "429"]
"""

# Where requests take what there is, instead of what nobody ever made.
USES = (
    *((f"path.{name}", name) for name in ("slug", "change_id", "user_id", "token_id")),
    *(("path.name", "secret"), ("body.plugins[*]", "plugin"), ("header.If-Match", "version")),
)


@pytest.fixture(autouse=True)
def generous(settings: Settings, live_server: LiveServer) -> None:
    """Nothing is too much: each limit has tests of its own."""
    settings.API_REQUESTS_PER_MINUTE = 1_000_000
    settings.API_HOLDS = settings.API_HOLDS_PER_USER = 1_000
    settings.CREATIONS_PER_HOUR = settings.CHANGES_PER_HOUR = 1_000_000
    settings.CLOUD_URL = live_server.url
    Plan.objects.update(max_workspaces=10_000)


@pytest.fixture
def customer() -> User:
    """Somebody with workspaces in every status, and all that workspaces can have."""
    customer = factories.make_user("ada@example.org", name="Ada")
    for status in Status:
        factories.make_workspace(customer, f"is-{status}", status=status)
    trees = factories.make_workspace(customer, "trees")
    factories.make_workspace(factories.make_user(), "of-somebody-else")
    for role in Role:
        factories.add_member(trees, factories.make_user(), role)
    _set_up(trees, customer)
    return customer


@pytest.fixture(autouse=True)
def fetched_logs() -> Iterator[None]:
    """There is no worker to fetch a log: each counts as fetched just now, for the whole test."""

    def fetched(instance: Instance, *, created: bool, **_: object) -> None:
        if created:
            later = timezone.now() + timedelta(hours=1)
            LogTail.objects.create(
                instance=instance, text="2026-11-27T17:00:00Z Started\n", fetched_at=later
            )

    post_save.connect(fetched, sender=Instance)
    yield
    post_save.disconnect(fetched, sender=Instance)


def _set_up(workspace: Workspace, owner: User) -> None:
    """Give it plugins, changes, secrets and history."""
    approve("datasette-open")
    running = approve("datasette-vega", needs=[{"name": "OPENCAGE_KEY", "help": "A key"}])
    workspace.plugins.add(running)
    workspace.instance.secrets = {"OPENCAGE_KEY": vault.seal("s3cret")}
    workspace.instance.save()
    failed = changes.request(workspace, owner, ["datasette-open"])
    Change.objects.filter(pk=failed.pk).update(
        state=Change.State.FAILED, error="It does not start.", finished_at=timezone.now()
    )
    changes.request(workspace, owner, ["datasette-vega"])
    factories.add_event(workspace.instance, "await_ready", duration_ms=212)


def what_there_is() -> str:
    """Return the part of the configuration that says which things requests may be about."""
    there_is = {
        "slug": [*Workspace.objects.values_list("slug", flat=True)],
        "change_id": [*Change.objects.values_list("pk", flat=True)],
        "user_id": [*Member.objects.values_list("user_id", flat=True).distinct()],
        "token_id": [*ApiToken.objects.values_list("pk", flat=True)],
        "secret": ["OPENCAGE_KEY"],
        "plugin": ["datasette-open", "datasette-vega"],
        "version": ["*"],
    }
    lists = [f"[dictionaries.{name}]\nvalues = {values}" for name, values in there_is.items()]
    uses = [f'"{where}" = {{dictionary = "{name}", probability = 0.8}}' for where, name in USES]
    return "\n".join([*lists, "[parameters]", *uses])


def find_nothing(url: str, directory: Path, user: User, *scopes: str) -> None:
    """Run it with a token of this user; fail with what it says if it finds anything."""
    token, text = api_tokens.create(user, "asks", scopes)
    another, _ = api_tokens.create(user, "may be revoked", ["read"])
    config = directory / "schemathesis.toml"
    values = CONFIG.format(seed=SEED, examples=EXAMPLES, hooks=HOOKS, token=text)
    config.write_text(f"{values}\n{what_there_is()}")
    done = subprocess.run(
        [
            *(str(bin_dir() / "st"), "--config-file", str(config), "run"),
            *(f"{url}/api/v1/openapi.json", "--url", url, "--checks", "all", "--no-color"),
        ],
        cwd=directory,
        env={
            **os.environ,
            "FUZZ_OWN_TOKEN": str(token.pk),
            "FUZZ_ANOTHER_TOKEN": str(another.pk),
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    count = sum(len(methods) for methods in api.get_openapi_schema()["paths"].values())
    assert f"Tested: {count}\n" in done.stdout, f"not all of {count} operations were tested"
    assert api_tokens.find(text), "it revoked its own token: what came after was not tested"


def test_nothing_is_found_with_a_customers_token(
    live_server: LiveServer, customer: User, tmp_path: Path
) -> None:
    find_nothing(live_server.url, tmp_path, customer, *EVERYTHING)


def test_nothing_is_found_with_an_operators_token(
    live_server: LiveServer, customer: User, tmp_path: Path
) -> None:
    operator = factories.make_user(is_staff=True, is_superuser=True)
    find_nothing(live_server.url, tmp_path, operator, "operator")
