"""What a worker does with a change, where no engine is needed: the ends that it must come to."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DataError, OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from accounts.models import User
from deploy import images, lifecycle, logs, vault
from deploy.images import ImageError
from deploy.models import Image, Instance
from deploy.states import Status
from tests import factories
from tests.workspaces.test_plugins_page import approve
from workspaces import catalogue, change_runs, changes, services
from workspaces.change_runs import Trouble
from workspaces.models import Approval, Change, Workspace
from workspaces.services import Refused

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

        def trouble(instance_id: object) -> Trouble | None:
            words = switching()
            return Trouble(words, "OwlError: \0boom") if words else None

        monkeypatch.setattr(change_runs, "_trouble", trouble)
        change_runs.run(change.pk, SimpleNamespace())  # type: ignore[arg-type]
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
    assert done.detail == "OwlError: boom"
    workspace.instance.refresh_from_db()
    assert workspace.instance.image_id == change.old_image_id


def test_a_build_that_says_a_nul_fails_once(
    workspace: Workspace, plugin: Approval, run: Run
) -> None:
    change = changes.request(workspace, None, ["datasette-one"])
    done = run(change, building=fail(ImageError("It said \0.")))
    assert (done.state, done.error) == (Change.State.FAILED, "It said .")


@pytest.mark.parametrize(
    ("said", "words", "detail"),
    [
        ("It does not work:\nowls\nat 1", "It does not work.", "owls\nat 1"),
        ("It does not fit.", "It does not fit.", ""),
    ],
)
@pytest.mark.usefixtures("plugin")
def test_what_a_program_said_is_kept_apart(
    workspace: Workspace, run: Run, said: str, words: str, detail: str
) -> None:
    change = changes.request(workspace, None, ["datasette-one"])
    done = run(change, building=fail(ImageError(said)))
    assert (done.error, done.detail) == (words, detail)


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


# --- what happens meanwhile ----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["withdrawn", "revoked"])
def test_what_is_taken_back_while_it_is_built_does_not_go_in(
    workspace: Workspace, run: Run, way: str
) -> None:
    closed = approve("datasette-closed", reach=Approval.Reach.GRANTED)
    catalogue.grant(closed.plugin, workspace, None)
    change = changes.request(workspace, None, ["datasette-closed"])

    def take_back() -> None:
        if way == "revoked":
            catalogue.revoke(closed.plugin, workspace)
            return
        told = catalogue.withdraw_and_rebuild(closed, None)
        assert list(told.refused) == ["trees"], "whoever withdraws it hears who is about to have it"

    done = run(change, building=take_back)
    assert done.state == Change.State.FAILED
    assert "may not use datasette-closed any more" in done.error
    workspace.instance.refresh_from_db()
    assert (workspace.instance.image_id, workspace.instance.generation) == (change.old_image_id, 1)


def test_one_deleted_while_it_is_built_is_left_alone(
    workspace: Workspace, plugin: Approval, run: Run, owner: User
) -> None:
    change = changes.request(workspace, None, ["datasette-one"])
    done = run(change, building=lambda: services.delete(workspace, owner))
    assert done.state == Change.State.FAILED
    assert "deleted meanwhile" in done.error
    workspace.instance.refresh_from_db()
    assert workspace.instance.image_id == change.old_image_id


def test_one_deleted_at_the_switch_is_brought_back_with_what_it_had(
    workspace: Workspace, plugin: Approval, run: Run, owner: User, image: Image
) -> None:
    change = changes.request(workspace, None, ["datasette-one"])

    def delete() -> str:
        assert Instance.objects.get(pk=workspace.instance_id).image_id == image.pk
        services.delete(workspace, owner)
        return ""

    done = run(change, switching=delete)
    assert done.state == Change.State.FAILED
    assert "deleted meanwhile" in done.error
    assert not workspace.plugins.exists()
    services.undelete(workspace, owner)
    workspace.refresh_from_db()
    assert workspace.instance.image_id == change.old_image_id


def test_one_brought_back_at_the_switch_is_waited_for(
    workspace: Workspace, plugin: Approval, run: Run, owner: User
) -> None:
    change = changes.request(workspace, None, ["datasette-one"])
    asked: list[str] = []

    def delete_and_bring_back() -> str:
        asked.append("")
        if len(asked) > 1:
            return "The successor did not come up."
        services.delete(workspace, owner)
        services.undelete(workspace, owner)
        return ""

    done = run(change, switching=delete_and_bring_back)
    assert (done.state, done.error) == (Change.State.ROLLED_BACK, "The successor did not come up.")
    workspace.refresh_from_db()
    assert workspace.instance.image_id == change.old_image_id


def test_what_was_withdrawn_of_a_deleted_one_goes_when_it_is_brought_back(
    workspace: Workspace, plugin: Approval, owner: User
) -> None:
    other = approve("datasette-two")
    workspace.plugins.set([plugin, other])
    services.delete(workspace, owner)
    assert not catalogue.withdraw_and_rebuild(plugin, None).begun
    client = Client()
    client.force_login(owner)
    client.post("/workspaces/trees/undelete/")
    change = changes.open_change(workspace)
    assert change is not None
    assert list(change.wanted.all()) == [other]


def test_one_brought_back_with_all_that_it_may_have_needs_no_change(
    workspace: Workspace, plugin: Approval, owner: User
) -> None:
    workspace.plugins.set([plugin])
    services.delete(workspace, owner)
    workspace.refresh_from_db()
    changes.undelete(workspace, owner)
    assert Workspace.objects.get(pk=workspace.pk).deleted_at is None
    assert changes.open_change(workspace) is None


def test_a_form_from_before_another_release_is_refused(
    workspace: Workspace, plugin: Approval
) -> None:
    newer = factories.make_release("1.0a41")
    stale = Workspace.objects.select_related("release").get(pk=workspace.pk)
    Workspace.objects.update(release=newer)
    with pytest.raises(Refused, match="Another release"):
        changes.request(stale, None, ["datasette-one"])


def test_bringing_back_holds_approvals_before_anything_else(owner: User, plugin: Approval) -> None:
    gone = factories.make_workspace(owner, status=Status.DELETING)
    gone.plugins.set([plugin])
    Approval.objects.filter(pk=plugin.pk).update(state=Approval.State.WITHDRAWN)
    with CaptureQueriesContext(connection) as captured:
        changes.undelete(gone, owner)
    held = [query["sql"] for query in captured if " FOR " in query["sql"]]
    assert 'FROM "workspaces_approval"' in held[0]
    assert changes.open_change(gone)


# --- secrets -------------------------------------------------------------------------------------


NEEDS = [{"name": "NEW_KEY", "help": ""}, {"name": "OLD_KEY", "help": ""}]
BOTH = {"NEW_KEY": "new of new", "OLD_KEY": "new of old"}


@pytest.fixture
def keyed(workspace: Workspace) -> Change:
    """A change that gives one new secret and one in the place of another."""
    lifecycle.set_secrets(workspace.instance_id, changes.sealed({"OLD_KEY": "old"}))
    workspace.instance.refresh_from_db()
    approve("datasette-keyed", needs=NEEDS)
    return changes.request(workspace, None, ["datasette-keyed"], secrets=BOTH)


def kept(workspace: Workspace) -> dict[str, str]:
    return vault.open_all(Workspace.objects.get(pk=workspace.pk).instance.secrets)


def test_new_secrets_come_with_the_switch(workspace: Workspace, keyed: Change, run: Run) -> None:
    seen: list[dict[str, str]] = []

    def look() -> str:
        seen.append(kept(workspace))
        return ""

    done = run(keyed, look, look)
    assert (seen[0], seen[-1]) == ({"OLD_KEY": "old"}, BOTH)
    assert done.state == Change.State.DONE
    assert (done.secrets, done.old_secrets) == ({}, {})


def test_rolling_back_brings_the_old_secrets_back(
    workspace: Workspace, keyed: Change, run: Run
) -> None:
    done = run(keyed, switching=lambda: "It did not come up.")
    assert done.state == Change.State.ROLLED_BACK
    assert kept(workspace) == {"OLD_KEY": "old"}
    assert (done.secrets, done.old_secrets) == ({}, {})


def test_what_is_forgotten_meanwhile_does_not_come_back(
    workspace: Workspace, keyed: Change, run: Run
) -> None:
    def forget() -> str:
        changes.remove_secret(workspace, factories.make_user(is_staff=True), "OLD_KEY")
        return "It did not come up."

    run(keyed, switching=forget)
    assert kept(workspace) == {}


def test_what_is_replaced_meanwhile_stays(
    workspace: Workspace, keyed: Change, run: Run, settings: Settings
) -> None:
    def replace() -> str:
        for name in BOTH:
            changes.set_secret(workspace, factories.make_user(is_staff=True), name, "newer")
        settings.ENCRYPTION_KEYS = ["another", *settings.ENCRYPTION_KEYS]
        call_command("rotate_secrets")
        return "It did not come up."

    assert run(keyed, switching=replace).state == Change.State.ROLLED_BACK
    assert kept(workspace) == dict.fromkeys(BOTH, "newer")


def test_what_is_set_or_forgotten_during_the_build_outdoes_the_change(
    workspace: Workspace, keyed: Change, run: Run
) -> None:
    operator = factories.make_user(is_staff=True)

    def meanwhile() -> None:
        if "OLD_KEY" in kept(workspace):  # asked for a second time to have the image for sure
            changes.remove_secret(workspace, operator, "OLD_KEY")
            changes.set_secret(workspace, operator, "NEW_KEY", "newer")

    assert run(keyed, meanwhile).state == Change.State.DONE
    assert kept(workspace) == {"NEW_KEY": "newer"}


def test_keys_are_rotated_under_a_change(
    workspace: Workspace, keyed: Change, run: Run, settings: Settings
) -> None:
    def rotate(key: str) -> str:
        settings.ENCRYPTION_KEYS = [key, *settings.ENCRYPTION_KEYS]
        call_command("rotate_secrets")
        settings.ENCRYPTION_KEYS = [key]
        return "It did not come up."

    done = run(keyed, lambda: rotate("while it is built"), lambda: rotate("while it is tried out"))
    assert done.state == Change.State.ROLLED_BACK
    assert kept(workspace) == {"OLD_KEY": "old"}


# --- built anew, and given up --------------------------------------------------------------------


def test_a_rebuild_builds_what_is_there_once_more(
    workspace: Workspace, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def ensure_image(*args: object, anew: bool, **options: object) -> Image:
        asked.append(anew)
        return image

    monkeypatch.setattr(images, "ensure_image", ensure_image)
    monkeypatch.setattr(change_runs, "_trouble", lambda instance_id: None)
    generation = workspace.instance.generation
    change = changes.rebuild(workspace, None)
    change_runs.run(change.pk, SimpleNamespace())  # type: ignore[arg-type]
    # Once anew; the second time only whether nobody pruned it meanwhile.
    assert asked == [True, False]
    change.refresh_from_db()
    workspace.instance.refresh_from_db()
    assert change.state == Change.State.DONE
    assert workspace.instance.generation > generation
    assert workspace.activities.latest("id").detail == "built anew"


@pytest.mark.parametrize("when", ["building", "switching"])
def test_a_worker_that_hung_does_not_undo_that_it_was_given_up(
    workspace: Workspace, plugin: Approval, run: Run, when: str
) -> None:
    before = workspace.instance.image_id
    change = changes.request(workspace, None, ["datasette-one"])

    def give_up() -> str:
        change_runs.give_up(change.pk, "Given up.")
        return ""

    done = run(change, **{when: give_up})
    assert done.error == "Given up."
    assert done.state in (Change.State.FAILED, Change.State.ROLLED_BACK)
    workspace.instance.refresh_from_db()
    assert workspace.instance.image_id == before
    assert not workspace.plugins.exists()
    with pytest.raises(lifecycle.NotAllowed):
        change_runs.give_up(change.pk, "Again.")
