"""The plugins page: what is offered to whom, what is refused in which words, how a change goes."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from accounts.models import User
from deploy import lifecycle, locks, vault
from deploy.locks import Pin
from tests import factories
from tests.workspaces.html import Page
from workspaces import access, changes, sets
from workspaces.models import Approval, Change, Grant, Plugin, Role, Step, Workspace
from workspaces.plugin_views import steps_of

pytestmark = pytest.mark.django_db

Approve = Callable[..., Approval]
ADDRESS = "/workspaces/trees/plugins/"
SECRET = "s3cret-value-nobody-may-see"


def pin(name: str, version: str = "1.0") -> Pin:
    return Pin(name, version, (hashlib.sha256(f"{name}{version}".encode()).hexdigest(),))


@pytest.fixture
def workspace(owner: User) -> Workspace:
    return factories.make_workspace(owner, "trees")


def approve(name: str, *pins: Pin, **terms: Any) -> Approval:
    """An approval that is locked and active."""
    plugin, _ = Plugin.objects.get_or_create(
        name=name, defaults={"state": Plugin.State.KNOWN, "summary": f"What {name} does"}
    )
    terms = {"reach": Approval.Reach.EVERYONE, "version": "1.0", **terms}
    return Approval.objects.create(
        plugin=plugin,
        release=factories.make_release(),
        state=Approval.State.ACTIVE,
        lock=locks.text_of([pin(name, terms["version"]), *pins]),
        **terms,
    )


def post(client: Client, *names: str, **fields: str) -> Any:
    return client.post(f"{ADDRESS}apply/", {"plugin": list(names), **fields})


def offered(client: Client, address: str = ADDRESS) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


# --- what is offered -----------------------------------------------------------------------------


def test_what_is_for_everyone_or_granted_is_offered_and_nothing_else(
    client_of_owner: Client, workspace: Workspace, owner: User
) -> None:
    approve("datasette-open")
    closed = approve("datasette-closed", reach=Approval.Reach.GRANTED)
    factories.make_workspace(owner, "birds")
    assert "datasette-open" in offered(client_of_owner)
    assert "datasette-closed" not in offered(client_of_owner)
    Grant.objects.create(plugin=closed.plugin, workspace=workspace)
    assert "datasette-closed" in offered(client_of_owner)
    assert "datasette-closed" not in offered(client_of_owner, "/workspaces/birds/plugins/")


@pytest.mark.parametrize(
    "state", [s for s in Approval.State if s is not Approval.State.ACTIVE], ids=str
)
def test_what_does_not_count_is_not_offered(
    client_of_owner: Client, workspace: Workspace, state: Approval.State
) -> None:
    Approval.objects.filter(pk=approve("datasette-open").pk).update(state=state)
    assert "datasette-open" not in offered(client_of_owner)


def test_what_is_required_is_on_and_no_choice(
    client_of_owner: Client, workspace: Workspace
) -> None:
    approve("datasette-always", required=True)
    page = offered(client_of_owner)
    assert "Always on" in page
    assert 'value="datasette-always"' not in page
    assert post(client_of_owner, "datasette-always").status_code == 422


def test_a_name_that_no_secret_may_have_keeps_nobody_from_the_others(
    client_of_owner: Client, workspace: Workspace
) -> None:
    approve("datasette-bad", needs=[{"name": "HTTPS_PROXY"}])  # from before there was one rule
    approve("datasette-open")
    assert post(client_of_owner, "datasette-open").status_code == 302


def test_without_anything_the_page_says_who_decides(
    client_of_owner: Client, workspace: Workspace
) -> None:
    page = offered(client_of_owner)
    assert "The operators decide" in page
    assert 'id="do-apply"' not in page


def test_viewers_see_it_and_cannot_change_it(workspace: Workspace) -> None:
    approve("datasette-open")
    viewer = factories.make_user()
    factories.add_member(workspace, viewer, Role.VIEWER)
    client = Client()
    client.force_login(viewer)
    page = offered(client)
    assert "datasette-open" in page
    assert 'id="do-apply"' not in page
    assert post(client, "datasette-open").status_code == 403
    assert not Change.objects.exists()


# --- asking --------------------------------------------------------------------------------------


def test_several_at_once_make_one_change(client_of_owner: Client, workspace: Workspace) -> None:
    one, two = approve("datasette-one"), approve("datasette-two")
    response = post(client_of_owner, "datasette-one", "datasette-two")
    assert (response.status_code, response["Location"]) == (302, ADDRESS)
    change = Change.objects.get()
    assert set(change.wanted.all()) == {one, two}
    assert (change.state, change.old_image_id) == (Change.State.OPEN, workspace.instance.image_id)
    page = offered(client_of_owner)
    assert "Being changed" in page
    assert [line.state for line in steps_of(change)] == ["now", "todo", "todo", "todo", "todo"]


def test_one_change_at_a_time(client_of_owner: Client, workspace: Workspace) -> None:
    approve("datasette-one")
    post(client_of_owner, "datasette-one")
    refused = post(client_of_owner)
    assert refused.status_code == 422
    assert "Another change is under way" in refused.content.decode()
    assert Change.objects.count() == 1


def test_nobody_takes_all_the_turns(
    client_of_owner: Client, workspace: Workspace, owner: User, settings: Settings
) -> None:
    settings.CHANGES_PER_HOUR = 2
    approve("datasette-one")
    for _ in range(2):
        finished(workspace, Change.State.FAILED)
    refused = post(client_of_owner, "datasette-one")
    assert refused.status_code == 422
    assert "2 changes in an hour" in refused.content.decode()
    other = factories.make_workspace(owner, "birds")
    assert changes.request(other, owner, ["datasette-one"])
    operator = factories.make_user(is_staff=True)
    change = changes.request(workspace, operator, ["datasette-one"])
    Change.objects.update(state=Change.State.FAILED, at=change.at - timedelta(hours=1))
    assert post(client_of_owner, "datasette-one").status_code == 302


@pytest.mark.parametrize("name", ["datasette-closed", "datasette-unknown", "../etc", ""])
def test_what_is_not_offered_is_refused(
    client_of_owner: Client, workspace: Workspace, name: str
) -> None:
    approve("datasette-closed", reach=Approval.Reach.GRANTED)
    response = post(client_of_owner, name)
    assert response.status_code == 422
    assert "may not use" in response.content.decode()
    assert not Change.objects.exists()


def test_a_conflict_names_both_plugins_and_the_package(
    client_of_owner: Client, workspace: Workspace
) -> None:
    approve("datasette-one", pin("shared-thing", "1.0"))
    approve("datasette-two", pin("shared-thing", "2.0"))
    response = post(client_of_owner, "datasette-one", "datasette-two")
    words = response.content.decode()
    assert response.status_code == 422
    for said in ("datasette-one needs shared-thing 1.0", "datasette-two needs shared-thing 2.0"):
        assert said in words
    # What was ticked stays ticked.
    boxes = [box for box in Page(words).all("input") if box.get("type") == "checkbox"]
    assert [box.get("value") for box in boxes if "checked" in box.attributes] == [
        "datasette-one",
        "datasette-two",
    ]
    assert not Change.objects.exists()


def test_a_deleted_workspace_takes_no_change(
    client_of_owner: Client, workspace: Workspace, owner: User
) -> None:
    approve("datasette-one")
    lifecycle.want_absent(workspace.instance_id, workspace.created_at)
    Workspace.objects.update(deleted_at=workspace.created_at)
    assert "This workspace is deleted" in post(client_of_owner, "datasette-one").content.decode()


# --- secrets -------------------------------------------------------------------------------------


NEEDS = [{"name": "MAP_KEY", "help": "From your map provider.", "option": "key"}]


def test_what_a_plugin_needs_is_asked_for_kept_sealed_and_never_shown(
    client_of_owner: Client, workspace: Workspace
) -> None:
    approval = approve("datasette-one", needs=NEEDS)
    assert "From your map provider." in offered(client_of_owner)
    refused = post(client_of_owner, "datasette-one")
    assert "Still needed: MAP_KEY" in refused.content.decode()
    assert post(client_of_owner, "datasette-one", **{"secret-MAP_KEY": SECRET}).status_code == 302
    kept = Change.objects.get().secrets
    assert SECRET not in str(kept)
    assert vault.open_all(kept) == {"MAP_KEY": SECRET}
    assert SECRET not in offered(client_of_owner)
    spec = sets.spec_of(workspace, workspace.release, [approval])
    assert spec.plugin_settings == {"datasette-one": {"key": {"$env": "MAP_KEY"}}}


def test_a_secret_that_nothing_needs_is_not_kept(
    client_of_owner: Client, workspace: Workspace
) -> None:
    approve("datasette-one", needs=NEEDS)
    post(client_of_owner, **{"secret-INSTANCE_KEY": SECRET, "secret-PATH": SECRET})
    assert Change.objects.get().secrets == {}


def test_what_a_refused_form_did_not_keep_is_not_said_to_be_kept(
    client_of_owner: Client, workspace: Workspace
) -> None:
    approve("datasette-one", needs=NEEDS)
    changes.request(workspace, None, [])
    refused = post(client_of_owner, "datasette-one", **{"secret-MAP_KEY": SECRET})
    assert refused.status_code == 422
    assert "Kept. Type to replace it." not in refused.content.decode()


def test_an_empty_field_leaves_a_secret_as_it_is_and_forget_forgets_it(
    client_of_owner: Client, workspace: Workspace
) -> None:
    approve("datasette-one", needs=NEEDS)
    lifecycle.set_secrets(workspace.instance_id, changes.sealed({"MAP_KEY": SECRET}))
    assert post(client_of_owner, "datasette-one", **{"secret-MAP_KEY": ""}).status_code == 302
    workspace.instance.refresh_from_db()
    assert vault.open_all(workspace.instance.secrets) == {"MAP_KEY": SECRET}
    client_of_owner.post(f"{ADDRESS}forget/", {"name": "MAP_KEY"})
    workspace.instance.refresh_from_db()
    assert workspace.instance.secrets == {}


# --- how it went ---------------------------------------------------------------------------------


def finished(workspace: Workspace, state: Change.State, error: str = "") -> Change:
    change = changes.request(workspace, None, ["datasette-one"])
    Change.objects.filter(pk=change.pk).update(
        state=state, error=error, step=Step.SWITCH, finished_at=change.at
    )
    change.refresh_from_db()
    return change


@pytest.mark.parametrize("state", [Change.State.FAILED, Change.State.ROLLED_BACK], ids=str)
def test_what_went_wrong_is_said(
    client_of_owner: Client, workspace: Workspace, state: Change.State
) -> None:
    approve("datasette-one")
    change = finished(workspace, state, "It crashed: <b>boom</b>")
    page = offered(client_of_owner)
    assert "It crashed: &lt;b&gt;boom&lt;/b&gt;" in page
    assert [line.state for line in steps_of(change)] == [*["done"] * 4, "failed"]
    assert 'id="do-roll-back"' not in page


@pytest.mark.parametrize("state", [Change.State.FAILED, Change.State.ROLLED_BACK], ids=str)
@pytest.mark.parametrize("role", list(Role), ids=str)
def test_only_who_may_read_logs_reads_what_a_program_said(
    workspace: Workspace, role: Role, state: Change.State
) -> None:
    approve("datasette-one")
    change = finished(workspace, state, "It crashed.")
    Change.objects.filter(pk=change.pk).update(detail="OwlError: <row 7>")
    member = factories.make_user()
    factories.add_member(workspace, member, role)
    client = Client()
    client.force_login(member)
    for page in (offered(client), offered(client, f"{ADDRESS}live/?seen=old")):
        assert "It crashed." in page
        shown = "OwlError: &lt;row 7&gt;" in page
        assert shown is access.is_at_least(role, access.NEEDS["read_logs"])


def test_going_back_is_one_click(client_of_owner: Client, workspace: Workspace) -> None:
    approve("datasette-one")
    assert client_of_owner.post(f"{ADDRESS}roll-back/").status_code == 302
    assert not Change.objects.exists(), "there is nothing to go back to"
    done = finished(workspace, Change.State.DONE)
    workspace.plugins.set(done.wanted.all())
    assert 'id="do-roll-back"' in offered(client_of_owner)
    client_of_owner.post(f"{ADDRESS}roll-back/")
    back = changes.open_change(workspace)
    assert back is not None
    assert not back.wanted.exists()
    assert list(back.old_plugins.all()) == list(done.wanted.all())


def test_going_back_takes_the_version_that_there_was(
    client_of_owner: Client, workspace: Workspace
) -> None:
    old = approve("datasette-one")
    workspace.plugins.set([old])
    Approval.objects.filter(pk=old.pk).update(state=Approval.State.REPLACED)
    new = approve("datasette-one", version="2.0")
    assert "2.0 comes with the next change" in offered(client_of_owner)
    change = finished(workspace, Change.State.DONE)
    workspace.plugins.set([new])
    assert list(change.wanted.all()) == [new]
    client_of_owner.post(f"{ADDRESS}roll-back/")
    back = changes.open_change(workspace)
    assert back is not None
    assert list(back.wanted.all()) == [old]
    # But not to what the operators took back.
    Change.objects.filter(pk=back.pk).update(state=Change.State.FAILED)
    Approval.objects.filter(pk=old.pk).update(state=Approval.State.WITHDRAWN)
    refused = client_of_owner.post(f"{ADDRESS}roll-back/", follow=True)
    assert "may not use datasette-one any more" in refused.content.decode()
    assert changes.open_change(workspace) is None


def test_the_live_part_answers_at_once_when_there_is_news(
    client_of_owner: Client, workspace: Workspace
) -> None:
    approve("datasette-one")
    finished(workspace, Change.State.DONE)
    response = client_of_owner.get(f"{ADDRESS}live/", {"seen": "something old"})
    assert response.status_code == 200
    assert response["HX-Refresh"] == "true"
    seen = client_of_owner.get(ADDRESS).context["mark"]
    assert client_of_owner.get(f"{ADDRESS}live/", {"seen": seen}).status_code == 204
