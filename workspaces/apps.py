"""What does a customer have, and who may do what?"""

from django.apps import AppConfig


class WorkspacesConfig(AppConfig):
    name = "workspaces"
