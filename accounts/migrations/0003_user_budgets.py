import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_api_tokens"),
    ]

    operations = [
        migrations.CreateModel(
            name="ApiUserBudget",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("full_at", models.DateTimeField()),
            ],
        ),
        # Counts that a crash may lose: no write-ahead log for them.
        migrations.RunSQL(
            "ALTER TABLE accounts_apiuserbudget SET UNLOGGED",
            "ALTER TABLE accounts_apiuserbudget SET LOGGED",
        ),
    ]
