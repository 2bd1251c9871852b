"""The operators' pages: customers, the plugin catalogue, releases, changes and webhooks."""

from workspaces.admin import catalogue, changes, customers, releases, webhooks, workspaces

__all__ = ["catalogue", "changes", "customers", "releases", "webhooks", "workspaces"]
