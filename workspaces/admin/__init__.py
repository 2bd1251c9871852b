"""The operators' pages: customers, the plugin catalogue, releases, changes, webhooks and mail."""

from workspaces.admin import catalogue, changes, customers, mail, releases, webhooks

__all__ = ["catalogue", "changes", "customers", "mail", "releases", "webhooks"]
