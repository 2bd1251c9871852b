from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("workspaces", "0019_sessions_for_support"),
    ]

    operations = [
        migrations.AddField(
            model_name="approval",
            name="expires_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
    ]
