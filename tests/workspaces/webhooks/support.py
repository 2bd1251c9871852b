"""What tests of webhooks do: send what is due, let time go by, stop a container."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F

from deploy import lifecycle
from deploy.models import Instance
from workspaces import sending, tasks
from workspaces.models import Delivery, Webhook, Workspace

Hook = Callable[..., tuple[Webhook, str]]


def send_all() -> None:
    """Do what the beat and the worker do for what is due now."""
    for delivery in sending.due():
        tasks.send_webhook(str(delivery.pk))


def pass_time(**time: float) -> None:
    """Let so much time go by for what is on its way."""
    earlier = timedelta(**time)
    Delivery.objects.update(next_attempt_at=F("next_attempt_at") - earlier)
    Delivery.objects.update(claimed_until=F("claimed_until") - earlier)
    Webhook.objects.update(failing_since=F("failing_since") - earlier)


def stop_container(workspace: Workspace, **event: Any) -> None:
    """Do what a worker does once the engine has stopped the container."""
    with transaction.atomic():
        Instance.objects.filter(pk=workspace.instance_id).update(observed="exited", ready=False)
        lifecycle._note(Instance.objects.get(pk=workspace.instance_id), "stop", **event)


def only() -> Delivery:
    return Delivery.objects.get()
