"""Plugins, changes, secrets, releases and images over the API."""

import json
import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from deploy import vault
from deploy.models import Image, Instance, InstanceEvent, LogTail
from deploy.states import Status
from tests import factories
from tests.deploy.boxes import wait_for
from tests.workspaces.api.conftest import Api, api_of, code_of
from tests.workspaces.test_plugins_page import approve
from workspaces import change_runs, changes
from workspaces.api import waiting
from workspaces.models import Activity, Approval, Change, IdempotencyKey, Release, Role, Workspace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ready")]
TREES = "/workspaces/trees"
VALUE = "tops3cret-value"


@pytest.fixture
def trees(owner: User) -> Workspace:
    return factories.make_workspace(owner, "trees")


def end(change: Change, state: str = Change.State.DONE, error: str = "") -> None:
    """Bring a change to its end in the rows, as the worker does."""
    Change.objects.filter(pk=change.pk).update(
        state=state, error=error, finished_at=timezone.now(), secrets={}, step="switch"
    )
    if state == Change.State.DONE:
        change.workspace.plugins.set(change.wanted.all())


def ask_for(api: Api, *names: str, **more: Any) -> Any:
    headers = {name: more.pop(name) for name in [*more] if name == "If_Match"}
    return api.ask("PUT", f"{TREES}/plugins", {"plugins": list(names), **more}, **headers)


# --- plugins -------------------------------------------------------------------------------------


def test_what_it_may_have_and_has(api: Api, trees: Workspace) -> None:
    needs = [{"name": "OPENCAGE_KEY", "help": "Your key", "option": "key"}]
    approve("datasette-map", needs=needs, needs_internet=True)
    old = approve("datasette-old", version="1.0")
    approve("datasette-secret", reach=Approval.Reach.GRANTED)
    trees.plugins.set([old])
    Approval.objects.filter(pk=old.pk).update(state=Approval.State.REPLACED)
    approve("datasette-old", version="2.0")
    told = api.get(f"{TREES}/plugins").json()
    assert told == {
        "items": [
            {
                "name": "datasette-map",
                "version": "1.0",
                "summary": "What datasette-map does",
                "on": False,
                "needs": [{"name": "OPENCAGE_KEY", "help": "Your key", "is_set": False}],
                "needs_internet": True,
                "newer": None,
            },
            {
                "name": "datasette-old",
                "version": "1.0",
                "summary": "What datasette-old does",
                "on": True,
                "needs": [],
                "needs_internet": False,
                "newer": "2.0",
            },
        ],
        "change": None,
    }


def test_what_runs_is_shown_also_where_nobody_may_have_it_any_more(
    api: Api, trees: Workspace
) -> None:
    gone = approve("datasette-gone")
    trees.plugins.set([gone])
    Approval.objects.filter(pk=gone.pk).update(state=Approval.State.WITHDRAWN)
    assert api.get(TREES).json()["plugins"] == ["datasette-gone"]


def test_a_set_is_asked_for_and_its_end_waited_for(api: Api, trees: Workspace) -> None:
    approve("datasette-one")
    response = ask_for(api, "datasette-one")
    assert response.status_code == 202
    change = Change.objects.get()
    path = f"{TREES}/changes/{change.pk}"
    assert response["Location"].endswith(f"/api/v1{path}")
    assert response.json()["plugins"] == []  # until it is done
    told = api.get(path).json()
    assert (told["state"], told["plugins"], told["error"]) == ("open", ["datasette-one"], None)
    assert told["finished_at"] is None
    assert api.get(f"{TREES}/plugins").json()["change"] == told
    assert code_of(api.get(f"{path}/wait?timeout=0")) == "timeout"
    end(change)
    over = api.get(f"{path}/wait?timeout=5").json()
    assert over["state"] == "done"
    assert over["finished_at"]
    assert api.get(TREES).json()["plugins"] == ["datasette-one"]
    assert api.get(f"{TREES}/changes").json()["items"] == [over]


def test_one_change_at_a_time(api: Api, trees: Workspace) -> None:
    approve("datasette-one")
    approve("datasette-two")
    assert ask_for(api, "datasette-one").status_code == 202
    refused = ask_for(api, "datasette-two")
    assert refused.status_code == 409
    assert code_of(refused) == "change_under_way"
    assert code_of(api.post(f"{TREES}/plugins/roll-back")) == "refused"
    assert Change.objects.count() == 1


def test_if_match_holds_for_what_was_switched_meanwhile(api: Api, trees: Workspace) -> None:
    approve("datasette-one")
    approve("datasette-two")
    seen = api.get(TREES)["ETag"]
    first = ask_for(api, "datasette-one", If_Match=seen)
    assert first.status_code == 202
    end(Change.objects.get())
    late = ask_for(api, "datasette-two", If_Match=seen)
    assert late.status_code == 412
    assert code_of(late) == "changed_meanwhile"
    assert Change.objects.count() == 1
    new = api.get(TREES)["ETag"]
    assert new != seen
    assert ask_for(api, "datasette-two", If_Match=f"W/{new}").status_code == 202


def test_if_match_is_asked_with_the_rows_held(trees: Workspace, owner: User) -> None:
    """Between looking and asking somebody else's change may have been made."""
    one = approve("datasette-one")
    stale = Workspace.objects.select_related("instance", "plan", "release").get(pk=trees.pk)
    seen = changes.services.version_of(stale)
    trees.plugins.set([one])
    with pytest.raises(changes.services.ChangedMeanwhile):
        changes.request(stale, owner, [], seen=seen)
    assert not Change.objects.exists()


def test_what_cannot_be_had_is_refused_in_words(api: Api, trees: Workspace) -> None:
    approve("datasette-closed", reach=Approval.Reach.GRANTED)
    approve("datasette-always", required=True)
    for name in ("datasette-closed", "datasette-always", "datasette-nothing", "a\0b", ""):
        refused = ask_for(api, name)
        assert refused.status_code in (409, 422)
        assert code_of(refused) in ("refused", "invalid")
    approve("datasette-map", needs=[{"name": "OPENCAGE_KEY"}])
    lacking = ask_for(api, "datasette-map")
    assert code_of(lacking) == "refused"
    assert "OPENCAGE_KEY" in lacking.json()["detail"]
    assert not Change.objects.exists()


def test_so_many_changes_in_an_hour(api: Api, trees: Workspace, settings: Settings) -> None:
    settings.CHANGES_PER_HOUR = 1
    approve("datasette-one")
    assert ask_for(api, "datasette-one").status_code == 202
    end(Change.objects.get())
    refused = ask_for(api)
    assert refused.status_code == 429
    assert code_of(refused) == "too_many_changes"
    assert int(refused["Retry-After"]) > 0


def test_going_back(api: Api, trees: Workspace) -> None:
    approve("datasette-one")
    assert code_of(api.post(f"{TREES}/plugins/roll-back")) == "refused"
    ask_for(api, "datasette-one")
    end(Change.objects.get())
    response = api.post(f"{TREES}/plugins/roll-back", Idempotency_Key="back")
    assert response.status_code == 202
    back = Change.objects.first()
    assert back
    assert response["Location"].endswith(f"{TREES}/changes/{back.pk}")
    assert list(back.wanted.all()) == []
    again = api.post(f"{TREES}/plugins/roll-back", Idempotency_Key="back")
    assert again["Idempotent-Replayed"] == "true"
    assert Change.objects.count() == 2


def test_a_change_that_failed_says_why_but_not_what_a_program_said(
    api: Api, trees: Workspace
) -> None:
    approve("datasette-one")
    ask_for(api, "datasette-one")
    change = Change.objects.get()
    end(change, Change.State.ROLLED_BACK, "It does not start.")
    Change.objects.update(detail="Traceback with what is in the data")
    viewer = factories.make_user()
    factories.add_member(trees, viewer, Role.VIEWER)
    response = api_of(viewer).get(f"{TREES}/changes/{change.pk}")
    assert (response.json()["state"], response.json()["error"]) == (
        "rolled back",
        "It does not start.",
    )
    assert b"Traceback" not in response.content


def test_changes_come_in_parts_and_are_of_their_workspace(
    api: Api, trees: Workspace, owner: User
) -> None:
    for _ in range(3):
        ask_for(api)
        end(Change.objects.get(state=Change.State.OPEN))
    numbers = list(Change.objects.values_list("pk", flat=True))
    first = api.get(f"{TREES}/changes?limit=2").json()
    second = api.get(f"{TREES}/changes?limit=2&cursor={first['next']}").json()
    assert [item["id"] for item in first["items"] + second["items"]] == numbers
    assert second["next"] is None
    factories.make_workspace(owner, "oaks")
    assert code_of(api.get(f"/workspaces/oaks/changes/{numbers[0]}")) == "not_found"
    assert code_of(api.get(f"/workspaces/oaks/changes/{numbers[0]}/wait")) == "not_found"
    for number in (2**63 - 1, 2**63, 0, -1, "x"):
        assert code_of(api.get(f"{TREES}/changes/{number}")) in ("not_found", "invalid")
    assert code_of(api.get(f"{TREES}/changes?cursor=abc")) == "invalid"


@pytest.mark.django_db(transaction=True)
def test_who_waits_hears_of_the_end_at_once(api: Api, trees: Workspace) -> None:
    ask_for(api)
    change = Change.objects.select_related("workspace__instance").get()

    def work() -> None:
        try:
            wait_for(lambda: waiting._waiting, "somebody to wait")
            change_runs._finish(change, Change.State.FAILED, "It does not fit.")
        finally:
            connection.close()

    worker = threading.Thread(target=work)
    worker.start()
    began = timezone.now()
    told = api.get(f"{TREES}/changes/{change.pk}/wait?timeout=120").json()
    worker.join()
    assert (told["state"], told["error"]) == ("failed", "It does not fit.")
    assert (timezone.now() - began).total_seconds() < 60


# --- secrets -------------------------------------------------------------------------------------


@pytest.fixture
def written(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def test_a_secret_goes_in_and_never_comes_out(
    api: Api, trees: Workspace, written: pytest.LogCaptureFixture
) -> None:
    approval = approve("datasette-map", needs=[{"name": "OPENCAGE_KEY"}])
    trees.plugins.set([approval])
    before = trees.instance.generation
    answers = [api.ask("PUT", f"{TREES}/secrets/OPENCAGE_KEY", {"value": VALUE})]
    assert answers[0].status_code == 202
    instance = Instance.objects.get()
    # The container is replaced by one that has it.
    assert instance.generation == before + 1
    assert vault.open_all(instance.secrets) == {"OPENCAGE_KEY": VALUE}
    LogTail.objects.create(
        instance=instance,
        text=vault.redacted(f"2026 hello {VALUE}", instance.secrets),
        fetched_at=timezone.now() + timedelta(hours=1),
    )
    listed = api.get(f"{TREES}/secrets")
    assert listed.json()["items"] == [{"name": "OPENCAGE_KEY", "used_by": ["datasette-map"]}]
    paths = ("", "/plugins", "/changes", "/events", "/logs", "/members")
    answers += [listed, *(api.get(TREES + path) for path in paths)]
    assert {answer.status_code for answer in answers} == {200, 202}
    assert all(VALUE.encode() not in answer.content for answer in answers)
    assert [str(deed) for deed in Activity.objects.all()] == ["set_secret OPENCAGE_KEY"]
    for model in (Activity, InstanceEvent, Instance, Change, IdempotencyKey, LogTail):
        assert VALUE not in str(model._default_manager.values())
    assert VALUE not in written.text


def test_secrets_that_come_with_a_change(
    api: Api, trees: Workspace, written: pytest.LogCaptureFixture
) -> None:
    approve("datasette-map", needs=[{"name": "OPENCAGE_KEY"}])
    response = ask_for(api, "datasette-map", secrets={"OPENCAGE_KEY": VALUE})
    assert response.status_code == 202
    change = Change.objects.get()
    assert vault.open_all(change.secrets) == {"OPENCAGE_KEY": VALUE}
    assert VALUE not in str(Change.objects.values())
    answers = [response, api.get(f"{TREES}/changes"), api.get(f"{TREES}/changes/{change.pk}")]
    assert all(VALUE.encode() not in answer.content for answer in answers)
    assert VALUE not in written.text


def test_a_change_writes_no_secret_but_those_that_it_needs(api: Api, trees: Workspace) -> None:
    approve("datasette-one")
    approve("datasette-map", needs=[{"name": "OPENCAGE_KEY"}])
    Instance.objects.update(secrets={"KEPT_KEY": vault.seal("mine")})
    for names in ([], ["datasette-one"], ["datasette-map"]):
        given = {"OPENCAGE_KEY": "x", "KEPT_KEY": "evil"} if names else {"OPENCAGE_KEY": "x"}
        refused = ask_for(api, *names, secrets=given)
        assert code_of(refused) == "invalid"
        assert refused.json()["errors"][0]["field"] == "body.secrets"
    full = {f"KEY_{number}": vault.seal("x") for number in range(changes.MAX_SECRETS)}
    Instance.objects.update(secrets=full)
    assert code_of(ask_for(api, "datasette-map", secrets={"OPENCAGE_KEY": "x"})) == "refused"
    assert not Change.objects.exists()


def test_secrets_that_come_with_a_change_need_their_scope(owner: User, trees: Workspace) -> None:
    approve("datasette-map", needs=[{"name": "OPENCAGE_KEY"}])
    given = {"OPENCAGE_KEY": VALUE}
    refused = ask_for(api_of(owner, "plugins"), "datasette-map", secrets=given)
    assert code_of(refused) == "scope_missing"
    assert not Change.objects.exists()
    both = api_of(owner, "plugins", "secrets")
    assert ask_for(both, "datasette-map", secrets=given).status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        {"value": ""},
        {"value": f"{VALUE}\0"},
        {"value": VALUE * 2000},
        {"value": [VALUE]},
        {"value": {VALUE: VALUE}},
        {"value": None},
        {VALUE: VALUE},
        {},
        {"value": VALUE, "more": VALUE},
    ],
)
def test_a_refusal_does_not_repeat_the_value(api: Api, trees: Workspace, body: Any) -> None:
    response = api.ask("PUT", f"{TREES}/secrets/A_KEY", body)
    assert response.status_code == 422
    assert code_of(response) == "invalid"
    if VALUE not in body:  # a name is no value
        assert VALUE.encode() not in response.content
    assert Instance.objects.get().secrets == {}
    bad = ask_for(api, secrets={"A_KEY": body.get("value"), "PATH": VALUE})
    assert bad.status_code == 422
    assert VALUE.encode() not in bad.content.replace(json.dumps(VALUE).encode() + b".[key]", b"")


@pytest.mark.parametrize("name", ["PATH", "a", "1A", "A" * 65, "A-B", "INSTANCE_ID", "A%00"])
def test_names_that_no_secret_may_have(api: Api, trees: Workspace, name: str) -> None:
    response = api.ask("PUT", f"{TREES}/secrets/{name}", {"value": VALUE})
    assert response.status_code in (404, 422)
    assert code_of(response) in ("invalid", "not_found")
    assert VALUE.encode() not in response.content
    assert not Activity.objects.exists()


def test_a_secret_is_forgotten(api: Api, trees: Workspace) -> None:
    api.ask("PUT", f"{TREES}/secrets/A_KEY", {"value": VALUE})
    generation = Instance.objects.get().generation
    assert api.ask("DELETE", f"{TREES}/secrets/A_KEY").status_code == 204
    instance = Instance.objects.get()
    assert (instance.secrets, instance.generation) == ({}, generation)
    assert code_of(api.ask("DELETE", f"{TREES}/secrets/A_KEY")) == "not_found"
    verbs = list(Activity.objects.values_list("verb", flat=True))
    assert verbs == ["set_secret", "removed_secret"]


def test_so_many_secrets_and_no_more(api: Api, trees: Workspace) -> None:
    full = {f"KEY_{number}": vault.seal("x") for number in range(changes.MAX_SECRETS)}
    Instance.objects.update(secrets=full)
    assert code_of(api.ask("PUT", f"{TREES}/secrets/MORE", {"value": "x"})) == "refused"
    assert api.ask("PUT", f"{TREES}/secrets/KEY_0", {"value": "x"}).status_code == 202
    assert len(api.get(f"{TREES}/secrets").json()["items"]) == changes.MAX_SECRETS


def test_deleted_ones_take_no_secrets(api: Api, owner: User) -> None:
    factories.make_workspace(owner, "trees", status=Status.DELETING)
    assert code_of(api.ask("PUT", f"{TREES}/secrets/A_KEY", {"value": "x"})) == "deleted"
    assert code_of(api.ask("DELETE", f"{TREES}/secrets/A_KEY")) == "deleted"
    assert code_of(ask_for(api)) == "deleted"


# --- releases and images -------------------------------------------------------------------------


def test_releases_on_offer(api: Api) -> None:
    Release.objects.create(version="1.0a41", lock="", prerelease=True)
    Release.objects.create(version="0.1", lock="", offered=False)
    assert api.get("/releases").json()["items"] == [
        {"version": "0.65.5", "is_default": True, "prerelease": False},
        {"version": "1.0a41", "is_default": False, "prerelease": True},
    ]


def test_images_are_those_of_your_own_workspaces(api: Api, trees: Workspace) -> None:
    Image.objects.filter(pk=trees.instance.image_id).update(
        inputs={"packages": {"datasette": "0.65.5"}, "secret": VALUE}
    )
    other = factories.make_image()
    told = api.get("/images").json()["items"]
    assert [image["packages"] for image in told] == [{"datasette": "0.65.5"}]
    assert told[0]["state"] == "ready"
    assert VALUE not in str(told)
    olga = factories.make_user(is_staff=True, is_superuser=True)
    all_of_them = api_of(olga, "operator").get("/images").json()["items"]
    assert other.digest in {image["digest"] for image in all_of_them}
    assert len(all_of_them) == Image.objects.count()
