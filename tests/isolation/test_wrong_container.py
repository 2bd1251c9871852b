"""A stale address can never show one customer another's data: the wrong container refuses."""

from collections.abc import Iterator

import pytest
from django.conf import settings

from deploy import probe, tokens
from tests.deploy.boxes import Box
from tests.isolation.programs import docker_engine


@pytest.fixture(scope="module", params=["unix", "tcp"])
def pair(
    request: pytest.FixtureRequest, workspace_image: str, box: Box, neighbour: Box
) -> Iterator[tuple[Box, Box]]:
    """Two workspaces of two customers."""
    if request.param == "unix":
        yield box, neighbour
        return
    other = Box(docker_engine("tcp"), workspace_image, settings.NAMESPACE)
    try:
        yield box, other.up()
    finally:
        other.down()


PATHS = ["/", "/-/databases.json", "/data.json", "/-/instance/health", "/-/plugins.json"]


@pytest.mark.parametrize("path", PATHS)
def test_a_token_of_another_workspace_opens_nothing(pair: tuple[Box, Box], path: str) -> None:
    mine, theirs = pair
    stranger = theirs.get(path, None)
    assert stranger[0] == 403
    assert theirs.get(path, mine.actor_token()) == stranger
    assert theirs.get(path, tokens.probe_token(mine.instance)) == stranger
    # Not even when it names the other one: the key is not the right one.
    forged = Box(theirs.engine, "", theirs.namespace, id=theirs.id, key=mine.key)
    assert theirs.get(path, forged.actor_token()) == stranger


def test_the_right_token_opens(pair: tuple[Box, Box]) -> None:
    for box in pair:
        assert box.get("/-/databases.json", box.actor_token())[0] == 200


def test_the_probe_takes_no_other_container_for_its_own(pair: tuple[Box, Box]) -> None:
    mine, theirs = pair
    with pytest.raises(probe.NotAnswering, match="status 403"):
        probe.health(mine.instance, theirs.observe().endpoint)
