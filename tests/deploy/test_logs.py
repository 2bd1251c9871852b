"""Logs: how often a worker is asked."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deploy import logs
from deploy.models import LogTail
from tests import factories


@pytest.mark.django_db
def test_a_worker_is_asked_once_a_second_and_not_after_nobody_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        logs.current_app, "send_task", lambda *args, **options: asked.append(options)
    )
    instance = factories.make_workspace(factories.make_user()).instance
    just_now = timezone.now() + timedelta(minutes=1)  # also when this takes its time
    tail = LogTail.objects.create(instance=instance, text="hello", fetched_at=just_now)
    assert logs.tail(instance.pk, 0.1) == tail
    assert asked == []
    LogTail.objects.update(fetched_at=timezone.now() - timedelta(seconds=2))
    assert logs.tail(instance.pk, 0.1) == tail
    assert asked == [{"expires": 0.1}]
