"""Changes of a workspace's plugin set: what was wanted, how far it came, and how it ended."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from deploy.models import Image
from workspaces.models.catalogue import Approval, Release


class Step(models.TextChoices):
    """What is done for a change, in this order."""

    RESOLVE = "resolve", "Check that they fit together"
    FETCH = "fetch", "Fetch the approved files"
    BUILD = "build", "Build the image"
    CHECK = "check", "Start it once, to see that it works"
    SWITCH = "switch", "Switch over"


class Rollout(models.Model):
    """The move of all workspaces of one release to another one, in batches."""

    class State(models.TextChoices):
        RUNNING = "running"
        STOPPED = "stopped"
        DONE = "done"

    from_release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="+")
    to_release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="rollouts")
    batch_size = models.PositiveSmallIntegerField(default=5)
    state = models.CharField(max_length=10, choices=State.choices, default=State.RUNNING)
    # Why it stopped: which workspace, and what went wrong there.
    error = models.TextField(blank=True)
    # {slug: why} of the workspaces that stay where they are.
    skipped = models.JSONField(default=dict, blank=True)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "roll-out"
        ordering: ClassVar[list[str]] = ["-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["from_release"],
                condition=Q(state="running"),
                name="one_running_rollout",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.from_release} → {self.to_release}"


class Change(models.Model):
    """One change of a workspace's set of plugins, from one set to another."""

    class State(models.TextChoices):
        """How far a change is, or how it ended."""

        OPEN = "open", "under way"
        DONE = "done"
        FAILED = "failed"
        ROLLED_BACK = "rolled back"

    workspace = models.ForeignKey("Workspace", on_delete=models.CASCADE, related_name="changes")
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    at = models.DateTimeField(default=timezone.now, editable=False)
    state = models.CharField(max_length=12, choices=State.choices, default=State.OPEN)
    # What goes wrong, in words that name the cause.
    error = models.TextField(blank=True)
    # What a program said of it: for those who may read logs, which may hold what is in the data.
    detail = models.TextField(blank=True)
    # {step: milliseconds} of those that are done, in order.
    durations = models.JSONField(default=dict)
    step = models.CharField(max_length=10, choices=Step.choices, default=Step.RESOLVE)
    finished_at = models.DateTimeField(null=True, blank=True)

    release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="+")
    wanted = models.ManyToManyField(Approval, related_name="wanted_by", blank=True)
    # The roll-out that asked for it; None when a person did.
    rollout = models.ForeignKey(
        Rollout, null=True, blank=True, on_delete=models.SET_NULL, related_name="changes"
    )
    image = models.ForeignKey(Image, null=True, on_delete=models.PROTECT, related_name="+")
    # Its image is built also where there is one: something may be wrong with that.
    anew = models.BooleanField(default=False, db_default=False)
    # New secrets, sealed, that the switch puts into the instance, and those whose place they take.
    # Both empty once it is over.
    secrets = models.JSONField(default=dict, blank=True)
    old_secrets = models.JSONField(default=dict, blank=True)
    # What there was before, to go back to.
    old_release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="+")
    old_plugins = models.ManyToManyField(Approval, related_name="+", blank=True)
    old_image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+")

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["workspace"], condition=Q(state="open"), name="one_open_change"
            ),
        ]

    def __str__(self) -> str:
        return f"change {self.pk} of {self.workspace}: {self.state}"
