"""What to do next, as a table: (desired, observed) -> action. Pure: no Django, no engine.

One cell is one step. Reconciling repeats: observe, look up, do; until the cell says NOTHING.
"""

from collections.abc import Mapping
from enum import StrEnum

from deploy.states import Desired, Observed


class Action(StrEnum):
    """One thing that a worker can do to an instance."""

    NOTHING = "nothing"
    CREATE = "create"
    START = "start"
    AWAIT_READY = "await_ready"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    STOP = "stop"
    REMOVE = "remove"
    PURGE = "purge"


_UP: Mapping[Observed, Action] = {
    Observed.UNKNOWN: Action.NOTHING,
    Observed.ABSENT: Action.CREATE,
    Observed.CREATED: Action.START,
    Observed.RUNNING: Action.AWAIT_READY,
    Observed.PAUSED: Action.UNPAUSE,
    Observed.EXITED: Action.START,
}

TABLE: Mapping[Desired, Mapping[Observed, Action]] = {
    Desired.RUNNING: _UP,
    # Pausing is a kind of sleep: what sleeps in another way may stay as it is.
    Desired.PAUSED: {
        Observed.UNKNOWN: Action.NOTHING,
        Observed.ABSENT: Action.NOTHING,
        Observed.CREATED: Action.NOTHING,
        Observed.RUNNING: Action.PAUSE,
        Observed.PAUSED: Action.NOTHING,
        Observed.EXITED: Action.NOTHING,
    },
    Desired.STOPPED: {
        Observed.UNKNOWN: Action.NOTHING,
        Observed.ABSENT: Action.NOTHING,
        Observed.CREATED: Action.NOTHING,
        Observed.RUNNING: Action.STOP,
        # A frozen process cannot hear that it should finish.
        Observed.PAUSED: Action.UNPAUSE,
        Observed.EXITED: Action.NOTHING,
    },
    Desired.ABSENT: {
        Observed.UNKNOWN: Action.NOTHING,
        Observed.ABSENT: Action.PURGE,
        Observed.CREATED: Action.REMOVE,
        Observed.RUNNING: Action.STOP,
        Observed.PAUSED: Action.UNPAUSE,
        Observed.EXITED: Action.REMOVE,
    },
}

# What replaces a container whose generation is not the one we want.
_REPLACE: Mapping[Observed, Action] = {
    Observed.CREATED: Action.REMOVE,
    Observed.RUNNING: Action.STOP,
    Observed.EXITED: Action.REMOVE,
}


def plan(
    desired: Desired,
    observed: Observed,
    *,
    current: bool = True,
    ready: bool = False,
    purge_due: bool = False,
) -> Action:
    """Return the next action.

    `current`: the container was made from the spec's present generation. `ready`: it answers
    HTTP as itself. `purge_due`: the data volume is still there and its grace period is over.
    """
    action = TABLE[desired][observed]
    if desired is Desired.RUNNING and not current:
        action = _REPLACE.get(observed, action)
    if action is Action.AWAIT_READY and ready:
        return Action.NOTHING
    if action is Action.PURGE and not purge_due:
        return Action.NOTHING
    return action


def _check_table() -> None:
    for desired in Desired:
        if set(TABLE[desired]) != set(Observed):
            raise AssertionError(f"the plan for {desired} must name every observed state")
        if TABLE[desired][Observed.UNKNOWN] is not Action.NOTHING:
            raise AssertionError("unknown is not absent: nothing may be done about it")


_check_table()
