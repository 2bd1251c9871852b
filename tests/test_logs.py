"""Lines of logs: what they say, and what they never say."""

import json
import logging
import sys
from uuid import uuid4

import pytest
from django.test import Client

from accounts import api_tokens
from cloudapp.logs import JsonFormatter, TextFormatter, clean
from deploy import trace
from deploy.tasks import beat_of, fetch_log

SECRETS = {
    "an API token": f"token {api_tokens.new_text()} used",
    "a webhook's secret": "secret is whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "a mail's key": "Not Found: /account/confirm-email/MQ:1abc:def-ghi/",
    "a reset key": "Forbidden: /account/password/reset/key/1-abc-def/",
    "an invitation": "Not Found: /invitations/abcdefghijklmnopqrstuv/",
    "a sign-in code": "GET /-/sign-in/done?code=abcdefghij&state=x",
    "a password in an address": "cannot connect to postgres://cloudapp:hunter22@db/cloudapp",
    "a header": "Authorization: Bearer abcdefghijklmnop",
    "a cookie": "Cookie: __Host-session=abcdefghijklmnop",
}
PARTS = ("whsec_Mf", "1abc", "abc-def", "abcdefghij", "hunter22", "cloudapp_")


def record(message: str, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("some.logger", logging.WARNING, "file.py", 1, message, None, None)
    vars(made).update(more)
    return made


def test_a_line_is_an_object_that_says_what_it_belongs_to() -> None:
    with trace.within(request_id="r" * 32, workspace="trees", task_id="t", instance="i"):
        line = JsonFormatter().format(record("hello\nthere", fields={"ms": 3}))
    told = json.loads(line)
    assert "\n" not in line
    head = (told["level"], told["logger"], told["message"])
    assert head == ("warning", "some.logger", "hello\nthere")
    assert (told["request_id"], told["workspace"], told["ms"]) == ("r" * 32, "trees", 3)
    assert (told["task_id"], told["instance"]) == ("t", "i")
    assert told["time"].endswith("+00:00")


def test_an_error_brings_its_traceback() -> None:
    try:
        raise ValueError(api_tokens.new_text())
    except ValueError:
        line = JsonFormatter().format(record("failed", exc_info=sys.exc_info()))
    told = json.loads(line)
    assert "ValueError" in told["traceback"]
    assert "cloudapp_" not in line


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS)
def test_secrets_are_taken_out(text: str) -> None:
    for formatter in (JsonFormatter(), TextFormatter("%(message)s")):
        line = formatter.format(record(text))
        assert "[removed]" in line
        assert not any(part in line for part in PARTS)


def test_what_is_no_secret_stays() -> None:
    for text in ("https://cloud.example.org/workspaces/trees/", "image cloudapp-0.65.5:abc"):
        assert clean(text) == text


@pytest.mark.django_db
def test_a_request_has_one_line_without_its_query(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cloudapp.requests")
    response = client.get("/account/login/?next=/secret-place/", headers={"X-Request-ID": "z" * 20})
    (line,) = [r for r in caplog.records if r.name == "cloudapp.requests"]
    assert line.getMessage().startswith("GET account/login/ 200 in ")
    assert "secret-place" not in str(vars(line))
    assert response["X-Request-ID"] == "z" * 20


@pytest.mark.django_db
def test_which_workspace_it_is_about_says_no_client(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[str] = []
    monkeypatch.setattr(trace, "add", lambda **fields: noted.append(fields["workspace"]))
    client.get("/account/login/", headers={"X-Cloudapp-Slug": "somebody-elses"})
    assert noted == []
    client.get("/_gateway/authorize", headers={"X-Cloudapp-Slug": "trees"})
    assert noted == ["trees"]


@pytest.mark.django_db
@pytest.mark.parametrize("given", ["", "short", "x" * 65, "with space", "a\tb" * 5])
def test_what_is_no_id_gets_one(client: Client, given: str) -> None:
    answered = client.get("/healthz", headers={"X-Request-ID": given})["X-Request-ID"]
    assert len(answered) == 32
    assert answered != given


@pytest.mark.django_db
def test_the_page_of_an_error_says_the_id(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("workspaces.views.render", broken)
    client.raise_request_exception = False
    response = client.get("/", headers={"X-Request-ID": "e" * 32})
    assert response.status_code == 500
    assert "e" * 32 in response.text


@pytest.mark.django_db
def test_a_task_is_about_an_instance_only_where_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cloudapp.tasks")
    caplog.handler.setFormatter(JsonFormatter())
    some = str(uuid4())
    fetch_log.apply([some])  # of one that is not there
    beat_of.apply(["now"])
    lines = [json.loads(text) for text in caplog.text.splitlines() if "cloudapp.tasks" in text]
    about = {line["task"]: line.get("instance") for line in lines}
    assert about == {"deploy.tasks.fetch_log": some, "deploy.tasks.beat_of": None}
