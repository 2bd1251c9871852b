"""An upgrade finds out which history each event is part of."""

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
