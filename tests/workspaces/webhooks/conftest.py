"""What tests of webhooks share: a workspace, a real receiver, and a webhook that leads to it."""

import queue
from typing import Any

import pytest

from accounts.models import User
from tests import factories
from tests.workspaces.webhooks.receiver import Receiver
from tests.workspaces.webhooks.support import Hook
from workspaces import calls as broker
from workspaces import webhooks
from workspaces.models import Webhook, Workspace


@pytest.fixture
def workspace(owner: User) -> Workspace:
    return factories.make_workspace(owner, "trees")


@pytest.fixture
def hook(workspace: Workspace, owner: User, receiver: Receiver) -> Hook:
    """Make a webhook of the workspace that leads to the receiver."""

    def make(**fields: Any) -> tuple[Webhook, str]:
        return webhooks.create(workspace, owner, url=receiver.url, **fields)

    return make


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> queue.SimpleQueue[list[str] | None]:
    """The broker's queue: what workers are woken for."""
    calls: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()

    def send_task(name: str, args: list[str], **_options: Any) -> None:
        if name == "workspaces.tasks.send_webhook":
            calls.put(args)

    monkeypatch.setattr(broker.current_app, "send_task", send_task)
    return calls
