"""Who works on an instance: one worker at a time, and not for longer than it lives.

A lease is a token and an expiry in the instance's row. It is claimed by a conditional UPDATE,
renewed by a thread while the worker works, and lost when the worker is killed.
"""

import logging
import threading
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType

from django.conf import settings
from django.db import Error, connection
from django.db.models import Q
from django.utils import timezone

from deploy.models import Instance

logger = logging.getLogger(__name__)


class LeaseLost(Exception):
    """Another worker holds the instance now: stop, and write nothing."""


def expiry() -> datetime:
    """Return when a lease that is renewed now ends."""
    return timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)


@dataclass(frozen=True)
class Lease:
    """The right to work on one instance. As a context manager it is kept alive."""

    instance_id: uuid.UUID
    token: uuid.UUID

    def load(self) -> Instance:
        """Return the instance as it is now; raise LeaseLost when it is not ours any more."""
        held = Instance.objects.filter(pk=self.instance_id, lease_token=self.token)
        instance = held.select_related("image", "predecessor").first()
        if instance is None:
            raise LeaseLost(str(self.instance_id))
        return instance

    def release(self, revision: int | None = None) -> bool:
        """Give the lease back. False when a request came after `revision`: go round again."""
        held = Instance.objects.filter(pk=self.instance_id, lease_token=self.token)
        if revision is not None:
            held = held.filter(revision=revision)
        return held.update(lease_token=None, lease_expires_at=None) == 1

    def __enter__(self) -> "Lease":
        _keeper.keep(self.token)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _keeper.drop(self.token)
        if isinstance(error, Error):
            connection.close()  # it may be broken: the next query gets another one
        try:
            self.release()
        except Error:
            logger.warning("the lease of %s was not given back; it will lapse", self.instance_id)


def claim(instance_id: uuid.UUID | str) -> Lease | None:
    """Take the lease of an instance, or return None because somebody else has it."""
    now = timezone.now()
    token = uuid.uuid4()
    free = Q(lease_token=None) | Q(lease_expires_at__lt=now)
    claimed = Instance.objects.filter(free, pk=instance_id, purged_at=None).update(
        lease_token=token, lease_expires_at=expiry()
    )
    return Lease(uuid.UUID(str(instance_id)), token) if claimed else None


class _Keeper:
    """A thread that renews the leases held in this process, while there are any."""

    def __init__(self) -> None:
        self._tokens: set[uuid.UUID] = set()
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None

    def keep(self, token: uuid.UUID) -> None:
        with self._condition:
            self._tokens.add(token)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()

    def drop(self, token: uuid.UUID) -> None:
        with self._condition:
            self._tokens.discard(token)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait(settings.LEASE_SECONDS / 3)
                tokens = set(self._tokens)
            if tokens:
                self._renew(tokens)

    def _renew(self, tokens: set[uuid.UUID]) -> None:
        try:
            Instance.objects.filter(lease_token__in=tokens).update(lease_expires_at=expiry())
        except Error as error:
            logger.warning("leases not renewed: %s", error)
        finally:
            connection.close()


_keeper = _Keeper()
