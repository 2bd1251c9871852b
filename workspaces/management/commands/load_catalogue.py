"""`manage.py load_catalogue`: bring in the releases and plugins that come with this software."""

from typing import Any

from django.core.management.base import BaseCommand

from workspaces import starter


class Command(BaseCommand):
    """Run it after each upgrade. What operators have decided stays as it is."""

    help = "Bring in the releases and approved plugins that come with this software."

    def handle(self, *args: Any, **options: Any) -> None:
        new = starter.load()
        self.stdout.write(f"{new} approvals are new")
