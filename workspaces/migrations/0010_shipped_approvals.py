from typing import Any

from django.db import migrations, models


def mark(apps: Any, _: Any) -> None:
    """Tell those that came with this software from those of operators whose accounts are gone."""
    approvals = apps.get_model("workspaces", "Approval").objects
    approvals.filter(by=None, note="Came with this software.").update(shipped=True)


class Migration(migrations.Migration):
    dependencies = [("workspaces", "0009_change_detail")]

    operations = [
        migrations.AddField(
            model_name="approval",
            name="shipped",
            field=models.BooleanField(default=False, editable=False),
        ),
        migrations.RunPython(mark, migrations.RunPython.noop),
    ]
