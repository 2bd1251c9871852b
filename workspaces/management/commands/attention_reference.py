"""`manage.py attention_reference docs/attention.md`: write the page of all codes anew."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from workspaces.attention_codes import document


class Command(BaseCommand):
    """One section per code, from workspaces/attention_codes.py."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the document."""
        parser.add_argument("document", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        """Write it."""
        options["document"].write_text(document())
