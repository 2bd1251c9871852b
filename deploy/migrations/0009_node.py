from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("deploy", "0008_request_of_events"),
    ]

    operations = [
        migrations.AddField(
            model_name="instance",
            name="node",
            field=models.CharField(
                blank=True, db_default="", default="", editable=False, max_length=200
            ),
        ),
    ]
