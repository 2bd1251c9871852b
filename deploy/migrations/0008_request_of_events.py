from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("deploy", "0007_dashboard"),
    ]

    operations = [
        migrations.AddField(
            model_name="instanceevent",
            name="request_id",
            field=models.CharField(blank=True, db_default="", default="", max_length=64),
        ),
    ]
