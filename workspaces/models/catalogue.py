"""The catalogue: releases that operators offer, plugins that they approved, who may use them."""

from datetime import timedelta
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from packaging.version import InvalidVersion, Version

from deploy import locks
from deploy.models import Image

# Words that are not spelled as package names are.
_SPELLINGS = {
    "csv": "CSV",
    "csvs": "CSV files",
    "dbs": "databases",
    "fts": "full-text search",
    "jinja": "Jinja",
    "json": "JSON",
    "python": "Python",
    "re2": "RE2",
    "sql": "SQL",
}

# So long before an approval expires, operators are asked whether it is still good.
EXPIRES_SOON = timedelta(days=30)


class Release(models.Model):
    """A Datasette version that the operators offer, with all that every image of it holds."""

    version = models.CharField(max_length=40, unique=True)
    lock = models.TextField(help_text="Every package of its images, with the sha256 of each file.")
    prerelease = models.BooleanField(default=False)
    offered = models.BooleanField(default=True)
    # The one with nothing but what is required: what a new workspace gets. None until it is built.
    image = models.ForeignKey(
        Image, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    is_default = models.BooleanField(default=False)
    # Why its image could not be built, the last time that was tried.
    error = models.TextField(blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["is_default"], condition=Q(is_default=True), name="one_default_release"
            ),
        ]

    def __str__(self) -> str:
        return f"Datasette {self.version}"

    @property
    def pins(self) -> dict[str, locks.Pin]:
        """What every image of it holds, by package."""
        return locks.parse(self.lock)


class Plugin(models.Model):
    """A package in the catalogue, with what the index says of its newest version."""

    class State(models.TextChoices):
        READING = "reading", "being read from the package index"
        KNOWN = "known"
        REFUSED = "refused"

    name = models.CharField(max_length=100, unique=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.READING)
    error = models.TextField(blank=True)
    newest = models.CharField("newest version", max_length=60, blank=True)
    summary = models.CharField(max_length=300, blank=True)
    # What customers read; where it is empty, the package's own summary.
    description = models.TextField(blank=True, max_length=600)
    licence = models.CharField(max_length=100, blank=True)
    home_page = models.URLField(max_length=300, blank=True)
    requires_python = models.CharField(max_length=100, blank=True)
    requires_datasette = models.CharField(max_length=100, blank=True)
    requires = models.JSONField(default=list, blank=True)
    # Ours: it comes with this software and not from an index.
    own = models.BooleanField(default=False, editable=False)
    added_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    added_at = models.DateTimeField(default=timezone.now, editable=False)
    read_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def words(self) -> str:
        """What it is for, in words."""
        return self.description or self.summary

    @property
    def title(self) -> str:
        """Its name as people read it: without what all of them have in common."""
        words = self.name.removeprefix("datasette-").split("-")
        title = " ".join(_SPELLINGS.get(word, word) for word in words)
        return title[0].upper() + title[1:]

    def newer_than(self, version: str) -> str:
        """The newest version where it is newer than this one; else, or for no version, nothing."""
        try:
            return self.newest if Version(self.newest) > Version(version) else ""
        except InvalidVersion:
            return ""


class Approval(models.Model):
    """An operator's yes to one exact version of a plugin on one release.

    The lock names every package that it adds to the release, with the sha256 of each file.
    """

    class State(models.TextChoices):
        LOCKING = "locking", "being locked"
        ACTIVE = "active"
        FAILED = "failed"
        REPLACED = "replaced", "replaced by a newer approval"
        WITHDRAWN = "withdrawn"

    class Reach(models.TextChoices):
        """Who may use it."""

        EVERYONE = "everyone"
        GRANTED = "granted", "only workspaces with a grant"

    plugin = models.ForeignKey(Plugin, on_delete=models.PROTECT, related_name="approvals")
    release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="approvals")
    version = models.CharField(max_length=60)
    lock = models.TextField(blank=True, editable=False)
    state = models.CharField(
        max_length=10, choices=State.choices, default=State.LOCKING, editable=False
    )
    error = models.TextField(blank=True, editable=False)
    reach = models.CharField(max_length=10, choices=Reach.choices, default=Reach.GRANTED)
    required = models.BooleanField("part of every image", default=False)
    needs_internet = models.BooleanField(default=False)
    # [{"name": "OPENCAGE_KEY", "help": "…", "option": "key"}]: asked of the customer, kept as a
    # secret, given to the container under this name and, with `option`, to the plugin's settings.
    needs = models.JSONField(default=list, blank=True)
    note = models.TextField(blank=True, max_length=600)
    # It came with this software, and nobody decided it. Not to be told from `by`: accounts go.
    shipped = models.BooleanField(default=False, editable=False)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    at = models.DateTimeField(default=timezone.now, editable=False)
    # From then on nobody new switches it on; None: never. What has it keeps it.
    expires_at = models.DateTimeField(null=True, blank=True, editable=False)
    ended_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["plugin", "release"],
                condition=Q(state="active"),
                name="one_approval_per_plugin_and_release",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.plugin} {self.version} on {self.release}"

    @property
    def has_expired(self) -> bool:
        """Whether its time is over, so that nobody new may switch it on."""
        return self.expires_at is not None and self.expires_at <= timezone.now()

    @property
    def expires_soon(self) -> bool:
        """Whether an operator should decide about it: its time ends soon, or is over."""
        soon = timezone.now() + EXPIRES_SOON
        return self.expires_at is not None and self.expires_at < soon

    @property
    def pins(self) -> dict[str, locks.Pin]:
        """What it adds to the release, by package; itself included."""
        return locks.parse(self.lock)


class Grant(models.Model):
    """The permission of one workspace to use a plugin that is not for everyone."""

    plugin = models.ForeignKey(Plugin, on_delete=models.CASCADE, related_name="grants")
    workspace = models.ForeignKey("Workspace", on_delete=models.CASCADE, related_name="grants")
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["plugin", "workspace"], name="one_grant"),
        ]

    def __str__(self) -> str:
        return f"{self.plugin} for {self.workspace}"
