"""What does a customer have, and who may do what?"""

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class WorkspacesConfig(AppConfig):
    name = "workspaces"

    def ready(self) -> None:
        """Have webhooks and owners hear what happens to instances."""
        from deploy import lifecycle  # noqa: PLC0415 - needs the models
        from workspaces import notices, outbox  # noqa: PLC0415

        lifecycle.happened.connect(outbox.hear)
        lifecycle.happened.connect(notices.hear)


class OperatorsConfig(AdminConfig):
    """Django's admin, as the operators' site."""

    default_site = "workspaces.site.OperatorsSite"
