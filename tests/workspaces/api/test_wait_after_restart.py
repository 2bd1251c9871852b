"""Whoever restarts a workspace and waits for `running` waits for the new container."""

import pytest
from django.db.models import F

from accounts.models import User
from deploy import lifecycle
from deploy.models import Instance
from tests import factories
from tests.deploy.rows import held
from tests.workspaces.api.conftest import Api, code_of


@pytest.mark.django_db
def test_what_is_about_to_be_replaced_is_not_running_again(api: Api, owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees")
    path = "/workspaces/trees/wait?status=running&timeout=0"
    assert api.get(path).status_code == 200

    assert api.post("/workspaces/trees/restart").status_code == 202
    answer = api.get(path)
    assert (answer.status_code, code_of(answer)) == (408, "timeout")

    # The worker made the new one, and it answered.
    mine = Instance.objects.filter(pk=workspace.instance_id)
    mine.update(observed_generation=F("generation"))
    assert api.get(path).status_code == 200


@pytest.mark.django_db
def test_what_the_engine_does_not_tell_of_is_running_as_before(api: Api, owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees")
    lease, instance = held(workspace.instance)
    lifecycle.record_unknown(lease, instance, "no answer")
    assert api.get("/workspaces/trees/wait?status=running&timeout=0").status_code == 200
