"""`manage.py build_image`: make sure that the default workspace image is there."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from deploy.engines import get_builder
from deploy.images import ImageError, ensure_default_image


class Command(BaseCommand):
    """Build the image that new workspaces get, unless the engine has it already."""

    help = "Build the image that new workspaces get, unless the engine has it already."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            image = ensure_default_image(get_builder(), settings.STATE_DIR)
        except ImageError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{image.reference} is ready")
