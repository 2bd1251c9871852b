"""The tables: what customers have, and which plugins there are for them."""

from workspaces.models.api import IdempotencyKey
from workspaces.models.catalogue import Approval, Grant, Plugin, Release
from workspaces.models.changes import Change, Rollout, Step
from workspaces.models.customers import (
    Activity,
    Member,
    Plan,
    Role,
    SignInCode,
    Workspace,
    WorkspaceSession,
)
from workspaces.models.webhooks import Delivery, Webhook

__all__ = [
    "Activity",
    "Approval",
    "Change",
    "Delivery",
    "Grant",
    "IdempotencyKey",
    "Member",
    "Plan",
    "Plugin",
    "Release",
    "Role",
    "Rollout",
    "SignInCode",
    "Step",
    "Webhook",
    "Workspace",
    "WorkspaceSession",
]
