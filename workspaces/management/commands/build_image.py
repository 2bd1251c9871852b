"""`manage.py build_image`: make sure that the image of new workspaces is there."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from deploy.engines import get_builder
from deploy.images import ImageError
from workspaces import catalogue, releases


class Command(BaseCommand):
    """Build the image that new workspaces get, unless the engine has it already."""

    help = "Build the image that new workspaces get, unless the engine has it already."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            image = releases.build(catalogue.default_release(), get_builder())
        except ImageError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{image.reference} is ready")
