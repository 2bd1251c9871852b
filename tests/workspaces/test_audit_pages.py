"""The audit log as people see it: owners on a page, operators in the admin, both from scripts."""

import csv
import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import audit, audit_log, origin
from accounts.api_tokens import Scope
from accounts.models import AuditEntry, User
from accounts.origin import Origin, Via
from deploy import vault
from deploy.models import LogTail
from tests import factories
from tests.workspaces.api.conftest import api_of, code_of
from tests.workspaces.conftest import SignIn
from tests.workspaces.html import Page
from tests.workspaces.test_plugins_page import approve
from workspaces import change_runs, changes, deeds, members, operations, services, webhooks
from workspaces.models import Change, Delivery, OutgoingMail, Role, Workspace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ready")]

PAGE = "/workspaces/trees/audit/"
FILES = f"{PAGE}export/"
ADMIN = "/admin/accounts/auditentry/"


@pytest.fixture
def trees(owner: User) -> Workspace:
    return factories.make_workspace(owner, "trees", name="Trees")


@pytest.fixture
def operator(db: None) -> User:
    return factories.make_user(
        "olga@operators.example", name="Olga", is_staff=True, is_superuser=True
    )


def with_permissions(*names: str) -> User:
    """An operator who may do just this."""
    user = factories.make_user(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    return user


def text_of(response: HttpResponse) -> str:
    return response.getvalue().decode()


def lines_of(response: HttpResponse) -> list[str]:
    """Return the lines of the page, the texts of their elements after one another."""
    page = Page(response.content.decode())
    return [" ".join(e.text.split()) for e in page.elements if "history__text" in e.get("class")]


# --- what is written -----------------------------------------------------------------------------


def test_every_deed_of_a_workspace_is_there_twice_the_log_knows_more(
    owner: User, trees: Workspace
) -> None:
    here = Origin(Via.SESSION, address="192.0.2.7", request_id="a" * 32)
    with origin.of(here):
        services.rename(trees, owner, "Oaks")
    entry = AuditEntry.objects.get(workspace=trees.pk, verb="renamed")
    assert (entry.actor, entry.actor_name, entry.actor_email) == (
        owner.pk,
        "Ada",
        "ada@example.org",
    )
    assert (entry.kind, entry.object_id, entry.label) == ("workspace", str(trees.pk), "trees")
    assert (entry.via, entry.address, entry.request_id) == ("session", "192.0.2.7", "a" * 32)
    assert entry.detail == {"words": "from “Trees” to “Oaks”"}
    assert trees.activities.get().verb == "renamed"


def test_by_which_token(owner: User, trees: Workspace) -> None:
    api = api_of(owner)
    answer = api.post("/workspaces/trees/stop", X_Real_IP="192.0.2.8")
    assert answer.status_code == 202
    entry = AuditEntry.objects.get(workspace=trees.pk, verb="stopped")
    assert (entry.via, entry.address) == ("token", "192.0.2.8")
    assert entry.via_name.startswith("test (cloudapp_")
    assert entry.request_id == answer["X-Request-ID"]
    whole = str(vars(entry))
    assert api.headers["Authorization"].split()[1] not in whole


def test_who_asks_for_a_change_is_there_whatever_comes_of_it(
    owner: User, trees: Workspace, client_of_owner: Client
) -> None:
    approve("datasette-map", version="1.2", needs=[{"name": "MAP_KEY", "help": ""}])
    body = {"plugins": ["datasette-map"], "secrets": {"MAP_KEY": "s3cret"}}
    answer = api_of(owner).ask("PUT", "/workspaces/trees/plugins", body, X_Real_IP="192.0.2.8")
    assert answer.status_code == 202
    entry = AuditEntry.objects.get(workspace=trees.pk)
    assert (entry.verb, entry.actor, entry.via) == ("asked_for_change", owner.pk, "token")
    assert (entry.address, entry.request_id) == ("192.0.2.8", answer["X-Request-ID"])
    assert entry.detail == {
        "words": "+datasette-map, secret MAP_KEY",
        "plugins": ["datasette-map 1.2"],
        "release": trees.release.version,
        "secrets": ["MAP_KEY"],
    }
    assert "asked for a change of the plugins +datasette-map" in client_of_owner.get(PAGE).text
    change_runs.give_up(Change.objects.get().pk, "It hung.")
    assert AuditEntry.objects.get(workspace=trees.pk) == entry


def test_who_goes_back_is_there_too(owner: User, trees: Workspace) -> None:
    map_plugin = approve("datasette-map")
    change = changes.request(trees, owner, ["datasette-map"])
    Change.objects.filter(pk=change.pk).update(state=Change.State.DONE)
    trees.plugins.set([map_plugin])
    with origin.of(Origin(Via.SESSION, address="192.0.2.7")):
        changes.roll_back(trees, owner)
    entry = AuditEntry.objects.filter(verb="asked_for_change").latest("id")
    assert (entry.detail["words"], entry.address) == ("-datasette-map", "192.0.2.7")
    assert entry.detail["plugins"] == []


def test_deeds_of_operators(owner: User, operator: User, trees: Workspace) -> None:
    plan = deeds.add_plan(operator, {"name": "Large"})
    deeds.change_plan(plan, operator, {"name": "Larger"})
    operations.suspend(trees, operator, "Unpaid")
    found = AuditEntry.objects.filter(actor=operator.pk).order_by("id")
    told = [(entry.verb, entry.kind, entry.label, entry.by_operator) for entry in found]
    assert told == [
        ("added_plan", "plan", "Large", True),
        ("edited_plan", "plan", "Larger", True),
        ("suspended", "workspace", "trees", True),
    ]


def test_an_operator_who_reads_a_customers_log(operator: User, trees: Workspace) -> None:
    factories.add_member(trees, operator, Role.VIEWER)  # who may not read it by that
    api = api_of(operator, Scope.OPERATOR)
    assert api.get("/workspaces/trees/logs?tail=0").status_code == 200
    entry = AuditEntry.objects.get(verb="read_log")
    assert (entry.workspace, entry.actor) == (trees.pk, operator.pk)


@pytest.mark.parametrize(
    ("path", "permission", "name"),
    [
        ("audit", "view_auditentry", "accounts.view_auditentry"),
        ("logs?tail=0", "view_logtail", "deploy.view_logtail"),
    ],
)
def test_operators_need_the_admins_permissions_for_what_is_the_customers(
    trees: Workspace, path: str, permission: str, name: str
) -> None:
    address = f"/workspaces/trees/{path}"
    may_change = with_permissions("view_workspace", "change_workspace")
    refused = api_of(may_change, Scope.OPERATOR).get(address)
    assert code_of(refused) == "permission_missing"
    assert name in refused.json()["detail"]
    may_look = with_permissions("view_workspace", permission)
    assert api_of(may_look, Scope.OPERATOR).get(address).status_code == 200
    entry = AuditEntry.objects.get(workspace=trees.pk)
    assert (entry.verb, entry.actor) == (f"read_{path[:5].rstrip('s?')}", may_look.pk)
    # An owner who is one of these too sees what owners see, and that is not worth a line.
    factories.add_member(trees, may_change, Role.OWNER)
    assert api_of(may_change, Scope.OPERATOR).get(address).status_code == 200
    assert AuditEntry.objects.filter(workspace=trees.pk).count() == 1


def test_the_page_of_a_workspace_shows_its_log_to_those_who_ask(
    operator: User, trees: Workspace, sign_in: SignIn
) -> None:
    LogTail.objects.create(instance=trees.instance, text="hello", fetched_at=timezone.now())
    page = f"/admin/workspaces/workspace/{trees.pk}/change/"
    log = f"/admin/workspaces/workspace/{trees.pk}/log/"
    desk = sign_in(operator)
    assert log in Page(desk.get(page).text).actions
    # No link reads one in an operator's name.
    for address in (page, f"{page}?log=now", log):
        assert "hello" not in desk.get(address).text
    assert not AuditEntry.objects.filter(verb="read_log").exists()
    assert "hello" in desk.post(log).text
    entry = AuditEntry.objects.get(verb="read_log")
    assert (entry.workspace, entry.actor) == (trees.pk, operator.pk)
    someone = with_permissions("view_workspace", "change_workspace")
    assert log not in Page(sign_in(someone).get(page).text).actions
    assert sign_in(someone).post(log).status_code == 403


def test_an_operator_who_reads_it_in_the_admin(
    operator: User, trees: Workspace, sign_in: SignIn
) -> None:
    tail = LogTail.objects.create(instance=trees.instance, text="hello")
    assert "hello" in sign_in(operator).get(f"/admin/deploy/logtail/{tail.pk}/change/").text
    entry = AuditEntry.objects.get(verb="read_log")
    assert (entry.workspace, entry.actor) == (trees.pk, operator.pk)


def test_a_member_who_reads_it_is_not_worth_a_line(owner: User, trees: Workspace) -> None:
    api_of(owner).get("/workspaces/trees/logs?tail=0")
    assert not AuditEntry.objects.filter(verb="read_log").exists()


# --- the page of owners --------------------------------------------------------------------------


def test_the_page_says_who_did_what_from_where(
    owner: User, trees: Workspace, client_of_owner: Client
) -> None:
    with origin.of(Origin(Via.TOKEN, "ci (cloudapp_abcdef…)", "192.0.2.7", "b" * 32)):
        services.rename(trees, owner, "Oaks")
    response = client_of_owner.get(PAGE)
    page = response.content.decode()
    assert lines_of(response) == ["Ada ada@example.org renamed it from “Trees” to “Oaks”"] or (
        "renamed it from “Trees” to “Oaks”" in page
    )
    for words in ("with the API token ci (cloudapp_abcdef…)", "192.0.2.7", "b" * 32):
        assert words in page


def test_operators_have_neither_name_nor_address_there(
    owner: User, operator: User, trees: Workspace, client_of_owner: Client
) -> None:
    with origin.of(Origin(Via.SESSION, address="198.51.100.1")):
        operations.suspend(trees, operator, "Unpaid")
    api = api_of(owner)
    files = [text_of(client_of_owner.get(FILES, {"format": form})) for form in ("csv", "jsonl")]
    seen = [client_of_owner.get(PAGE).text, api.get("/workspaces/trees/audit").text, *files]
    for text in seen:
        assert "an operator" in text
        assert not any(word in text for word in ("Olga", "operators.example", "198.51.100.1"))
    # Nor are they found by what is not shown.
    assert "Nothing found" in client_of_owner.get(PAGE, {"person": "olga"}).text
    assert api.get("/workspaces/trees/audit?person=olga").json()["items"] == []
    theirs = api_of(operator, Scope.OPERATOR).get("/workspaces/trees/audit?person=olga").json()
    assert theirs["items"][0]["actor_email"] == "olga@operators.example"


def test_nor_anywhere_else_that_customers_read(
    owner: User, operator: User, trees: Workspace, client_of_owner: Client
) -> None:
    hook, _ = webhooks.create(trees, operator, url="https://1.1.1.1/hook")
    services.rename(trees, operator, "Oaks")
    changes.request(trees, operator, [])
    webhooks.ping(hook, operator)
    services.delete(trees, operator)
    sent = "".join(Delivery.objects.values_list("body", flat=True))
    mail = vault.open_all({"": OutgoingMail.objects.get(kind="deletion").body})[""]
    assert '"who":"an operator"' in sent
    assert "An operator asked for the deletion" in mail
    api = api_of(owner)
    seen = [api.get("/workspaces/trees/events").text, sent, mail]
    for page in ("", "activity/", f"webhooks/{hook.pk}/"):
        seen.append(client_of_owner.get(f"/workspaces/trees/{page}").text)
    for text in seen:
        assert "n operator" in text
        assert not any(word in text for word in ("Olga", "operators.example"))
    theirs = api_of(operator, Scope.OPERATOR).get("/workspaces/trees/events").json()["items"]
    assert {event["who"] for event in theirs if event["who"]} == {"Olga"}


def test_an_operator_who_is_a_member_has_a_name_there(
    owner: User, operator: User, trees: Workspace, client_of_owner: Client
) -> None:
    factories.add_member(trees, operator, Role.OWNER)
    services.rename(trees, operator, "Oaks")
    assert "Olga" in client_of_owner.get("/workspaces/trees/activity/").text
    events = api_of(owner).get("/workspaces/trees/events").json()["items"]
    assert [event["who"] for event in events if event["kind"] == "renamed"] == ["Olga"]


def test_searching(owner: User, trees: Workspace, client_of_owner: Client) -> None:
    friend = factories.make_user("bo@example.org", name="Bo")
    factories.add_member(trees, friend, Role.OWNER)
    services.rename(trees, owner, "Oaks")
    services.stop(trees, friend)

    def verbs(**search: str) -> list[str]:
        file = text_of(client_of_owner.get(FILES, {"format": "jsonl", **search}))
        found = [json.loads(line)["verb"] for line in file.splitlines()]
        return [verb for verb in found if verb != "exported_audit"]  # what this does itself

    today = timezone.now().date()
    tomorrow, yesterday = today + timedelta(days=1), today - timedelta(days=1)
    assert verbs() == ["stopped", "renamed"]
    assert verbs(person="bo@") == ["stopped"]
    assert verbs(person="Ada") == ["renamed"]
    assert verbs(verb="renamed") == ["renamed"]
    assert verbs(since=str(yesterday), until=str(tomorrow)) == ["stopped", "renamed"]
    assert verbs(since=str(tomorrow)) == []
    assert verbs(until=str(yesterday)) == []
    assert client_of_owner.get(PAGE, {"since": "no day", "before": "x" * 40}).status_code == 200
    assert client_of_owner.get(PAGE, {"person": "a\0b", "until": "9999-12-31"}).status_code == 200
    assert client_of_owner.get(FILES, {"format": "exe"}).status_code == 404


def test_pages_follow_one_another(owner: User, trees: Workspace, client_of_owner: Client) -> None:
    for number in range(120):
        audit.note(owner, "renamed", trees, workspace=trees.pk, detail={"words": f"<{number}>"})
    seen: list[str] = []
    address = PAGE
    for _ in range(4):
        response = client_of_owner.get(address)
        seen += lines_of(response)
        links = Page(response.content.decode()).elements
        older = [link.get("href") for link in links if link.get("rel") == "next"]
        if not older:
            break
        address = PAGE + older[0]
    assert len(seen) == 120
    assert seen[0] != seen[-1]


def test_taking_it_away_as_a_file_is_in_it(
    owner: User, trees: Workspace, client_of_owner: Client
) -> None:
    client_of_owner.get(FILES, {"format": "jsonl", "person": "bo"})
    entry = AuditEntry.objects.get(workspace=trees.pk)
    assert (entry.verb, entry.actor) == ("exported_audit", owner.pk)
    assert entry.detail == {"query": {"format": "jsonl", "person": "bo"}}
    assert "took its audit log away as a file" in client_of_owner.get(PAGE).text


def test_what_is_sent_to_webhooks_by_hand_is_in_it(
    owner: User, trees: Workspace, client_of_owner: Client
) -> None:
    hook, _ = webhooks.create(trees, owner, url="https://1.1.1.1/hook", name="Chat")
    delivery = webhooks.ping(hook, owner)
    webhooks.redeliver(delivery, owner)
    found = AuditEntry.objects.filter(workspace=trees.pk).order_by("id")
    told = [(entry.verb, entry.label, entry.actor) for entry in found]
    verbs = ("added_webhook", "tested_webhook", "sent_again")
    assert told[1:] == [(verb, "Chat", owner.pk) for verb in verbs[1:]]
    assert found[2].detail == {"message": str(delivery.pk), "type": "ping"}
    page = client_of_owner.get(PAGE).text
    assert "sent a message again to the webhook Chat" in page
    assert "sent a test message to the webhook Chat" in page


@pytest.mark.parametrize(
    ("command", "verb"),
    [("load_catalogue", "loaded_catalogue"), ("rotate_secrets", "rotated_secrets")],
)
def test_commands_that_change_much_are_in_it(command: str, verb: str) -> None:
    with origin.of(Origin(Via.COMMAND, command)):
        call_command(command, stdout=io.StringIO())
    entry = AuditEntry.objects.latest("id")
    assert (entry.verb, entry.via, entry.via_name) == (verb, "command", command)


@pytest.mark.parametrize("role", [Role.EDITOR, Role.VIEWER])
def test_others_have_no_tab_for_it(role: Role, trees: Workspace, sign_in: SignIn) -> None:
    user = factories.make_user()
    factories.add_member(trees, user, role)
    browser = sign_in(user)
    assert "/audit/" not in browser.get("/workspaces/trees/").text
    assert browser.get(PAGE).status_code == 403
    assert browser.get(FILES).status_code == 403
    assert code_of(api_of(user).get("/workspaces/trees/audit")) == "role_too_low"


def test_a_spreadsheet_takes_nothing_for_a_formula(
    owner: User, trees: Workspace, client_of_owner: Client
) -> None:
    formulas = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001
    for words in ("=1+1", *(f"{sign}SUM(A1)" for sign in formulas), 'a,"b"\nc'):
        audit.note(None, "tested", label=words, workspace=trees.pk, detail={"words": words})
    text = text_of(client_of_owner.get(FILES))
    assert text.startswith('"id","at",'), "every cell, so that no separator of a locale begins one"
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == 14  # with that it was taken away
    for row in rows:
        assert not any(str(cell).startswith(formulas) for cell in row.values())
    assert {row["label"] for row in rows} >= {"'=1+1", 'a,"b"\nc'}


def test_a_long_file_is_read_a_page_at_a_time(
    trees: Workspace, client_of_owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "_CHUNK", 3)
    for number in range(9):
        audit.note(None, "tested", label=str(number), workspace=trees.pk)
    lines = text_of(client_of_owner.get(FILES, {"format": "jsonl"})).splitlines()
    labels = [json.loads(line)["label"] for line in lines]
    assert labels == ["trees", *map(str, range(8, -1, -1))]


# --- operators -----------------------------------------------------------------------------------


def test_the_admin_shows_all_and_finds_what_is_looked_for(
    owner: User, operator: User, trees: Workspace, sign_in: SignIn
) -> None:
    desk = sign_in(operator)
    with origin.of(Origin(address="192.0.2.7", request_id="c" * 32)):
        services.rename(trees, owner, "Oaks")
    audit.note(None, "tested", label="something else")
    where = {"workspace__exact": str(trees.pk)}
    named = ("renamed", "trees", "Ada@example.org", str(owner.pk), "c" * 32, "192.0.2.7")
    for search in ({"q": f" {words} "} for words in (*named, str(trees.pk))):
        page = desk.get(ADMIN, search).text
        assert "renamed" in page, search
        assert "something else" not in page, search
    assert "something else" not in desk.get(ADMIN, where).text
    for nothing in ("9" * 40, "fe80::1%eth0", "192.0.2.7/24"):
        assert "0 audit log" in desk.get(ADMIN, {"q": nothing}).text
    entry = AuditEntry.objects.get(verb="renamed")
    page = desk.get(f"{ADMIN}{entry.pk}/change/").text
    assert "from “Trees” to “Oaks”" in page
    assert desk.post(f"{ADMIN}{entry.pk}/change/", {"verb": "x"}).status_code == 403
    assert desk.post(f"{ADMIN}{entry.pk}/delete/", {"post": "yes"}).status_code == 403


def test_no_search_reads_the_whole_log(
    owner: User, operator: User, trees: Workspace, sign_in: SignIn
) -> None:
    services.rename(trees, owner, "Oaks")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO accounts_auditentry (at, actor_name, actor_email, by_operator, via,"
            " via_name, request_id, verb, kind, object_id, label, workspace, address, detail)"
            " SELECT now(), '', n || '@example.org', false, 'session', '', md5(n::text), 'tested',"
            " '', n::text, 'thing ' || n, gen_random_uuid(), '10.0.0.0'::inet + n, '{}'"
            " FROM generate_series(1, 20000) AS n"
        )
        cursor.execute("ANALYZE accounts_auditentry")
    desk, api = sign_in(operator), api_of(operator, Scope.OPERATOR)
    for words in ("trees", "ada@example.org", "192.0.2.7", str(trees.pk), "c" * 32, "7"):
        with CaptureQueriesContext(connection) as queries:
            assert desk.get(ADMIN, {"q": words}).status_code == 200
            assert api.get(f"/operator/audit?person={words}").status_code == 200
            assert desk.get(ADMIN, {"workspace__exact": str(trees.pk)}).status_code == 200
        asked = [query["sql"] for query in queries if '"label"' in query["sql"]]
        asked = [sql for sql in asked if sql.startswith("SELECT") and " WHERE " in sql]
        assert len(asked) >= 3
        for sql in asked:
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
                (plan,) = cursor.fetchone()
            assert read_rows(plan[0]["Plan"]) < 1000, sql


def read_rows(node: dict[str, Any]) -> float:
    """Return how many rows a plan read, those that did not fit included."""
    read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    return float(read * node["Actual Loops"] + sum(map(read_rows, node.get("Plans", ()))))


def test_the_admins_files_hold_what_the_list_shows(
    owner: User, operator: User, trees: Workspace, sign_in: SignIn
) -> None:
    services.rename(trees, owner, "Oaks")
    audit.note(None, "tested", label="something else")
    desk = sign_in(operator)
    lines = text_of(desk.get(f"{ADMIN}export/jsonl/", {"q": "renamed"})).splitlines()
    assert [json.loads(line)["verb"] for line in lines] == ["renamed"]
    everything = text_of(desk.get(f"{ADMIN}export/csv/"))
    assert "something else" in everything
    assert "exported_audit" in everything
    assert desk.get(f"{ADMIN}export/exe/").status_code == 404
    stranger = factories.make_user(is_staff=True)
    assert sign_in(stranger).get(f"{ADMIN}export/csv/").status_code == 403


def test_the_list_costs_the_same_however_long_it_is(
    owner: User, operator: User, trees: Workspace, sign_in: SignIn
) -> None:
    def costs(user: User, page: str) -> int:
        browser = sign_in(user)
        browser.get(page)
        with CaptureQueriesContext(connection) as queries:
            assert browser.get(page).status_code == 200
        return len(queries)

    def write(number: int) -> None:
        AuditEntry.objects.bulk_create(
            AuditEntry(actor=owner.pk, via="session", verb="renamed", workspace=trees.pk)
            for _ in range(number)
        )

    write(2)
    few = costs(owner, PAGE), costs(operator, ADMIN)
    write(300)
    assert (costs(owner, PAGE), costs(operator, ADMIN)) == few


# --- from scripts --------------------------------------------------------------------------------


def test_the_api_goes_through_all_of_it(owner: User, trees: Workspace) -> None:
    for number in range(5):
        audit.note(owner, "renamed", trees, workspace=trees.pk, detail={"words": str(number)})
    api = api_of(owner)
    seen, cursor = [], ""
    for _ in range(5):
        answer = api.get(f"/workspaces/trees/audit?limit=2{cursor}").json()
        seen += [item["detail"]["words"] for item in answer["items"]]
        if not answer["next"]:
            break
        cursor = f"&cursor={answer['next']}"
    assert seen == ["4", "3", "2", "1", "0"]
    soon = (timezone.now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert api.get(f"/workspaces/trees/audit?since={soon}").json()["items"] == []
    for no_time in ("0.5", "1700000000", "2026-11-27T17:00:00", "0001-01-01T00:00:00%2B14:00"):
        refused = api.get(f"/workspaces/trees/audit?since={no_time}")
        assert code_of(refused) == "invalid", no_time


def test_operators_read_all_of_it(owner: User, operator: User, trees: Workspace) -> None:
    services.rename(trees, owner, "Oaks")
    api = api_of(operator, Scope.OPERATOR)
    found = api.get("/operator/audit?verb=renamed&person=Ada@example.org").json()["items"]
    assert [item["workspace"] for item in found] == [str(trees.pk)]
    entry = AuditEntry.objects.get(verb="read_audit")
    asked = {"query": {"verb": "renamed", "person": "Ada@example.org"}}
    assert (entry.actor, entry.workspace, entry.detail) == (operator.pk, None, asked)
    assert code_of(api_of(owner).get("/operator/audit")) == "scope_missing"


def test_who_left_is_in_it_still(owner: User, trees: Workspace, client_of_owner: Client) -> None:
    friend = factories.make_user("bo@example.org", name="Bo")
    factories.add_member(trees, friend, Role.VIEWER)
    members.remove(trees, friend, friend.pk)
    friend.delete()
    assert "bo@example.org" in client_of_owner.get(PAGE).text
