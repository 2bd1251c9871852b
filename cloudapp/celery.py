"""The Celery application: two queues, and work that is only ever a wake-up call.

Redis holds no truth. A task may be lost, doubled or late; the sweep finds what it missed.
"""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cloudapp.settings")

app = Celery("cloudapp")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
