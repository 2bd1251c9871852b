"""The status that a migration calls announced is the one that people see."""

from importlib import import_module

import pytest
from django.db import connection

from deploy.models import Instance
from deploy.states import Status
from tests import factories

ANNOUNCE: str = import_module("deploy.migrations.0004_status_of_events").ANNOUNCE


@pytest.mark.django_db
@pytest.mark.parametrize("status", Status)
def test_what_is_there_at_an_upgrade_is_no_news(status: Status) -> None:
    instance = factories.make_workspace(factories.make_user(), status=status).instance
    Instance.objects.update(announced="")
    with connection.cursor() as cursor:
        cursor.execute(ANNOUNCE)
    instance.refresh_from_db()
    assert instance.announced == status
