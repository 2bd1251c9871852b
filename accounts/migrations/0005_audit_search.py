from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0004_audit"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="auditentry",
            index=models.Index(fields=[field], name=name),
        )
        for field, name in (
            ("actor_email", "audit_of_email"),
            ("label", "audit_of_label"),
            ("object_id", "audit_of_object"),
            ("address", "audit_of_address"),
        )
    ]
