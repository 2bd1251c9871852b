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
    Visibility,
    Workspace,
    WorkspaceSession,
)
from workspaces.models.invitations import Invitation
from workspaces.models.mail import OutgoingMail
from workspaces.models.webhooks import Delivery, Webhook

__all__ = [
    "Activity",
    "Approval",
    "Change",
    "Delivery",
    "Grant",
    "IdempotencyKey",
    "Invitation",
    "Member",
    "OutgoingMail",
    "Plan",
    "Plugin",
    "Release",
    "Role",
    "Rollout",
    "SignInCode",
    "Step",
    "Visibility",
    "Webhook",
    "Workspace",
    "WorkspaceSession",
]
