from django.db import migrations, models

# As deploy.states.status_of has it: what people see now was news before, and is not told again.
ANNOUNCE = """
UPDATE deploy_instance SET announced = CASE
    WHEN desired = 'absent' THEN CASE WHEN purged_at IS NULL THEN 'deleting' ELSE 'deleted' END
    WHEN desired = 'stopped' THEN CASE
        WHEN observed IN ('running', 'paused') OR (ready AND observed = 'unknown') THEN 'running'
        WHEN stop_reason = 'idle' THEN 'sleeping'
        WHEN stop_reason = 'operator' THEN 'suspended'
        ELSE 'stopped'
    END
    WHEN desired = 'paused' AND observed = 'paused' THEN 'sleeping'
    WHEN ready THEN 'running'
    WHEN attempts >= 3 THEN 'failed'
    ELSE 'provisioning'
END
WHERE NOT spare
"""


class Migration(migrations.Migration):
    dependencies = [("deploy", "0003_catalogue")]

    operations = [
        migrations.AddField(
            "instance",
            "announced",
            models.CharField(blank=True, db_default="", default="", max_length=12),
        ),
        migrations.AddField(
            "instanceevent",
            "status",
            models.CharField(blank=True, db_default="", default="", max_length=12),
        ),
        migrations.RunSQL(ANNOUNCE, migrations.RunSQL.noop),
    ]
