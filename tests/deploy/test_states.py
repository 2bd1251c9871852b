"""The states as tables: every pair, every status that people may see."""

from pathlib import Path

import pytest

from deploy import states
from deploy.states import Desired, Observed, Status, StopReason, is_moving, may_follow, status_of

SOURCE = Path(states.__file__).read_text()

# now -> what may follow; every pair that is not here may not.
FOLLOWS = {
    Desired.RUNNING: {Desired.PAUSED, Desired.STOPPED, Desired.ABSENT},
    Desired.PAUSED: {Desired.RUNNING, Desired.STOPPED, Desired.ABSENT},
    Desired.STOPPED: {Desired.RUNNING, Desired.STOPPED, Desired.ABSENT},
    Desired.ABSENT: set(),
}


@pytest.mark.parametrize("now", Desired)
@pytest.mark.parametrize("then", Desired)
def test_what_may_follow(now: Desired, then: Desired) -> None:
    assert may_follow(now, then) is (then in FOLLOWS[now])


@pytest.mark.parametrize("then", Desired)
def test_delete_is_sticky(then: Desired) -> None:
    assert not may_follow(Desired.ABSENT, then)


P, R, S, F, D = (
    Status.PROVISIONING,
    Status.RUNNING,
    Status.SLEEPING,
    Status.FAILED,
    Status.DELETING,
)
STOPPED = Status.STOPPED

# observed:      unknown absent created running paused exited
STATUS = {
    # not ready
    (Desired.RUNNING, False): [P, P, P, P, P, P],
    (Desired.PAUSED, False): [P, P, P, P, S, P],
    (Desired.STOPPED, False): [STOPPED, STOPPED, STOPPED, R, R, STOPPED],
    (Desired.ABSENT, False): [D, D, D, D, D, D],
    # ready: it answered, and nobody has seen it end
    (Desired.RUNNING, True): [R, R, R, R, R, R],
    (Desired.PAUSED, True): [R, R, R, R, S, R],
    (Desired.STOPPED, True): [R, STOPPED, STOPPED, R, R, STOPPED],
    (Desired.ABSENT, True): [D, D, D, D, D, D],
}


@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("desired", Desired)
def test_status(desired: Desired, ready: bool) -> None:
    reason = StopReason.OWNER if desired is Desired.STOPPED else StopReason.NONE
    found = [status_of(desired, o, ready=ready, stop_reason=reason) for o in Observed]
    assert found == STATUS[desired, ready]


@pytest.mark.parametrize("desired", Desired)
@pytest.mark.parametrize("observed", Observed)
def test_only_what_should_run_and_does_not_is_failed(desired: Desired, observed: Observed) -> None:
    reason = StopReason.OWNER if desired is Desired.STOPPED else StopReason.NONE

    def status(attempts: int, ready: bool = False) -> Status:
        return status_of(desired, observed, ready=ready, stop_reason=reason, attempts=attempts)

    few, many = states.FAILED_AFTER_ATTEMPTS - 1, states.FAILED_AFTER_ATTEMPTS
    assert status(few) is status(0)
    assert status(many) is (F if status(0) is P else status(0))
    assert status(many, ready=True) is status(0, ready=True)


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (StopReason.IDLE, Status.SLEEPING),
        (StopReason.OWNER, Status.STOPPED),
        (StopReason.OPERATOR, Status.SUSPENDED),
    ],
)
def test_why_it_stopped_shows(reason: StopReason, status: Status) -> None:
    said = status_of(Desired.STOPPED, Observed.EXITED, ready=False, stop_reason=reason)
    assert said is status


def test_deleted_once_the_data_is_gone() -> None:
    gone = status_of(Desired.ABSENT, Observed.ABSENT, ready=False, purged=True)
    assert gone is Status.DELETED


@pytest.mark.parametrize("status", Status)
def test_pages_look_again_while_something_moves(status: Status) -> None:
    moving = {s for s in Status if is_moving(Desired.RUNNING, s)}
    assert moving == {Status.PROVISIONING}
    assert is_moving(Desired.STOPPED, status) is (status is Status.RUNNING)


# What somebody might do to the tables by mistake, and what the import says then.
MISTAKES = [
    ("    Desired.ABSENT: frozenset(),", "", "must name every desired state"),
    (
        "    Desired.ABSENT: frozenset(),",
        "    Desired.ABSENT: frozenset({Desired.RUNNING}),",
        "delete is sticky",
    ),
    (
        "frozenset({Desired.RUNNING, Desired.STOPPED, Desired.ABSENT})",
        "frozenset({Desired.RUNNING, Desired.STOPPED})",
        "stopped cannot be deleted",
    ),
    (
        "    StopReason.OWNER: Status.STOPPED,",
        "",
        "must name every reason to stop",
    ),
]


@pytest.mark.parametrize(("right", "wrong", "said"), MISTAKES)
def test_a_wrong_table_fails_at_import(right: str, wrong: str, said: str) -> None:
    assert SOURCE.count(right) == 1
    with pytest.raises(AssertionError, match=said):
        exec(compile(SOURCE.replace(right, wrong), "states.py", "exec"), {})  # noqa: S102
