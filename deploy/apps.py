"""Does every instance match its spec?"""

from django.apps import AppConfig


class DeployConfig(AppConfig):
    name = "deploy"
