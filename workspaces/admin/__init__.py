"""The operators' pages: customers, the plugin catalogue, releases, changes, webhooks and logs."""

from workspaces.admin import catalogue, changes, customers, logs, releases, webhooks

__all__ = ["catalogue", "changes", "customers", "logs", "releases", "webhooks"]
