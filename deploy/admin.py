"""Images, instances and what happened to them, for operators to read.

Nothing here can be changed: deploy.lifecycle is the only writer of an instance's state.
"""

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from deploy.finding import ASKED_FOR_NEW, ASKED_TO_WAKE, UP
from deploy.models import (
    Heartbeat,
    HostFacts,
    Image,
    Instance,
    InstanceEvent,
    LogTail,
    Orphan,
)


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """A model to look at and nothing else."""

    list_per_page = 50
    # Counting a big table twice to say "12 of 4 million" is not worth it.
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Say no."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Say no."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Say no."""
        return False


class TroubleFilter(admin.SimpleListFilter):
    """Instances whose last attempts failed."""

    title = "trouble"
    parameter_name = "trouble"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer one choice."""
        return [("yes", "failed lately")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Instance]
    ) -> QuerySet[Instance] | None:
        """Keep those that failed since they last worked, and are still there."""
        failing = queryset.filter(attempts__gt=0, purged_at=None)
        return failing if self.value() == "yes" else None


class UpFilter(admin.SimpleListFilter):
    """Instances that use memory and processors now."""

    title = "container"
    parameter_name = "up"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer one choice."""
        return [("yes", "runs or is paused")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Instance]
    ) -> QuerySet[Instance] | None:
        """Keep those whose container is up."""
        return queryset.filter(UP, purged_at=None) if self.value() == "yes" else None


class NodeFilter(admin.SimpleListFilter):
    """Instances by the machine that they are on; `prefix` leads to them from the rows of a list."""

    title = "node"
    parameter_name = "node"
    prefix = ""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer the machines on which there is any."""
        there = Instance.objects.filter(purged_at=None).exclude(node="").order_by("node")
        return [(node, node) for node in there.values_list("node", flat=True).distinct()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        """Keep those on it."""
        value = self.value()
        return queryset.filter(**{f"{self.prefix}node": value}) if value else None


@admin.register(Instance)
class InstanceAdmin(ReadOnlyAdmin):
    """Every instance: what we want, what the engine says, what went wrong."""

    list_display = (
        "id",
        "status",
        "desired",
        "stop_reason",
        "observed",
        "ready",
        "spare",
        "node",
        "generation",
        "attempts",
        "last_used_at",
        "created_at",
    )
    list_filter = (
        "desired",
        "observed",
        "stop_reason",
        "ready",
        "spare",
        NodeFilter,
        TroubleFilter,
        UpFilter,
        "created_at",
    )
    search_fields = ("id", "volume", "image__reference", "last_error", "=node")
    search_help_text = "An id, a volume, an image, an error or a node"
    ordering = ("-created_at",)
    list_select_related = ("image",)
    # The key opens the instance's door, so it is shown to nobody.
    exclude = ("key",)
    readonly_fields = ("status", "what_happened")

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Let the front page link to those with one cause."""
        return lookup == "last_error" or super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]

    @admin.display(description="status")
    def status(self, instance: Instance) -> str:
        """What people see."""
        return instance.status.value

    @admin.display(description="what happened")
    def what_happened(self, instance: Instance) -> SafeString:
        """Link to its events."""
        address = reverse("admin:deploy_instanceevent_changelist")
        return format_html('<a href="{}?instance={}">its events</a>', address, instance.pk)


class AskedFilter(admin.SimpleListFilter):
    """Events with which people began to wait."""

    title = "people waited for"
    parameter_name = "asked"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer what they wait for."""
        return [("new", "a new workspace"), ("awake", "one that slept")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[InstanceEvent]
    ) -> QuerySet[InstanceEvent] | None:
        """Keep those."""
        asked = {"new": ASKED_FOR_NEW, "awake": ASKED_TO_WAKE}.get(self.value() or "")
        return queryset.filter(asked) if asked else None


@admin.register(InstanceEvent)
class InstanceEventAdmin(ReadOnlyAdmin):
    """What was asked of, done to and seen of instances, newest first."""

    list_display = ("at", "instance_id", "kind", "message", "duration_ms", "failed", "generation")
    list_filter = ("failed", AskedFilter, "kind", "at")
    search_fields = ("=instance__id", "=request_id", "message", "kind")
    search_help_text = "An instance's whole id, that of a request, a kind or a message"
    ordering = ("-id",)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Let an instance's page link to its events."""
        return lookup == "instance" or super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]


@admin.register(Image)
class ImageAdmin(ReadOnlyAdmin):
    """What was built, and what did not build."""

    list_display = ("reference", "state", "used_by", "created_at", "built_at")
    list_filter = ("state", "created_at")
    search_fields = ("reference", "digest", "error")
    ordering = ("-created_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Image]:
        """Images with how many instances use each."""
        found: QuerySet[Image] = super().get_queryset(request)
        return found.annotate(used=Count("instances"))

    @admin.display(description="instances", ordering="used")
    def used_by(self, image: Image) -> int:
        """How many instances have it in their spec."""
        return int(getattr(image, "used", 0))


@admin.register(Orphan)
class OrphanAdmin(ReadOnlyAdmin):
    """What the engine has and no row knows; removed after a grace period."""

    list_display = ("name", "kind", "first_seen_at")
    list_filter = ("kind",)
    search_fields = ("name",)
    ordering = ("-first_seen_at",)


@admin.register(LogTail)
class LogTailAdmin(ReadOnlyAdmin):
    """The last lines of instances' logs, as somebody last asked for them."""

    list_display = ("instance_id", "fetched_at")
    search_fields = ("=instance__id",)
    ordering = ("-fetched_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[LogTail]:
        """Log tails; a list of them does not need their texts."""
        found: QuerySet[LogTail] = super().get_queryset(request)
        return found.defer("text")


@admin.register(HostFacts)
class HostFactsAdmin(ReadOnlyAdmin):
    """What the engines' machines have, as a worker last saw it."""

    list_display = ("name", "engine", "cores", "memory_mb", "disk_mb", "disk_free_mb", "at")
    ordering = ("name",)


@admin.register(Heartbeat)
class HeartbeatAdmin(ReadOnlyAdmin):
    """When each queue was last worked off."""

    list_display = ("queue", "at")
    search_fields = ("queue",)
    ordering = ("queue",)
