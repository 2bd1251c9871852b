from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("workspaces", "0018_support_and_rebuild"),
    ]

    operations = [
        migrations.AddField(
            model_name="workspacesession",
            name="for_support",
            field=models.BooleanField(db_default=False, default=False),
        ),
    ]
