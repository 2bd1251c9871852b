"""What a customer has: workspaces, who belongs to them, what they may use, and what was done."""

import uuid
from typing import ClassVar

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from deploy.lifecycle import Limits
from deploy.models import Instance
from deploy.states import Status
from workspaces.handoff_tokens import START
from workspaces.models.catalogue import Approval, Release


class Plan(models.Model):
    """What a workspace may use. Sizes in MiB and CPU cores, times in seconds."""

    name = models.CharField(max_length=50, unique=True)
    is_default = models.BooleanField(default=False)
    # A changed plan replaces the containers of those that have it: no container is made that could
    # never start. The API asks for the same.
    memory_mb = models.PositiveIntegerField(
        "memory (MiB)", default=512, validators=[MinValueValidator(64)]
    )
    cpus = models.FloatField("CPU cores", default=1.0, validators=[MinValueValidator(0.05)])
    pids = models.PositiveIntegerField("processes", default=128, validators=[MinValueValidator(16)])
    idle_seconds = models.PositiveIntegerField("sleeps after idle seconds", default=900)
    internet = models.BooleanField("may reach the internet", default=False)
    # Warned at 80 %, read-only when full. What is there already is never taken away.
    disk_mb = models.PositiveIntegerField("disk (MiB)", default=10_240, db_default=10_240)
    max_workspaces = models.PositiveIntegerField("workspaces per owner", default=10)
    max_members = models.PositiveIntegerField(
        "members of a workspace", default=25, db_default=25, validators=[MinValueValidator(1)]
    )
    # Each costs about 40 MiB of memory, and makes one new workspace come up at once.
    spares = models.PositiveIntegerField("spares kept ready", default=2, db_default=2)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["is_default"], condition=Q(is_default=True), name="one_default_plan"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def limits(self) -> Limits:
        """What an instance of this plan may use."""
        return Limits(
            memory_mb=self.memory_mb,
            cpus=self.cpus,
            pids=self.pids,
            internet=self.internet,
            idle_seconds=self.idle_seconds,
            disk_mb=self.disk_mb,
        )


class Visibility(models.TextChoices):
    """Who may read a workspace: its members, or everybody. Nobody but members changes anything."""

    PRIVATE = "private"
    PUBLIC = "public"


class Workspace(models.Model):
    """What a customer owns: a name, an address (slug), members and, in its instance, data."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=80)
    slug = models.SlugField(max_length=40)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="workspaces")
    release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="workspaces")
    # What its owners switched on; what is required is in every image anyway.
    plugins = models.ManyToManyField(Approval, related_name="workspaces", blank=True)
    instance = models.OneToOneField(Instance, on_delete=models.PROTECT, related_name="workspace")
    visibility = models.CharField(
        max_length=10,
        choices=Visibility.choices,
        default=Visibility.PRIVATE,
        db_default=Visibility.PRIVATE,
    )
    # What an integrator wants to remember of it, {name: text}: ours to keep, theirs to understand.
    metadata = models.JSONField(default=dict, blank=True)
    # Why the operators suspended it, for its members; empty when they did not. It outlasts a
    # deletion, so that bringing it back does not lift a suspension.
    suspended_reason = models.CharField(max_length=200, blank=True, default="", db_default="")
    # Until when the operators may look at its data, as an owner allowed; None for never.
    support_until = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False, db_index=True)
    # Deletion was asked for; until the instance is purged it can be undone.
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)
    # The data is gone and the slug is free again.
    purged_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["slug"], condition=Q(purged_at=None), name="one_workspace_per_slug"
            ),
        ]

    def __str__(self) -> str:
        return self.slug

    def get_absolute_url(self) -> str:
        """The workspace's page on the cloud host."""
        return f"/workspaces/{self.slug}/"

    @property
    def status(self) -> Status:
        """What people see."""
        return self.instance.status

    @property
    def is_public(self) -> bool:
        """Whether everybody may read it."""
        return self.visibility == Visibility.PUBLIC

    @property
    def support_access(self) -> bool:
        """Whether the operators may look at its data now."""
        return self.support_until is not None and self.support_until > timezone.now()

    @property
    def url(self) -> str:
        """The workspace's own address."""
        return f"{settings.SCHEME}://{self.slug}.{settings.APPS_DOMAIN}/"

    @property
    def door(self) -> str:
        """Where members go in. A public one asks nobody who they are, so they say it first."""
        return f"{self.url.rstrip('/')}{START}?/" if self.is_public else self.url


class Role(models.TextChoices):
    """What a member may do. Viewers read, editors change data, owners do all."""

    OWNER = "owner"
    EDITOR = "editor"
    VIEWER = "viewer"


class Member(models.Model):
    """A user's place in a workspace."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="members")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=10, choices=Role.choices)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["workspace", "user"], name="one_role_per_member"),
        ]

    def __str__(self) -> str:
        return f"{self.role} of {self.workspace}"


class SignInCode(models.Model):
    """A one-time code that carries a signed-in person over to a workspace's own host."""

    digest = models.CharField(max_length=64, unique=True)
    state_digest = models.CharField(max_length=64)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    session_key = models.CharField(max_length=40)
    expires_at = models.DateTimeField(db_index=True)
    used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"sign-in code for {self.workspace}"


class WorkspaceSession(models.Model):
    """Somebody signed in at a workspace's host. Ends with the cloud session that it came from."""

    digest = models.CharField(max_length=64, unique=True)
    workspace = models.ForeignKey(
        Workspace, on_delete=models.CASCADE, related_name="workspace_sessions"
    )
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    session_key = models.CharField(max_length=40, db_index=True)
    # The user's session auth hash then: a changed password ends this session as well.
    auth_hash = models.CharField(max_length=128)
    # An operator's, who came in while an owner allowed it, and whose coming is in the activity.
    for_support = models.BooleanField(default=False, db_default=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"session at {self.workspace}"


class Activity(models.Model):
    """Who did what to a workspace, for its members to read. Append only.

    Its ids come from the sequence of deploy's InstanceEvent, so that both make one history with one
    order; see workspaces.events.
    """

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="activities")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    at = models.DateTimeField(default=timezone.now, editable=False)
    verb = models.CharField(max_length=30)
    detail = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["id"]
        verbose_name_plural = "activities"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["workspace", "id"], name="deeds_of_workspace"),
        ]

    def __str__(self) -> str:
        return f"{self.verb} {self.detail}".strip()
