"""What a worker does with a change, where no engine is needed: the ends that it must come to."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import DataError, OperationalError

from accounts.models import User
from deploy import images, logs
from deploy.images import ImageError
from deploy.models import Image
from tests import factories
from tests.workspaces.test_plugins_page import approve
from workspaces import changes
from workspaces.models import Approval, Change, Workspace

pytestmark = pytest.mark.django_db


@pytest.fixture
def workspace(owner: User) -> Workspace:
    return factories.make_workspace(owner, "trees")


@pytest.fixture
def plugin(workspace: Workspace) -> Approval:
    return approve("datasette-one")


@pytest.fixture
def image(workspace: Workspace) -> Image:
    """The image of what is wanted."""
    return factories.make_image()


Run = Callable[..., Change]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, image: Image) -> Run:
    """Make a change; `building` and `switching` say what happens meanwhile and comes of it."""

    def run(
        change: Change,
        building: Callable[[], Any] = lambda: None,
        switching: Callable[[], str] = lambda: "",
    ) -> Change:
        def ensure_image(*args: object, **options: object) -> Image:
            building()
            return image

        monkeypatch.setattr(images, "ensure_image", ensure_image)
        monkeypatch.setattr(changes, "_trouble", lambda instance_id: switching())
        changes.run(change.pk, SimpleNamespace())  # type: ignore[arg-type]
        return Change.objects.get(pk=change.pk)

    return run


def fail(error: Exception) -> Callable[[], str]:
    def raising() -> str:
        raise error

    return raising


# --- words that no database can hold -------------------------------------------------------------


def test_a_log_with_a_nul_does_not_undo_the_roll_back(
    workspace: Workspace, plugin: Approval, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = SimpleNamespace(logs=lambda name, lines: "2026-01-01T00:00Z OwlError: a\0b")
    monkeypatch.setattr(logs, "get_engine", lambda: engine)
    assert logs.last_words(workspace.instance) == "OwlError: ab"
    change = changes.request(workspace, None, ["datasette-one"])
    done = run(change, switching=lambda: "It said \0.")
    assert (done.state, done.error) == (Change.State.ROLLED_BACK, "It said .")
    workspace.instance.refresh_from_db()
    assert workspace.instance.image_id == change.old_image_id


def test_a_build_that_says_a_nul_fails_once(
    workspace: Workspace, plugin: Approval, run: Run
) -> None:
    change = changes.request(workspace, None, ["datasette-one"])
    done = run(change, building=fail(ImageError("It said \0.")))
    assert (done.state, done.error) == (Change.State.FAILED, "It said .")


def test_only_a_database_that_is_away_has_a_change_made_again(
    workspace: Workspace, plugin: Approval, run: Run
) -> None:
    change = changes.request(workspace, None, ["datasette-one"])
    with pytest.raises(OperationalError):
        run(change, building=fail(OperationalError("it is away")))
    assert changes.open_change(workspace) == change
    done = run(change, building=fail(DataError("it cannot hold that")))
    assert done.state == Change.State.FAILED
    assert "for a reason on our side" in done.error
