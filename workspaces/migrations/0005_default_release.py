"""Give the workspaces that are there the release that they run."""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

from deploy.images import DEFAULT_RELEASE, default_lock


def make_default_release(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    release = apps.get_model("workspaces", "Release")
    workspace = apps.get_model("workspaces", "Workspace")
    made, _ = release.objects.get_or_create(
        version=DEFAULT_RELEASE, defaults={"lock": default_lock(), "is_default": True}
    )
    workspace.objects.filter(release=None).update(release=made)


class Migration(migrations.Migration):
    dependencies = [("workspaces", "0004_catalogue")]

    operations = [migrations.RunPython(make_default_release, migrations.RunPython.noop)]
