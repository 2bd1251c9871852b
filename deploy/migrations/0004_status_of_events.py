from django.db import migrations, models


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
    ]
