"""The pages, as a browser without JavaScript has them: flows, words, and what they cost."""

import json
import logging
import threading
import time
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from cloudapp.logs import JsonFormatter
from deploy import lifecycle, notify
from deploy.models import Image, Instance, InstanceEvent, LogTail
from deploy.states import Status
from tests import factories
from tests.workspaces import html
from tests.workspaces.conftest import SignIn
from tests.workspaces.html import Page
from workspaces import progress, services
from workspaces.models import Plan, Role, Workspace

REFRESH = 'http-equiv="refresh"'


def text_of(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return str(response.content.decode())


# --- first steps ----------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_start_page_says_what_this_is_and_leads_to_signing_up(client: Client) -> None:
    page = Page(text_of(client, "/"))
    assert {"/account/signup/", "/account/login/"} <= page.links
    assert "Datasette" in page.all("h1")[0].text


def test_signed_in_people_start_at_their_workspaces(client_of_owner: Client) -> None:
    assert client_of_owner.get("/")["Location"] == "/workspaces/"


def test_a_new_user_is_led_to_the_first_workspace(client_of_owner: Client) -> None:
    page = Page(text_of(client_of_owner, "/workspaces/"))
    assert "Make your first workspace" in [heading.text for heading in page.all("h2")]
    assert "/workspaces/new/" in page.links


@pytest.mark.usefixtures("ready")
def test_the_first_workspace_without_javascript(client_of_owner: Client) -> None:
    assert 'name="slug"' in text_of(client_of_owner, "/workspaces/new/")
    response = client_of_owner.post("/workspaces/new/", {"name": "Trees of Lisbon", "slug": ""})
    assert (response.status_code, response["Location"]) == (302, "/workspaces/trees-of-lisbon/")
    coming = text_of(client_of_owner, "/workspaces/trees-of-lisbon/")
    assert REFRESH in coming
    assert [step.text for step in Page(coming).all("progress")] == ["0 of 4"]

    instance = Workspace.objects.get().instance
    for kind in ("create", "start", "await_ready"):
        factories.add_event(instance, kind, duration_ms=12)
    factories.set_status(instance, Status.RUNNING)
    up = text_of(client_of_owner, "/workspaces/trees-of-lisbon/")
    assert REFRESH not in up
    assert "http://trees-of-lisbon.localhost:8000/" in Page(up).links
    assert "Trees of Lisbon" in text_of(client_of_owner, "/workspaces/")


# --- the new form's words ---------------------------------------------------------------------


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize(
    ("name", "slug", "words"),
    [
        ("", "trees", "Give it a name."),
        ("   ", "", "Give it a name."),
        ("x" * 81, "trees", "at most 80 characters"),
        ("Trees", "admin", "“admin” is reserved for the service itself. “admin-data” is free."),
        ("Trees", "My Trees!", "Use only small letters a to z, digits, and hyphens between them. "
         "“my-trees” is free."),
        ("Trees", "taken", "“taken” is taken. “taken-2” is free."),
        ("Trees", "a", "Use at least 3 characters. “a-data” is free."),
    ],
)  # fmt: skip
def test_words_that_help(client_of_owner: Client, name: str, slug: str, words: str) -> None:
    factories.make_workspace(factories.make_user(), "taken")
    response = client_of_owner.post("/workspaces/new/", {"name": name, "slug": slug})
    assert response.status_code == 422
    page = Page(response.content.decode())
    assert words in " ".join(entry.text for entry in page.all("p"))
    # Nothing typed is lost.
    assert page.by_id("id_name").get("value") == name
    assert page.by_id("id_slug").get("value") == slug
    assert html.problems(response.content.decode()) == []
    assert Workspace.objects.count() == 1


@pytest.mark.django_db
def test_the_log_says_whose_an_instance_is_from_the_beginning(
    client_of_owner: Client, ready: None, caplog: pytest.LogCaptureFixture
) -> None:
    """With an older database restored, nothing else leads from a volume to its workspace."""
    caplog.set_level(logging.INFO, "cloudapp.requests")
    caplog.handler.setFormatter(JsonFormatter())
    made = client_of_owner.post("/workspaces/new/", {"name": "Trees", "slug": "trees"})
    assert made.status_code == 302
    (line,) = [json.loads(text) for text in caplog.text.splitlines() if "workspaces/new" in text]
    instance = Workspace.objects.get().instance_id
    assert (line["workspace"], line["instance"]) == ("trees", str(instance))


@pytest.mark.usefixtures("ready")
def test_capitals_and_blanks_around_a_slug_are_forgiven(client_of_owner: Client) -> None:
    response = client_of_owner.post("/workspaces/new/", {"name": "T", "slug": " Trees "})
    assert response["Location"] == "/workspaces/trees/"


@pytest.mark.usefixtures("ready")
def test_an_empty_slug_finds_a_free_one(client_of_owner: Client) -> None:
    factories.make_workspace(factories.make_user(), "trees")
    response = client_of_owner.post("/workspaces/new/", {"name": "Trees", "slug": ""})
    assert response["Location"] == "/workspaces/trees-2/"


def test_without_an_image_creating_waits_kindly(client_of_owner: Client) -> None:
    factories.make_plan()
    factories.make_image(state=Image.State.BUILDING)
    response = client_of_owner.post("/workspaces/new/", {"name": "Trees", "slug": "trees"})
    assert response.status_code == 503
    assert response["Retry-After"] == "30"
    page = Page(response.content.decode())
    assert "still preparing" in response.content.decode()
    assert page.by_id("id_name").get("value") == "Trees"
    assert page.by_id("id_slug").get("value") == "trees"


@pytest.mark.usefixtures("ready")
def test_the_quota_is_said_in_words(client_of_owner: Client, owner: User) -> None:
    Plan.objects.update(max_workspaces=1)
    factories.make_workspace(owner)
    response = client_of_owner.post("/workspaces/new/", {"name": "Trees", "slug": "trees"})
    assert response.status_code == 422
    assert "as many as your plan allows" in response.content.decode()


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize(
    ("query", "value", "words"),
    [
        ({"name": "Trees of Lisbon", "slug": "", "proposed": ""}, "trees-of-lisbon", "is free"),
        ({"name": "Trees of", "slug": "trees", "proposed": "trees"}, "trees-of", "is free"),
        ({"name": "Trees of", "slug": "mine", "proposed": "trees"}, "mine", "is free"),
        ({"name": "Taken", "slug": "", "proposed": ""}, "taken-2", "is free"),
        ({"slug": "taken", "proposed": ""}, "taken", "“taken-2” is free"),
        ({"slug": "www", "proposed": ""}, "www", "reserved"),
        ({"name": "", "slug": "", "proposed": ""}, "", ""),
    ],
)
def test_the_slug_follows_the_name_until_it_is_edited(
    client_of_owner: Client, query: dict[str, str], value: str, words: str
) -> None:
    factories.make_workspace(factories.make_user(), "taken")
    page = Page(client_of_owner.get("/workspaces/new/slug/", query).content.decode())
    assert page.by_id("id_slug").get("value") == value
    assert words in page.by_id("slug-hint").text


def test_the_slug_field_is_not_for_strangers(client: Client, db: None) -> None:
    assert client.get("/workspaces/new/slug/?slug=trees").status_code == 302


# --- list -------------------------------------------------------------------------------------


def test_the_list_shows_mine_with_status_and_nobody_elses(
    client_of_owner: Client, owner: User
) -> None:
    friend = factories.make_user()
    shared = factories.make_workspace(friend, "shared", name="Shared one")
    factories.add_member(shared, owner, Role.VIEWER)
    factories.make_workspace(friend, "hidden", name="Hidden one")
    for status in list(Status)[:-2]:
        factories.make_workspace(owner, f"is-{status}", status=status)
    text = text_of(client_of_owner, "/workspaces/")
    assert "Shared one" in text
    assert "You are a viewer" in text
    assert "Hidden one" not in text
    for status in list(Status)[:-2]:
        assert f"status--{status}" in text


def test_deleted_ones_have_a_date_and_an_undo(client_of_owner: Client, owner: User) -> None:
    factories.make_workspace(owner, "gone", status=Status.DELETED)
    workspace = factories.make_workspace(owner, "trees", name="Trees", status=Status.DELETING)
    page = Page(text_of(client_of_owner, "/workspaces/"))
    assert "/workspaces/trees/undelete/" in page.actions
    purge_at = workspace.instance.purge_at
    assert purge_at is not None
    assert purge_at.isoformat() in [time.get("datetime") for time in page.all("time")]
    assert "/workspaces/gone/" not in page.links


@pytest.mark.parametrize(
    "path", ["/workspaces/", "/workspaces/first/", "/workspaces/first/activity/"]
)
def test_what_a_page_asks_the_database_does_not_grow(
    client_of_owner: Client, owner: User, path: str
) -> None:
    first = factories.make_workspace(owner, "first")

    def grow(count: int) -> None:
        for _ in range(count):
            factories.make_workspace(owner)
            friend = factories.make_user(name="Grace")
            factories.add_member(first, friend, Role.OWNER)
            services.rename(first, friend, f"Name {friend.pk}")
            factories.add_event(first.instance, "await_ready", duration_ms=3)

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert client_of_owner.get(path).status_code == 200
        return len(captured)

    grow(2)
    queries()  # warms what is cached for good
    few = queries()
    grow(27)
    assert queries() == few
    assert few <= 16


# --- one workspace ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words", "may", "may_not"),
    [
        (Status.PROVISIONING, "coming up", {"stop"}, {"start", "restart", "open"}),
        (Status.RUNNING, "up and answers", {"open", "stop", "restart"}, {"start"}),
        (Status.SLEEPING, "wakes by itself", {"open", "start", "stop"}, {"restart"}),
        (Status.STOPPED, "until it is started", {"start"}, {"open", "stop", "restart"}),
        (Status.SUSPENDED, "operators suspended it", set(), {"open", "start", "stop", "restart"}),
        (Status.FAILED, "ran out of memory", {"start", "stop"}, {"open", "restart"}),
        (Status.DELETING, "removed for good", {"undelete"}, {"open", "start", "stop", "restart"}),
    ],
)
def test_each_status_says_what_it_means_and_offers_what_helps(
    client_of_owner: Client, status: Status, words: str, may: set[str], may_not: set[str]
) -> None:
    owner = User.objects.get()
    factories.make_workspace(owner, "trees", status=status)
    text = text_of(client_of_owner, "/workspaces/trees/")
    page = Page(text)
    assert words in page.by_id("live").text
    assert f"status--{status}" in text
    there = {element.get("id") for element in page.elements}
    assert {f"do-{deed}" for deed in may} <= there
    assert not {f"do-{deed}" for deed in may_not} & there
    if status is Status.FAILED:
        assert page.by_id("do-start").text == "Try again"


def test_try_again_forgives(client_of_owner: Client, owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees", status=Status.FAILED)
    response = client_of_owner.post("/workspaces/trees/start/", follow=True)
    assert response.redirect_chain == [("/workspaces/trees/", 302)]
    workspace.instance.refresh_from_db()
    assert workspace.status is Status.PROVISIONING


def test_what_cannot_be_done_is_said_on_the_page(client_of_owner: Client, owner: User) -> None:
    factories.make_workspace(owner, "trees", status=Status.SUSPENDED)
    response = client_of_owner.post("/workspaces/trees/start/", follow=True)
    assert "only they can start it" in response.content.decode()


def test_rename_without_javascript(client_of_owner: Client, owner: User) -> None:
    factories.make_workspace(owner, "trees", name="Trees")
    assert client_of_owner.post("/workspaces/trees/rename/", {"name": " "}).status_code == 422
    response = client_of_owner.post("/workspaces/trees/rename/", {"name": "<b>Old"}, follow=True)
    assert "It is called “&lt;b&gt;Old” now." in response.content.decode()
    assert Workspace.objects.get().name == "<b>Old"


def test_delete_wants_the_slug_and_can_be_undone(client_of_owner: Client, owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees", name="Trees")
    for typed in ("", "tree", "Trees", "TREES"):
        response = client_of_owner.post("/workspaces/trees/delete/", {"confirm": typed})
        assert response.status_code == 422
        text = response.content.decode()
        assert '<details class="reveal" open>' in text
        assert "“trees”" in text
        # The page opens where something must be put right.
        focused = [
            one.get("name") for one in Page(text).all("input") if "autofocus" in one.attributes
        ]
        assert focused == ["confirm"]
        assert html.problems(text) == []
    workspace.refresh_from_db()
    assert workspace.deleted_at is None

    response = client_of_owner.post(
        "/workspaces/trees/delete/", {"confirm": " trees "}, follow=True
    )
    assert "Undo the deletion" in response.content.decode()
    assert "/workspaces/trees/delete/" not in Page(response.content.decode()).actions
    response = client_of_owner.post("/workspaces/trees/undelete/", follow=True)
    assert "coming up" in response.content.decode()


# --- progress -----------------------------------------------------------------------------------


def steps(instance: Instance) -> list[tuple[str, str]]:
    instance.refresh_from_db()
    found = progress.progress_of(instance)
    return [(step.name, step.state) for step in found.steps] if found else []


def test_progress_follows_the_recorded_steps(owner: User) -> None:
    instance = factories.make_workspace(owner, status=Status.PROVISIONING).instance
    names = ["Prepare", "Create the container", "Start it", "Wait for its first answer"]
    assert steps(instance) == list(zip(names, ["now", "todo", "todo", "todo"], strict=True))
    factories.add_event(instance, "create", duration_ms=11)
    assert steps(instance) == list(zip(names, ["done", "done", "now", "todo"], strict=True))
    factories.add_event(instance, "start", duration_ms=190, failed=True, message="Not today.")
    Instance.objects.update(attempts=1)
    assert steps(instance) == list(zip(names, ["done", "done", "failed", "todo"], strict=True))
    factories.add_event(instance, "start", duration_ms=193)
    assert steps(instance) == list(zip(names, ["done", "done", "done", "now"], strict=True))
    factories.set_status(instance, Status.RUNNING)
    assert steps(instance) == []


def test_waking_has_no_container_to_create(owner: User) -> None:
    instance = factories.make_workspace(owner, status=Status.SLEEPING).instance
    assert lifecycle.wake(instance.pk)
    assert steps(instance) == [
        ("Prepare", "now"),
        ("Start it", "todo"),
        ("Wait for its first answer", "todo"),
    ]


def test_restarting_shows_the_old_container_go(owner: User) -> None:
    workspace = factories.make_workspace(owner)
    services.restart(workspace, owner)
    instance = workspace.instance
    instance.refresh_from_db()
    assert progress.is_busy(instance)
    assert [name for name, _ in steps(instance)][:3] == [
        "Prepare",
        "Stop the old container",
        "Remove it",
    ]


def test_stopping_is_shown_until_it_stopped(owner: User) -> None:
    workspace = factories.make_workspace(owner)
    services.stop(workspace, owner)
    assert steps(workspace.instance) == [("Let it finish and write its data", "now")]


# --- live ---------------------------------------------------------------------------------------


def mark_on(page: Page) -> str:
    return page.by_id("live").get("hx-get").partition("?seen=")[2]


def test_a_settled_page_asks_rarely_and_gets_an_empty_answer(
    client_of_owner: Client, owner: User
) -> None:
    workspace = factories.make_workspace(owner, "trees")
    page = Page(text_of(client_of_owner, "/workspaces/trees/"))
    assert page.by_id("live").get("hx-trigger") == "every 10s"
    with CaptureQueriesContext(connection) as captured:
        response = client_of_owner.get("/workspaces/trees/live/", {"seen": mark_on(page)})
    assert (response.status_code, response.content) == (204, b"")
    # Session, user, when the session was last used, membership, mark.
    assert len(captured) <= 5
    services.stop(workspace, owner)
    response = client_of_owner.get("/workspaces/trees/live/", {"seen": mark_on(page)})
    assert response.status_code == 200
    part = Page(response.content.decode())
    assert "load" in part.by_id("live").get("hx-trigger")
    assert part.by_id("announce").get("hx-swap-oob") == "innerHTML"
    assert mark_on(part) != mark_on(page)


@pytest.mark.django_db(transaction=True)
def test_news_of_a_moving_one_come_when_they_happen(
    client_of_owner: Client, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who is not told would look again only then.
    monkeypatch.setattr(notify, "LOOK_AGAIN_SECONDS", 300)
    monkeypatch.setattr(progress, "HOLD_SECONDS", 300)
    workspace = factories.make_workspace(owner, "trees", status=Status.PROVISIONING)
    seen = mark_on(Page(text_of(client_of_owner, "/workspaces/trees/")))
    answers: list[tuple[float, int, str]] = []

    def ask() -> None:
        response = client_of_owner.get("/workspaces/trees/live/", {"seen": seen})
        answers.append((time.monotonic(), response.status_code, response.content.decode()))
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(0.7)
    assert thread.is_alive(), "it did not wait"
    happened = time.monotonic()
    services.stop(workspace, owner)
    thread.join(120)
    ((answered, status, text),) = answers
    assert status == 200
    assert answered > happened
    assert "status--stopped" in text


@pytest.mark.django_db(transaction=True)
def test_only_so_many_are_held(
    client_of_owner: Client, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.make_workspace(owner, "trees", status=Status.PROVISIONING)
    seen = mark_on(Page(text_of(client_of_owner, "/workspaces/trees/")))
    monkeypatch.setattr(progress, "HOLD_SECONDS", 120.0)
    for _ in range(progress.MAX_HELD):
        assert progress._held.acquire(blocking=False)
    try:
        began = time.monotonic()
        response = client_of_owner.get("/workspaces/trees/live/", {"seen": seen})
        assert response.status_code == 204
        assert time.monotonic() - began < progress.HOLD_SECONDS / 2
    finally:
        for _ in range(progress.MAX_HELD):
            progress._held.release()
    monkeypatch.setattr(progress, "HOLD_SECONDS", 1.5)
    began = time.monotonic()
    assert client_of_owner.get("/workspaces/trees/live/", {"seen": seen}).status_code == 204
    assert time.monotonic() - began >= 1.5


def test_somebody_who_signed_out_meanwhile_is_sent_to_sign_in(client: Client, owner: User) -> None:
    factories.make_workspace(owner, "trees")
    response = client.get("/workspaces/trees/live/?seen=x")
    assert (response.status_code, response["HX-Refresh"]) == (401, "true")


# --- activity and logs --------------------------------------------------------------------------


def test_activity_merges_people_and_instance_newest_first(
    client_of_owner: Client, owner: User, sign_in: SignIn
) -> None:
    factories.make_plan()
    factories.make_image()
    workspace = services.create_workspace(owner, "Trees", "trees")
    instance = workspace.instance
    factories.add_event(instance, "create", duration_ms=11)
    factories.add_event(instance, "start", duration_ms=193)
    factories.add_event(instance, "await_ready", duration_ms=1349)
    nameless = factories.make_user("grace@example.org")
    factories.add_member(workspace, nameless, Role.OWNER)
    services.rename(workspace, nameless, "Old trees")
    lost = "It stopped by itself: it ran out of memory."
    factories.add_event(instance, "lost", failed=True, message=lost)
    for _ in range(3):
        factories.add_event(instance, "start", failed=True, message="No.", duration_ms=1)
    factories.add_event(instance, "something_new")
    page = Page(text_of(client_of_owner, "/workspaces/trees/activity/"))
    lines = [
        " ".join(item.text.split())
        for item in page.all("p")
        if item.get("class").startswith("history__")
    ]
    assert lines == [
        "Something new",
        "The container could not be started 3 times",
        "No.",
        "It ended without being asked to",
        lost,
        "grace@example.org renamed it from “Trees” to “Old trees”",
        "Ready: it answered in 1.3 s",
        "Started the container in 193 ms",
        "Made the container in 11 ms",
        "Ada created the workspace",
    ]


def test_activity_is_paged_and_survives_an_undone_deletion(
    client_of_owner: Client, owner: User
) -> None:
    workspace = factories.make_workspace(owner, "trees")
    long_ago = timezone.now() - timedelta(days=3)
    InstanceEvent.objects.bulk_create(
        InstanceEvent(
            instance=workspace.instance,
            history=workspace.instance.history,
            generation=1,
            kind="sleep" if number else "pause",
            at=long_ago + timedelta(minutes=number),
        )
        for number in range(70)
    )
    services.delete(workspace, owner)
    services.undelete(workspace, owner)
    first = text_of(client_of_owner, "/workspaces/trees/activity/")
    assert "brought the workspace back" in first
    assert Page(first).links >= {"?page=2"}
    last = text_of(client_of_owner, "/workspaces/trees/activity/?page=3")
    assert "Paused" in last
    assert "?page=2" in Page(last).links
    for nonsense in ("x", "-1", "999"):
        text_of(client_of_owner, f"/workspaces/trees/activity/?page={nonsense}")


def test_logs_are_shown_as_text(
    client_of_owner: Client, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = factories.make_workspace(owner, "trees")
    LogTail.objects.create(
        instance=workspace.instance,
        text="<script>alert(1)</script>\nready",
        # A worker that answers just after we asked.
        fetched_at=timezone.now() + timedelta(minutes=1),
    )
    text = text_of(client_of_owner, "/workspaces/trees/logs/")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\nready" in text


# --- every page -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", list(Status)[:-1])
def test_every_page_is_in_order(client_of_owner: Client, owner: User, status: Status) -> None:
    factories.make_workspace(owner, "trees", status=status)
    LogTail.objects.create(
        instance=Instance.objects.get(), text="", fetched_at=timezone.now() + timedelta(minutes=1)
    )
    paths = ["", "new/", "trees/", "trees/activity/", "trees/logs/"]
    for path in [f"/workspaces/{path}" for path in paths]:
        text = text_of(client_of_owner, path)
        assert html.problems(text) == [], path
        assert "private" in client_of_owner.get(path)["Cache-Control"]
    for client in (Client(), client_of_owner):
        missing = client.get("/nowhere/")
        assert missing.status_code == 404
        assert html.problems(missing.content.decode()) == []
    assert html.problems(text_of(Client(), "/")) == []
