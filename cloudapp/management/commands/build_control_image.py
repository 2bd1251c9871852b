"""Build the control plane's own image; `make image` calls it."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from cloudapp.local.control_image import build, version
from deploy.base_image import BaseImageError
from deploy.engines import get_builder
from deploy.engines.base import EngineError
from deploy.wheels import WheelsError


class Command(BaseCommand):
    """Fetches wheels here, builds without a network there."""

    help = "Build the control plane's image and print its name."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("reference", nargs="?", default=f"cloudapp:{version()}")

    def handle(self, *, reference: str, **options: Any) -> None:
        """Build it; CommandError says why it cannot be built."""
        try:
            build(get_builder(), reference)
        except (BaseImageError, EngineError, WheelsError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(reference)
