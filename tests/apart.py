"""Tests side by side: each process of pytest-xdist has places and names of its own.

pyproject.toml has this loaded before Django reads its settings. Of what `make test` started, all
use the same engine and the same servers; a database of its own each gets from pytest-django.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

WORKER = os.environ.get("PYTEST_XDIST_WORKER")
# They build images of sets, and look for what builds leave on the engine: one after another.
SETS = ("tests/plugins/test_changes.py", "tests/e2e/")
# Then these, which take long.
LONG = (
    "tests/faults/",
    "tests/cloudctl/",
    "tests/workspaces/api/test_schemathesis.py",
    "tests/workspaces/api/test_access.py",
)


def keep_apart(environment: MutableMapping[str, str], worker: str) -> None:
    """Change the environment to that of one of xdist's processes: gw0, gw1, ..."""
    environment["NAMESPACE"] += f"-{worker}"
    environment["REDIS_URL"] = _queues(environment["REDIS_URL"], int(worker.removeprefix("gw")) + 1)
    run, state = Path(environment["RUN_DIR"], worker), Path(environment["STATE_DIR"], worker)
    run.mkdir(exist_ok=True)
    run.chmod(0o711)  # the router's workers, another user, pass through
    state.mkdir(exist_ok=True)
    if not (state / "wheels").exists():  # named by their content, so all may share them
        (state / "wheels").symlink_to(state.parent / "wheels")
    environment |= {"RUN_DIR": str(run), "STATE_DIR": str(state)}


def _queues(redis: str, number: int) -> str:
    """The URL of another database of the same Redis, as Celery spells it."""
    if redis.startswith("unix:"):
        return f"{redis}?virtual_host={number}"
    return urlsplit(redis)._replace(path=f"/{number}").geturl()


# Without RUN_DIR it is not `make test` that started this, and conftest.py refuses to begin.
if WORKER and "RUN_DIR" in os.environ:
    keep_apart(os.environ, WORKER)


# --- who runs what -------------------------------------------------------------------------------


def group_of(test: str) -> str:
    """What a test has in common with those that the same process must run: mostly its file."""
    if test.startswith("tests/cloudctl/"):  # they share a product
        return "cloudctl"
    return "sets" if test.startswith(SETS) else test.partition("::")[0]


class Groups(LoadScopeScheduling):
    """Hands out the tests of a group together, the groups in the order of their first tests.

    Written out, because --dist=loadgroup of pytest-xdist 3.8 finds no groups with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return Groups(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the groups that take longest, or one process has nothing to do in the end."""
    if WORKER:
        items.sort(
            key=lambda item: (not item.nodeid.startswith(SETS), not item.nodeid.startswith(LONG))
        )
