"""Events say which history they are part of, whatever instance they are of."""

import uuid

from django.db import migrations, models

# An instance that nobody succeeded keeps its own history; a successor has that of the first in its
# line. Of those before it, events count up to the moment in which they were succeeded; of a spare,
# from its claim on.
FILL = """
WITH RECURSIVE line AS (
    SELECT id, id AS history FROM deploy_instance WHERE predecessor_id IS NULL
    UNION ALL
    SELECT next.id, line.history FROM deploy_instance next JOIN line ON next.predecessor_id = line.id
),
bounds AS (
    SELECT line.id, line.history,
        coalesce(max(event.id) FILTER (WHERE event.kind = 'claimed'), 0) AS first,
        max(event.id) FILTER (WHERE event.kind = 'succeeded') AS last
    FROM line LEFT JOIN deploy_instanceevent event ON event.instance_id = line.id
    GROUP BY line.id, line.history
),
instances AS (
    UPDATE deploy_instance SET history =
        CASE WHEN bounds.last IS NULL THEN bounds.history ELSE gen_random_uuid() END
    FROM bounds WHERE bounds.id = deploy_instance.id
)
UPDATE deploy_instanceevent SET history = bounds.history
FROM bounds
WHERE bounds.id = deploy_instanceevent.instance_id
    AND deploy_instanceevent.id >= bounds.first
    AND (bounds.last IS NULL OR deploy_instanceevent.id <= bounds.last)
"""


class Migration(migrations.Migration):
    dependencies = [("deploy", "0004_status_of_events")]

    operations = [
        migrations.AddField(
            "instance", "history", models.UUIDField(default=uuid.uuid4, editable=False)
        ),
        migrations.AddField(
            "instanceevent", "history", models.UUIDField(editable=False, null=True)
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
        migrations.AddIndex(
            "instanceevent", models.Index(fields=["history", "id"], name="events_of_history")
        ),
    ]
