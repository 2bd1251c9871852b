"""Images, instances and what happened to them. Customers, plans and users are not known here.

Only deploy.lifecycle writes an Instance's state; everybody else asks it to.
"""

import uuid
from enum import StrEnum
from typing import ClassVar

from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Q
from django.utils import timezone

from deploy.states import (
    MEBIBYTE,
    Desired,
    DiskLevel,
    Observed,
    Status,
    StopReason,
    is_moving,
    status_of,
)


def _choices(enum: type[StrEnum]) -> list[tuple[str, str]]:
    return [(member.value, member.name.lower()) for member in enum]


class Image(models.Model):
    """One built plugin set, named by the hash of everything that went into it."""

    class State(models.TextChoices):
        BUILDING = "building"
        READY = "ready"
        FAILED = "failed"
        PRUNED = "pruned", "removed, for nothing uses it"

    digest = models.CharField(max_length=64, unique=True)
    reference = models.CharField(max_length=200, unique=True)
    inputs = models.JSONField(default=dict)
    state = models.CharField(max_length=10, choices=State.choices, default=State.BUILDING)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    built_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.reference


class Instance(models.Model):
    """The running side of one workspace: one container and one data volume."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # The key that its container accepts actor tokens with, and no other container does.
    key = models.CharField(max_length=64, editable=False)
    # Empty once a successor has taken it over.
    volume = models.CharField(max_length=120, blank=True, editable=False)

    # The history that its events are part of. A successor takes it over, and with a claim a new one
    # begins; so what they have in common is found by one value that stays.
    history = models.UUIDField(default=uuid.uuid4, editable=False)

    # Made ahead of time, for whoever comes next: nobody has claimed it yet.
    spare = models.BooleanField(default=False, db_default=False, editable=False)
    # When it last said that its volume holds nobody's data. The row alone does not know: it may
    # come from a backup of before somebody claimed it.
    pristine_at = models.DateTimeField(null=True, blank=True, editable=False)

    # The spec. Changing it raises the generation.
    generation = models.PositiveIntegerField(default=1, editable=False)
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="instances")
    memory_mb = models.PositiveIntegerField(default=512)
    cpus = models.FloatField(default=1.0)
    pids = models.PositiveIntegerField(default=128)
    internet = models.BooleanField(default=False)
    # Environment of the container by name, each value sealed by deploy.vault.
    secrets = models.JSONField(default=dict, blank=True, editable=False)
    # Settings of its plugins, {plugin: {option: value}}; a secret stands there as {"$env": name}.
    plugin_settings = models.JSONField(default=dict, blank=True, editable=False)
    idle_seconds = models.PositiveIntegerField(default=900)
    # How much its volume may hold, in MiB; every probe tells it, so it holds without a restart.
    disk_mb = models.PositiveIntegerField(default=10_240, db_default=10_240)

    # What it last said that it uses: deploy.usage asks.
    disk_bytes = models.PositiveBigIntegerField(null=True, blank=True, editable=False)
    disk_measured_at = models.DateTimeField(null=True, blank=True, editable=False)
    # What people were last told of its disk: an event says only what is news.
    disk_level = models.CharField(
        max_length=12,
        choices=_choices(DiskLevel),
        default=DiskLevel.FINE,
        db_default="fine",
        editable=False,
    )
    # What it had used then since its process began, for the next difference: usage.Counters.
    counters = models.JSONField(null=True, blank=True, editable=False)

    # What we want.
    desired = models.CharField(
        max_length=8, choices=_choices(Desired), default=Desired.RUNNING, editable=False
    )
    stop_reason = models.CharField(
        max_length=8, choices=_choices(StopReason), default=StopReason.NONE, blank=True
    )
    purge_at = models.DateTimeField(null=True, blank=True, editable=False)
    # The deleted instance whose volume this one took over, when a deletion was undone.
    predecessor = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="successors"
    )

    # What the engine last said.
    observed = models.CharField(
        max_length=8, choices=_choices(Observed), default=Observed.ABSENT, editable=False
    )
    observed_generation = models.PositiveIntegerField(null=True, blank=True, editable=False)
    ready = models.BooleanField(default=False, editable=False)
    endpoint = models.CharField(max_length=200, blank=True, editable=False)
    # The machine that its container is on, or was last: HostFacts.name. Empty until one is seen.
    node = models.CharField(max_length=200, blank=True, default="", db_default="", editable=False)
    started_at = models.DateTimeField(null=True, blank=True, editable=False)
    ready_at = models.DateTimeField(null=True, blank=True, editable=False)
    purged_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(default=timezone.now, editable=False)
    # The status that the last event told of: an event says only what is news.
    announced = models.CharField(max_length=12, blank=True, default="", db_default="")

    # What went wrong, and when to try again.
    attempts = models.PositiveIntegerField(default=0, editable=False)
    next_attempt_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_error = models.TextField(blank=True, editable=False)

    # Who works on it. The revision counts requests: a worker that missed one goes round again.
    revision = models.PositiveBigIntegerField(default=0, editable=False)
    lease_token = models.UUIDField(null=True, blank=True, editable=False)
    lease_expires_at = models.DateTimeField(null=True, blank=True, editable=False)

    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            # The status table would have no answer for a stop without a reason.
            models.CheckConstraint(
                name="stopped_has_a_reason",
                condition=Q(desired=Desired.STOPPED) ^ Q(stop_reason=StopReason.NONE),
            ),
            models.CheckConstraint(
                name="ready_is_running",
                # An engine that does not answer says nothing of a container that does.
                condition=Q(ready=False) | Q(observed__in=[Observed.RUNNING, Observed.UNKNOWN]),
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["desired", "observed"], name="instance_states"),
            models.Index(fields=["created_at"], condition=Q(spare=True), name="spares"),
            models.Index(fields=["attempts"], condition=Q(attempts__gt=0), name="failing"),
        ]

    def __str__(self) -> str:
        return f"instance {self.id}"

    @property
    def status(self) -> Status:
        """What people see."""
        return status_of(
            Desired(self.desired),
            Observed(self.observed),
            ready=self.ready,
            stop_reason=StopReason(self.stop_reason),
            attempts=self.attempts,
            purged=self.purged_at is not None,
        )

    @property
    def is_moving(self) -> bool:
        """Whether the status is about to change by itself."""
        return is_moving(Desired(self.desired), self.status)

    @property
    def disk_limit(self) -> int:
        """How much its volume may hold, in bytes."""
        return self.disk_mb * MEBIBYTE


class InstanceEvent(models.Model):
    """Something that was asked of, done to, or seen of an instance. Append only.

    Events of one history get their ids in the order in which they are committed, because whoever
    writes one holds the instance's row, and only one instance at a time writes a history. So a
    reader that knows the last id misses nothing.
    """

    instance = models.ForeignKey(Instance, on_delete=models.CASCADE, related_name="events")
    # The instance's, then.
    history = models.UUIDField(null=True, editable=False)
    at = models.DateTimeField(default=timezone.now, editable=False)
    generation = models.PositiveIntegerField()
    # A plan.Action, a request (want_running, …) or an observation (exited, …).
    kind = models.CharField(max_length=30)
    message = models.TextField(blank=True)
    duration_ms = models.PositiveIntegerField(null=True, blank=True)
    failed = models.BooleanField(default=False)
    # The status that people see from here on; empty when this changed nothing about it.
    status = models.CharField(max_length=12, blank=True, default="", db_default="")
    # Of the request that it follows from, if any: see deploy.trace.
    request_id = models.CharField(max_length=64, blank=True, default="", db_default="")

    class Meta:
        ordering: ClassVar[list[str]] = ["id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["instance", "id"], name="events_of_instance"),
            models.Index(fields=["history", "id"], name="events_of_history"),
            # What the operators' front page counts over time: few of all events.
            models.Index(
                fields=["kind", "at"],
                condition=Q(kind__in=["wake", "create_requested", "claimed"]),
                name="events_that_people_wait_for",
            ),
            models.Index(fields=["at"], condition=Q(failed=True), name="events_that_failed"),
            # They are written in the order of time, so that this is small.
            BrinIndex(fields=["at"], name="events_by_time", pages_per_range=16),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.message}".strip()


class UsageHour(models.Model):
    """What an instance used within one hour, by its history: a successor goes on with it."""

    history = models.UUIDField()
    hour = models.DateTimeField()
    samples = models.PositiveIntegerField(default=0)
    memory_peak = models.PositiveBigIntegerField("most memory seen (bytes)", default=0)
    memory_sum = models.PositiveBigIntegerField("memory of all samples (bytes)", default=0)
    cpu_seconds = models.FloatField(default=0)
    requests = models.PositiveBigIntegerField(default=0)
    awake_seconds = models.FloatField(default=0)
    disk_bytes = models.PositiveBigIntegerField("most disk seen (bytes)", default=0)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["history", "hour"], name="one_row_an_hour"),
        ]
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["hour"], name="usage_hours")]

    def __str__(self) -> str:
        return f"usage of {self.history} at {self.hour:%Y-%m-%d %H:00}"


class Orphan(models.Model):
    """A container or volume in our namespace that no row knows. Reported, then removed."""

    name = models.CharField(max_length=120, unique=True)
    kind = models.CharField(
        max_length=10, choices=[("container", "container"), ("volume", "volume")]
    )
    first_seen_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class LogTail(models.Model):
    """The last lines of an instance's log, fetched by a worker for a page to show.

    The web process never touches the engine, so it asks for this row instead.
    """

    instance = models.OneToOneField(Instance, on_delete=models.CASCADE, related_name="log_tail")
    text = models.TextField(blank=True)
    fetched_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"log of {self.instance_id}"


class HostFacts(models.Model):
    """What the machine of an engine has, as a worker saw it: the web may not ask the engine."""

    # As the engine calls itself.
    name = models.CharField(max_length=200, unique=True)
    at = models.DateTimeField(default=timezone.now)
    engine = models.CharField(max_length=100, blank=True)
    cores = models.PositiveIntegerField()
    memory_mb = models.PositiveIntegerField()
    # Of the file system that images and volumes are on; None where the worker cannot see it.
    disk_mb = models.PositiveIntegerField(null=True, blank=True)
    disk_free_mb = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "host facts"

    def __str__(self) -> str:
        return self.name


class Heartbeat(models.Model):
    """When a queue was last worked off: beat puts a beat into each, and its worker writes this.

    So an old one says that beat, Redis or the worker is away, or that the worker is stuck.
    """

    queue = models.CharField(max_length=40, unique=True)
    at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"queue {self.queue}"
