"""The operators' pages: customers, the plugin catalogue, releases and changes."""

from workspaces.admin import catalogue, changes, customers, releases

__all__ = ["catalogue", "changes", "customers", "releases"]
