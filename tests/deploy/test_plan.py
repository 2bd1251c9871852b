"""The plan as a table: every cell, and that following it always ends."""

from itertools import product
from pathlib import Path

import pytest

from deploy import plan as planning
from deploy.plan import Action, plan
from deploy.states import Desired, Observed

SOURCE = Path(planning.__file__).read_text()

NO, CREATE, START, READY = Action.NOTHING, Action.CREATE, Action.START, Action.AWAIT_READY
PAUSE, UNPAUSE, STOP, REMOVE, PURGE = (
    Action.PAUSE,
    Action.UNPAUSE,
    Action.STOP,
    Action.REMOVE,
    Action.PURGE,
)

# observed:        unknown absent  created running paused   exited
CELLS = {
    Desired.RUNNING: [NO, CREATE, START, READY, UNPAUSE, START],
    Desired.PAUSED: [NO, NO, NO, PAUSE, NO, NO],
    Desired.STOPPED: [NO, NO, NO, STOP, UNPAUSE, NO],
    Desired.ABSENT: [NO, PURGE, REMOVE, STOP, UNPAUSE, REMOVE],
}
STALE = [NO, CREATE, REMOVE, STOP, UNPAUSE, REMOVE]


@pytest.mark.parametrize("desired", Desired)
def test_every_cell(desired: Desired) -> None:
    assert [planning.TABLE[desired][observed] for observed in Observed] == CELLS[desired]
    assert [plan(desired, observed, purge_due=True) for observed in Observed] == CELLS[desired]


def test_a_container_of_an_old_generation_is_replaced() -> None:
    found = [plan(Desired.RUNNING, o, current=False, ready=True) for o in Observed]
    assert found == STALE


@pytest.mark.parametrize("desired", [Desired.PAUSED, Desired.STOPPED, Desired.ABSENT])
def test_an_old_generation_changes_nothing_for_what_should_not_run(desired: Desired) -> None:
    for observed in Observed:
        assert plan(desired, observed, current=False) is plan(desired, observed, current=True)


@pytest.mark.parametrize("desired", Desired)
@pytest.mark.parametrize("current", [True, False])
@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize("purge_due", [True, False])
def test_unknown_destroys_nothing(
    desired: Desired, current: bool, ready: bool, purge_due: bool
) -> None:
    said = plan(desired, Observed.UNKNOWN, current=current, ready=ready, purge_due=purge_due)
    assert said is NO


def test_ready_needs_nothing_more() -> None:
    assert plan(Desired.RUNNING, Observed.RUNNING, ready=True) is NO


def test_the_data_stays_for_its_grace_period() -> None:
    assert plan(Desired.ABSENT, Observed.ABSENT, purge_due=False) is NO


@pytest.mark.parametrize("desired", [Desired.RUNNING, Desired.PAUSED, Desired.STOPPED])
@pytest.mark.parametrize("purge_due", [True, False])
def test_only_a_delete_purges(desired: Desired, purge_due: bool) -> None:
    assert PURGE not in {plan(desired, observed, purge_due=purge_due) for observed in Observed}


# What each action makes of what is there, when it works.
EFFECT = {
    CREATE: Observed.CREATED,
    START: Observed.RUNNING,
    PAUSE: Observed.PAUSED,
    UNPAUSE: Observed.RUNNING,
    STOP: Observed.EXITED,
    REMOVE: Observed.ABSENT,
}
ENDS = {
    Desired.RUNNING: {Observed.RUNNING},
    Desired.PAUSED: {Observed.ABSENT, Observed.CREATED, Observed.PAUSED, Observed.EXITED},
    Desired.STOPPED: {Observed.ABSENT, Observed.CREATED, Observed.EXITED},
    Desired.ABSENT: {Observed.ABSENT},
}


@pytest.mark.parametrize(
    ("desired", "observed", "current"),
    list(product(Desired, list(Observed)[1:], [True, False])),
)
def test_following_the_plan_ends_where_it_should(
    desired: Desired, observed: Observed, current: bool
) -> None:
    ready, purged = False, False
    for _ in range(8):
        action = plan(desired, observed, current=current, ready=ready, purge_due=not purged)
        if action is NO:
            break
        ready, purged = action is READY, purged or action is PURGE
        observed = EFFECT.get(action, observed)
        current = current or action is CREATE
    else:
        pytest.fail("it goes on for ever")
    assert observed in ENDS[desired]
    if desired is Desired.RUNNING:
        assert current
        assert ready


MISTAKES = [
    (
        "        Observed.EXITED: Action.REMOVE,\n    },\n}",
        "    },\n}",
        "plan for absent must name every observed state",
    ),
    (
        "    Observed.UNKNOWN: Action.NOTHING,\n    Observed.ABSENT: Action.CREATE,",
        "    Observed.UNKNOWN: Action.CREATE,\n    Observed.ABSENT: Action.CREATE,",
        "unknown is not absent",
    ),
]


@pytest.mark.parametrize(("right", "wrong", "said"), MISTAKES)
def test_a_wrong_table_fails_at_import(right: str, wrong: str, said: str) -> None:
    assert SOURCE.count(right) == 1
    with pytest.raises(AssertionError, match=said):
        exec(compile(SOURCE.replace(right, wrong), "plan.py", "exec"), {})  # noqa: S102
