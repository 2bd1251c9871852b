"""`manage.py api_reference docs/api.md`: write the generated parts of a document anew."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from workspaces.api.reference import with_parts
from workspaces.api.urls import api


class Command(BaseCommand):
    """The operations and the error codes, from the OpenAPI document."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the document."""
        parser.add_argument("document", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        """Write it."""
        document: Path = options["document"]
        document.write_text(with_parts(document.read_text(), api.get_openapi_schema()))
