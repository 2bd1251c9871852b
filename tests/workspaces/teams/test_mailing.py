"""The outbox for mail: nothing is lost, nothing is sent twice, and secrets do not lie around."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail as django_mail
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from deploy import vault
from tests.broker import waiting
from tests.workspaces.teams.smtp import MailServer
from tests.workspaces.teams.support import body_of, pass_time, send_all
from workspaces import mailing, tasks
from workspaces.models import OutgoingMail, Workspace

pytestmark = pytest.mark.django_db

State = OutgoingMail.State


def write(workspace: Workspace, key: str = "one", **more: Any) -> None:
    mailing.write("suspended", "ada@example.org", key=key, workspace=workspace, **more)


def only() -> OutgoingMail:
    return OutgoingMail.objects.get()


def test_a_mail_says_what_it_should_and_is_forgotten_once_sent(
    workspace: Workspace, mail_server: MailServer
) -> None:
    write(workspace, reason="Unpaid <since> June & July.")
    assert "Unpaid" not in only().body, "it lies sealed"
    assert "Unpaid <since> June & July." in body_of(only())
    send_all()
    sent = only()
    assert (sent.state, sent.attempts, sent.body, sent.error) == (State.SENT, 1, "", "")
    (message,) = mail_server.received
    assert message["To"] == "ada@example.org"
    assert message["Subject"] == "Your workspace “Trees” is suspended"
    assert message["Message-ID"].startswith(f"<{sent.pk}@")
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "text/plain"
    text = message.get_content()
    assert "Unpaid <since> June & July." in text
    assert "/workspaces/trees/" in text
    send_all()
    tasks.send_mail(str(sent.pk))
    assert len(mail_server.received) == 1


def test_of_one_key_there_is_one_mail(workspace: Workspace, mail_server: MailServer) -> None:
    for reason in ("first", "second"):
        write(workspace, reason=reason)
    send_all()
    write(workspace, reason="third")
    send_all()
    (message,) = mail_server.received
    assert "first" in message.get_content()


def test_it_is_written_if_and_only_if_the_deed_is_done(workspace: Workspace) -> None:
    with transaction.atomic():
        write(workspace)
        transaction.set_rollback(True)
    assert not OutgoingMail.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_worker_of_the_queue_outside_is_called_after_the_commit(workspace: Workspace) -> None:
    def calls() -> list[str]:
        messages = waiting("outside")
        return [str(one) for one in messages if one["headers"]["task"].endswith("send_mail")]

    before = len(calls())
    with transaction.atomic():
        write(workspace)
        assert len(calls()) == before
    assert len(calls()) == before + 1


def test_no_mail_server_is_tried_again_ever_later(
    workspace: Workspace, settings: Settings, mail_server: MailServer
) -> None:
    good, settings.EMAIL_PORT = settings.EMAIL_PORT, 1
    write(workspace)
    for count, delay in enumerate(mailing.DELAYS, 1):
        send_all()
        assert (only().state, only().attempts) == (State.PENDING, count)
        assert only().error.startswith("The mail server could not be reached")
        wait = (only().next_attempt_at - timezone.now()).total_seconds()
        assert 0.8 * delay - 60 < wait < 1.2 * delay
        pass_time(seconds=1.2 * delay)
    settings.EMAIL_PORT = good
    send_all()
    assert only().state == State.SENT
    assert len(mail_server.received) == 1


def test_a_mail_server_that_the_settings_name_wrongly_is_tried_again(
    workspace: Workspace, settings: Settings
) -> None:
    settings.EMAIL_BACKEND = "no.such.Backend"
    write(workspace)
    send_all()
    assert (only().state, only().attempts) == (State.PENDING, 1)
    assert only().error.startswith("The mail server could not be reached")


def test_it_is_given_up_in_the_end(workspace: Workspace, settings: Settings) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    write(workspace)
    OutgoingMail.objects.update(attempts=len(mailing.DELAYS))
    send_all()
    assert (only().state, only().body, only().sent_at) == (State.FAILED, "", None)


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ({"to_recipient": "550 nobody here"}, State.FAILED),
        ({"to_recipient": "451 later"}, State.PENDING),
        ({"to_message": "452 full"}, State.PENDING),
        ({"to_message": "554 no"}, State.PENDING),
        # It had the whole message: it may have taken it.
        ({"to_message": ""}, State.UNCERTAIN),
    ],
    ids=str,
)
def test_what_the_server_says_decides(
    answers: dict[str, str], state: str, workspace: Workspace, mail_server: MailServer
) -> None:
    vars(mail_server).update(answers)
    write(workspace)
    send_all()
    assert only().state == state
    assert only().error
    assert bool(only().body) == (state == State.PENDING)
    vars(mail_server).update(to_recipient="250 yes", to_message="250 taken")
    before = len(mail_server.received)
    pass_time(hours=1)
    send_all()
    assert len(mail_server.received) == before + (state == State.PENDING)


def test_what_a_worker_died_at_counts_as_sent(
    workspace: Workspace, mail_server: MailServer
) -> None:
    write(workspace)
    assert mailing._claim(str(only().pk))
    send_all()
    tasks.take_up()
    assert only().state == State.SENDING, "it may be at it still"
    pass_time(hours=1)
    tasks.take_up()
    assert (only().state, only().body) == (State.UNCERTAIN, "")
    send_all()
    assert not mail_server.received


@pytest.mark.django_db(transaction=True)
def test_of_many_workers_one_sends_it(workspace: Workspace, mail_server: MailServer) -> None:
    write(workspace)
    together = threading.Barrier(6)

    def work() -> None:
        together.wait()
        tasks.send_mail(str(only().pk))
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(mail_server.received) == 1
    assert only().state == State.SENT


def test_the_beat_finds_what_is_due(workspace: Workspace) -> None:
    write(workspace)
    assert [mail.key for mail in mailing.due()] == ["one"]
    OutgoingMail.objects.update(next_attempt_at=timezone.now() + timedelta(hours=1))
    assert not mailing.due()


def test_secrets_are_rotated_with_the_others(workspace: Workspace, settings: Settings) -> None:
    write(workspace, reason="Unpaid.")
    old = settings.ENCRYPTION_KEYS
    settings.ENCRYPTION_KEYS = ["another key of some length", *old]
    assert mailing.reseal() == 1
    settings.ENCRYPTION_KEYS = ["another key of some length"]
    assert "Unpaid." in body_of(only())
    settings.ENCRYPTION_KEYS = old
    with pytest.raises(vault.Unreadable):
        body_of(only())
    send_all()
    assert only().state == State.FAILED
    assert "ENCRYPTION_KEYS" in only().error
    assert not django_mail.outbox


def test_old_ones_are_forgotten(workspace: Workspace) -> None:
    write(workspace, "sent")
    write(workspace, "waits")
    OutgoingMail.objects.update(created_at=timezone.now() - mailing.KEPT * 2)
    OutgoingMail.objects.filter(key="sent").update(state=State.SENT)
    tasks.clear_expired()
    assert only().key == "waits"


def test_operators_see_what_was_sent_but_not_what_it_says(
    workspace: Workspace, sign_in: Any, owner: User
) -> None:
    write(workspace, reason="A reason of their own")
    boss = User.objects.create_superuser()
    browser = sign_in(boss)
    listed = browser.get("/admin/workspaces/outgoingmail/")
    assert b"ada@example.org" in listed.content
    page = browser.get(f"/admin/workspaces/outgoingmail/{only().pk}/change/")
    assert page.status_code == 200
    assert only().body not in page.content.decode()
    assert "A reason of their own" not in page.content.decode()
    assert browser.post(f"/admin/workspaces/outgoingmail/{only().pk}/delete/").status_code == 403
