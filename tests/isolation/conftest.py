"""Boxes to look into, shared by all tests that leave them as they are."""

from collections.abc import Iterator

import pytest
from django.conf import settings

from deploy.engines.base import Engine
from tests.deploy.boxes import Box
from tests.isolation.programs import Inside


@pytest.fixture(scope="session")
def box(engine: Engine, workspace_image: str) -> Iterator[Box]:
    """A workspace as every customer gets it: running, answering, sealed."""
    made = Box(engine, workspace_image, settings.NAMESPACE)
    try:
        yield made.up()
    finally:
        made.down()


@pytest.fixture(scope="session")
def neighbour(engine: Engine, workspace_image: str) -> Iterator[Box]:
    """Somebody else's workspace."""
    made = Box(engine, workspace_image, settings.NAMESPACE)
    try:
        yield made.up()
    finally:
        made.down()


@pytest.fixture(scope="session")
def inside(box: Box) -> Inside:
    """What runs programs inside of the box."""
    return Inside(box)
