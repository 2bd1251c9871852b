"""`manage.py load_catalogue`: bring in the releases and plugins that come with this software."""

from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from accounts import audit
from workspaces import starter


class Command(BaseCommand):
    """Run it after each upgrade. What operators have decided stays as it is."""

    help = "Bring in the releases and approved plugins that come with this software."

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            new = starter.load()
            audit.note(None, "loaded_catalogue", detail={"new_approvals": new})
        self.stdout.write(f"{new} approvals are new")
