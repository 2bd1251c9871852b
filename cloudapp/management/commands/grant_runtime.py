"""`manage.py grant_runtime ROLE`: let the processes use the database without owning it."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from cloudapp.postgres import roles


class Command(BaseCommand):
    """Run it after each `migrate`, with the DATABASE_URL of the role that owns the tables."""

    help = (
        "Give a database role what the processes need: to read and write rows, and of the audit "
        "log to read and add, not more. Run it after each migration, as the owner of the tables."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("role")

    def handle(self, *args: Any, role: str, **options: Any) -> None:
        try:
            with transaction.atomic():
                roles.grant_runtime(role)
        except roles.NotApart as problem:
            raise CommandError(str(problem)) from problem
        self.stdout.write(f"{role} may do the daily work, and change no table.")
