"""Wake workers for rows that wait: one call to the broker for all of a transaction.

A call that hangs costs its time, and one that is lost costs nothing: the beat looks for what is
due. The task takes the ids of the rows; it passes all but the first on, by `now`, to other workers.
"""

from collections.abc import Iterable
from contextlib import suppress
from uuid import UUID

from celery import current_app
from django.db import connection, transaction


class _Call:
    def __init__(self, task: str, pks: list[str], seconds: float) -> None:
        self.task, self.pks, self.seconds = task, pks, seconds

    def __call__(self) -> None:
        with suppress(Exception):  # whatever the broker's client raises
            current_app.send_task(self.task, self.pks, countdown=self.seconds or None)


def after_commit(task: str, pks: Iterable[UUID | str], seconds: float = 0) -> None:
    """Have workers do `task` for these once the transaction is in, `seconds` later."""
    texts = [str(pk) for pk in pks]
    if not texts:
        return
    for _, waiting, *_ in connection.run_on_commit:  # what was rolled back is not among it
        if isinstance(waiting, _Call) and (waiting.task, waiting.seconds) == (task, seconds):
            waiting.pks += texts
            return
    transaction.on_commit(_Call(task, texts, seconds))


def now(task: str, pks: Iterable[UUID | str]) -> None:
    """Have workers do `task` for these at once."""
    if texts := [str(pk) for pk in pks]:
        _Call(task, texts, 0)()
