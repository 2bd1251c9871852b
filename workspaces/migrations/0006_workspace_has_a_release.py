"""Every workspace has a release. On its own: Postgres changes no table with pending updates."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workspaces", "0005_default_release")]

    operations = [
        migrations.AlterField(
            model_name="workspace",
            name="release",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="workspaces",
                to="workspaces.release",
            ),
        ),
    ]
