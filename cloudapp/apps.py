"""The Django app that joins the rooms."""

from importlib import import_module

from django.apps import AppConfig

# Importing it makes it the app that every task of this process is sent through.
from cloudapp.celery import app as celery_app

__all__ = ["CloudappConfig", "celery_app"]


class CloudappConfig(AppConfig):
    name = "cloudapp"

    def ready(self) -> None:
        # Registers itself; it needs the settings.
        import_module("cloudapp.checks")
