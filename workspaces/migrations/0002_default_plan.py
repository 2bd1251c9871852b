"""Make the plan that new workspaces get. Operators change it in the admin afterwards."""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps


def make_default_plan(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    plan = apps.get_model("workspaces", "Plan")
    if not plan.objects.filter(is_default=True).exists():
        plan.objects.create(name="Standard", is_default=True)


class Migration(migrations.Migration):
    dependencies = [("workspaces", "0001_initial")]

    operations = [migrations.RunPython(make_default_plan, migrations.RunPython.noop)]
