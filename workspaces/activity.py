"""Write down what people do to a workspace, for its members. The only writer of Activity."""

from collections.abc import Mapping
from typing import Any

from accounts import audit
from accounts.models import User
from deploy import notify
from workspaces import outbox
from workspaces.models import Activity, Workspace


def note(
    workspace: Workspace,
    user: User | None,
    verb: str,
    detail: str = "",
    *,
    more: Mapping[str, Any] | None = None,
) -> Activity:
    """Write a deed that is done, and tell everybody who watches or has a webhook.

    In the transaction of the deed, which holds the rows of the workspace and its instance: so deeds
    and events of one workspace get their ids in the order in which they are committed. `user` is
    None for what the operators' machinery does by itself. `more` is for the audit log alone.
    """
    deed = Activity.objects.create(workspace=workspace, user=user, verb=verb, detail=detail[:200])
    told = {**({"words": detail} if detail else {}), **(more or {})}
    audit.note(user, verb, workspace, workspace=workspace.pk, detail=told)
    outbox.note_deed(deed)
    notify.send(workspace.instance_id, step=True)
    return deed
