"""Indexes of large tables, made while these are in use: that takes longer, and nobody waits for it.

Such a migration has no transaction. One that was broken off leaves an index behind that is of no
use, so that each is dropped first: it may just be run again.
"""

from django.contrib.postgres.indexes import BrinIndex
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

INDEXES = {
    "instance": [
        models.Index(fields=["attempts"], condition=models.Q(attempts__gt=0), name="failing"),
    ],
    "instanceevent": [
        models.Index(
            fields=["kind", "at"],
            condition=models.Q(kind__in=["wake", "create_requested", "claimed"]),
            name="events_that_people_wait_for",
        ),
        models.Index(fields=["at"], condition=models.Q(failed=True), name="events_that_failed"),
        BrinIndex(fields=["at"], name="events_by_time", pages_per_range=16),
    ],
}


class Migration(migrations.Migration):
    atomic = False
    dependencies = [
        ("deploy", "0009_node"),
    ]

    operations = [
        operation
        for model, indexes in INDEXES.items()
        for index in indexes
        for operation in (
            migrations.RunSQL(
                f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}", migrations.RunSQL.noop
            ),
            AddIndexConcurrently(model, index),
        )
    ]
