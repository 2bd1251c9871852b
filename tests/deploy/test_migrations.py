"""Upgrades of databases that hold something."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

pytestmark = pytest.mark.django_db(transaction=True)

BEFORE = [("deploy", "0004_status_of_events")]
AFTER = [("deploy", "0005_histories")]


def migrate(targets: list[tuple[str, str]]) -> Any:
    """Bring the database there; return its tables as they are then."""
    executor = MigrationExecutor(connection)
    executor.migrate(targets)
    return MigrationExecutor(connection).loader.project_state(targets).apps


@pytest.fixture(autouse=True)
def back_to_the_newest() -> Iterator[None]:
    """Whatever happened."""
    yield
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())


def test_a_line_of_successors_has_one_history_and_a_spare_none_before_its_claim() -> None:
    old = migrate(BEFORE)
    image = old.get_model("deploy", "Image").objects.create(digest="d", reference="r:d")
    instances = old.get_model("deploy", "Instance").objects
    events = old.get_model("deploy", "InstanceEvent").objects

    def make(*kinds: str, **fields: Any) -> Any:
        instance = instances.create(id=uuid4(), key="k", image=image, **fields)
        for kind in kinds:
            events.create(instance=instance, generation=1, kind=kind)
        return instance

    first = make("create", "succeeded", "purge")
    second = make("create", "succeeded", "purge", predecessor=first)
    third = make("create", "renamed", predecessor=second)
    claimed = make("create", "claimed", "stop")
    alone = make("create", "start")

    new = migrate(AFTER)
    rows = new.get_model("deploy", "Instance").objects
    history = {row.pk: row.history for row in rows.all()}
    assert len({history[row.pk] for row in (first, second, third, claimed, alone)}) == 5

    def told(instance: Any) -> list[str]:
        kinds = new.get_model("deploy", "InstanceEvent").objects.order_by("id")
        return list(kinds.filter(history=history[instance.pk]).values_list("kind", flat=True))

    assert told(third) == ["create", "succeeded", "create", "succeeded", "create", "renamed"]
    assert told(claimed) == ["claimed", "stop"]
    assert told(alone) == ["create", "start"]
    assert told(first) == told(second) == []


def test_indexes_are_made_beside_the_work_and_again_after_one_that_broke_off() -> None:
    old = migrate([("deploy", "0009_node")])
    assert not indexes()
    image = old.get_model("deploy", "Image").objects.create(digest="d", reference="r:d")
    rows = old.get_model("deploy", "Instance").objects
    instance = rows.create(id=uuid4(), key="k", image=image, attempts=2)
    events = old.get_model("deploy", "InstanceEvent")
    events.objects.bulk_create(
        events(instance=instance, generation=1, kind=kind, failed=kind == "lost")
        for kind in ("wake", "claimed", "lost", "start") * 500
    )
    with connection.cursor() as cursor:
        cursor.execute("CREATE INDEX events_that_failed ON deploy_instanceevent (at)")
        cursor.execute(
            "UPDATE pg_index SET indisvalid = false "
            "WHERE indexrelid = 'events_that_failed'::regclass"
        )
    migrate([("deploy", "0010_dashboard_indexes")])
    assert indexes() == {
        "failing": True,
        "events_that_people_wait_for": True,
        "events_that_failed": True,
        "events_by_time": True,
    }


def indexes() -> dict[str, bool]:
    """Those of the operators' front page that there are, and whether they are of use."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
            "WHERE relname = 'failing' OR relname LIKE 'events\\_%' "
            "AND relname NOT LIKE 'events\\_of\\_%'"
        )
        return dict(cursor.fetchall())
