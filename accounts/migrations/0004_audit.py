import django.utils.timezone
from django.db import migrations, models

# ALWAYS: also where session_replication_role says that triggers are not to fire. Only the owner of
# the table can switch them off, and the role that the application uses need not be that one.
APPEND_ONLY = """
CREATE FUNCTION accounts_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append only: no %', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON accounts_auditentry
    FOR EACH STATEMENT EXECUTE FUNCTION accounts_audit_is_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON accounts_auditentry
    FOR EACH STATEMENT EXECUTE FUNCTION accounts_audit_is_append_only();
ALTER TABLE accounts_auditentry ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE accounts_auditentry ENABLE ALWAYS TRIGGER append_only_truncate;
"""
BACK = """
DROP TRIGGER append_only ON accounts_auditentry;
DROP TRIGGER append_only_truncate ON accounts_auditentry;
DROP FUNCTION accounts_audit_is_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_user_budgets"),
    ]

    operations = [
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("actor", models.BigIntegerField(blank=True, editable=False, null=True)),
                ("actor_name", models.CharField(blank=True, editable=False, max_length=254)),
                ("actor_email", models.CharField(blank=True, editable=False, max_length=254)),
                ("by_operator", models.BooleanField(default=False, editable=False)),
                ("via", models.CharField(editable=False, max_length=10)),
                ("via_name", models.CharField(blank=True, editable=False, max_length=120)),
                ("address", models.GenericIPAddressField(blank=True, editable=False, null=True)),
                ("request_id", models.CharField(blank=True, editable=False, max_length=64)),
                ("verb", models.CharField(editable=False, max_length=40)),
                ("kind", models.CharField(blank=True, editable=False, max_length=40)),
                ("object_id", models.CharField(blank=True, editable=False, max_length=64)),
                ("label", models.CharField(blank=True, editable=False, max_length=200)),
                ("workspace", models.UUIDField(blank=True, editable=False, null=True)),
                ("detail", models.JSONField(default=dict, editable=False)),
            ],
            options={
                "verbose_name_plural": "audit log",
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("workspace__isnull", False)),
                        fields=["workspace", "id"],
                        name="audit_of_workspace",
                    ),
                    models.Index(fields=["actor", "id"], name="audit_of_actor"),
                    models.Index(fields=["verb", "at"], name="audit_of_verb"),
                    models.Index(fields=["request_id"], name="audit_of_request"),
                    models.Index(fields=["at"], name="audit_by_time"),
                ],
            },
        ),
        migrations.RunSQL(APPEND_ONLY, BACK),
    ]
