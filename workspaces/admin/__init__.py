"""The operators' pages: customers, the plugin catalogue, releases, changes, mail and logs."""

from workspaces.admin import (
    catalogue,
    changes,
    customers,
    logs,
    mail,
    releases,
    webhooks,
    workspaces,
)

__all__ = [
    "catalogue",
    "changes",
    "customers",
    "logs",
    "mail",
    "releases",
    "webhooks",
    "workspaces",
]
