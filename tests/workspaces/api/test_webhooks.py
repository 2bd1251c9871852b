"""Webhooks over the API: of a workspace, and the operators'."""

from typing import Any

import pytest

from accounts.models import User
from tests import factories
from tests.workspaces.api.conftest import Api, api_of, code_of
from tests.workspaces.webhooks.receiver import Receiver
from workspaces import outbox, sending, services
from workspaces.models import Delivery, IdempotencyKey, Role, Webhook, Workspace

pytestmark = pytest.mark.django_db

HOOKS = "/workspaces/trees/webhooks"


@pytest.fixture
def workspace(owner: User) -> Workspace:
    return factories.make_workspace(owner, "trees")


def send_all() -> None:
    for delivery in sending.due():
        sending.send(delivery.pk)


@pytest.mark.usefixtures("workspace")
def test_from_adding_to_sending_again(api: Api, receiver: Receiver) -> None:
    body = {"url": receiver.url, "name": "Chat room", "events": ["plugins.changed"]}
    made = api.post(HOOKS, body)
    assert made.status_code == 201
    hook = made.json()
    secret = hook.pop("secret")
    here = f"{HOOKS}/{hook['id']}"
    assert made["Location"].endswith(f"/api/v1{here}")
    assert hook | {"created_at": ""} == body | {
        "id": hook["id"],
        "active": True,
        "disabled_reason": None,
        "failing_since": None,
        "created_at": "",
    }
    assert api.get(here).json() == hook
    assert api.get(HOOKS).json() == {"items": [hook], "next": None}
    pinged = api.post(f"{here}/ping")
    assert pinged.status_code == 202
    send_all()
    receiver.received[0].verified(secret)
    log = api.get(f"{here}/deliveries").json()["items"]
    assert [(one["id"], one["state"], one["status_code"], one["answer"]) for one in log] == [
        (pinged.json()["id"], "delivered", 200, "thanks")
    ]
    assert log[0]["body"] == receiver.received[0].body.decode()
    assert log[0]["next_attempt_at"] is None
    again = api.post(f"{here}/deliveries/{log[0]['id']}/redeliver")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    send_all()
    assert len({message.id for message in receiver.received}) == 1
    rotated = api.post(f"{here}/rotate").json()["secret"]
    assert rotated != secret
    api.post(f"{here}/ping")
    send_all()
    receiver.received[2].verified(secret)
    receiver.received[2].verified(rotated)
    changed = api.ask("PATCH", here, {"active": False, "events": []})
    assert changed.status_code == 200
    assert changed.json() == hook | {"active": False, "events": []}
    assert code_of(api.post(f"{here}/ping")) == "refused"
    assert api.ask("DELETE", here).status_code == 204
    assert code_of(api.get(here)) == "not_found"
    assert not Delivery.objects.exists()


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body.url"),
        ({"url": "https://169.254.169.254/latest/meta-data/"}, "body.url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "body.url"),
        ({"url": "http://93.184.216.34/"}, "body.url"),
        ({"url": "https://93.184.216.34/" + "x" * 500}, "body.url"),
        ({"url": "https://93.184.216.34/", "name": "x" * 81}, "body.name"),
        ({"url": "https://93.184.216.34/", "events": ["workspace.eaten"]}, "body.events"),
        ({"url": "https://93.184.216.34/", "secret": "mine"}, "body.secret"),
    ],
)
def test_what_is_not_valid_is_named(api: Api, body: dict[str, Any], field: str) -> None:
    response = api.post(HOOKS, body)
    assert code_of(response) == "invalid"
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert not Webhook.objects.exists()


@pytest.mark.usefixtures("workspace")
def test_answers_with_a_secret_are_kept_sealed(api: Api) -> None:
    body = {"url": "https://93.184.216.34/"}
    made = api.post(HOOKS, body, Idempotency_Key="one")
    assert api.post(HOOKS, body, Idempotency_Key="one").json() == made.json()
    here = f"{HOOKS}/{made.json()['id']}"
    fresh = api.post(f"{here}/rotate", Idempotency_Key="two").json()["secret"]
    assert api.post(f"{here}/rotate", Idempotency_Key="two").json()["secret"] == fresh
    kept = str([vars(row) for row in IdempotencyKey.objects.all()])
    assert "whsec_" not in kept
    first = api.post(f"{here}/ping", Idempotency_Key="three").json()
    assert api.post(f"{here}/ping", Idempotency_Key="three").json() == first
    assert Delivery.objects.count() == 1
    for _ in range(4):
        assert api.post(f"{here}/ping").status_code == 202
    often = api.post(f"{here}/ping")
    assert (often.status_code, code_of(often), often["Retry-After"]) == (
        429,
        "too_many_requests",
        "60",
    )


def test_who_may(api: Api, workspace: Workspace, owner: User) -> None:
    made = api.post(HOOKS, {"url": "https://93.184.216.34/"}).json()
    paths = [HOOKS, f"{HOOKS}/{made['id']}", f"{HOOKS}/{made['id']}/deliveries"]
    editor = factories.make_user()
    factories.add_member(workspace, editor, Role.EDITOR)
    for path in paths:
        assert code_of(api_of(owner, "read").get(path)) == "scope_missing"
        assert code_of(api_of(editor).get(path)) == "role_too_low"
        assert code_of(api_of(factories.make_user()).get(path)) == "not_found"
        assert code_of(Api().get(path)) == "not_signed_in"
        everywhere = path.replace("/workspaces/trees", "/operator")
        assert code_of(api.get(everywhere)) == "scope_missing"
    other = factories.make_workspace(owner, "birds")
    theirs = other.webhooks.create(url="https://93.184.216.34/", secret="sealed")
    message = theirs.deliveries.create(type="ping", body="{}", state="delivered")
    assert code_of(api.get(f"{HOOKS}/{theirs.pk}")) == "not_found"
    path = f"{HOOKS}/{made['id']}/deliveries/{message.pk}/redeliver"
    assert code_of(api.post(path)) == "not_found"


def test_operators_hear_of_all(workspace: Workspace, owner: User, receiver: Receiver) -> None:
    operator = factories.make_user(is_staff=True, is_superuser=True)
    theirs = api_of(operator, "operator")
    made = theirs.post("/operator/webhooks", {"url": receiver.url})
    here = f"/operator/webhooks/{made.json()['id']}"
    assert made["Location"].endswith(f"/api/v1{here}")
    services.rename(workspace, owner, "Shrubs")
    send_all()
    told = receiver.received[0].verified(made.json()["secret"])
    assert told["data"]["workspace"]["name"] == "Shrubs"
    assert [one["type"] for one in theirs.get(f"{here}/deliveries").json()["items"]] == [
        "workspace.updated"
    ]
    assert theirs.get(HOOKS).json()["items"] == []
    assert code_of(api_of(owner).get(f"{HOOKS}/{made.json()['id']}")) == "not_found"
    assert theirs.post(f"{here}/ping").status_code == 202
    assert theirs.post(f"{here}/rotate").status_code == 200
    assert theirs.ask("PATCH", here, {"name": "All"}).json()["name"] == "All"
    assert theirs.ask("DELETE", here).status_code == 204


def test_the_log_comes_in_parts(api: Api, workspace: Workspace) -> None:
    hook = workspace.webhooks.create(url="https://93.184.216.34/", secret="sealed")
    for _ in range(5):
        hook.deliveries.create(type="ping", body="{}", state="delivered")
    seen: list[str] = []
    cursor = ""
    while True:
        part = api.get(f"{HOOKS}/{hook.pk}/deliveries?limit=2{cursor}").json()
        seen += [one["id"] for one in part["items"]]
        if part["next"] is None:
            break
        cursor = f"&cursor={part['next']}"
    assert len(set(seen)) == len(seen) == 5


def test_the_document_says_what_there_is_to_hear_of() -> None:
    document = Api().get("/openapi.json").json()
    kinds = document["components"]["schemas"]["WebhookIn"]["properties"]["events"]["items"]["enum"]
    assert kinds == list(outbox.TYPES)
    paths = [path for path in document["paths"] if "webhooks" in path]
    assert len(paths) == 12
    for path in paths:
        for operation in document["paths"][path].values():
            names = {parameter["name"] for parameter in operation.get("parameters", ())}
            assert ("slug" in names) == ("{slug}" in path)
