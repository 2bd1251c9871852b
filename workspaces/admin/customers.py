"""Plans, members and what they did, for operators.

Plans can be changed. Who belongs to a workspace is its owners' decision: an operator who made
themselves a member would see its data without being let in.
"""

from django.contrib import admin
from django.db.models import Count, Prefetch, Q, QuerySet
from django.http import HttpRequest

from accounts.models import User
from deploy.admin import ReadOnlyAdmin
from workspaces.models import Activity, Member, Plan

_named_user = Prefetch("user", User.objects.with_names())


@admin.register(Plan)
class PlanAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """What workspaces may use. A changed plan counts for workspaces made from then on."""

    list_display = (
        "name",
        "is_default",
        "memory_mb",
        "cpus",
        "pids",
        "idle_seconds",
        "internet",
        "max_workspaces",
        "spares",
        "used_by",
    )
    search_fields = ("name",)
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        """Plans with how many workspaces have each."""
        live = Count("workspaces", filter=Q(workspaces__deleted_at=None))
        found: QuerySet[Plan] = super().get_queryset(request)
        return found.annotate(used=live)

    @admin.display(description="workspaces", ordering="used")
    def used_by(self, plan: Plan) -> int:
        """How many workspaces have it."""
        return int(getattr(plan, "used", 0))

    def has_delete_permission(self, request: HttpRequest, obj: Plan | None = None) -> bool:
        """Nobody can be without the default plan."""
        return super().has_delete_permission(request, obj) and not (obj and obj.is_default)


@admin.register(Member)
class MemberAdmin(ReadOnlyAdmin):
    """Who belongs where."""

    list_display = ("workspace", "user", "role", "created_at")
    list_filter = ("role", "created_at")
    search_fields = ("workspace__slug", "workspace__name", "user__emailaddress__email")
    search_help_text = "A workspace or an email address"
    ordering = ("-id",)
    list_select_related = ("workspace",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Member]:
        """Members with their names, in one more query."""
        return super().get_queryset(request).prefetch_related(_named_user)

    def has_delete_permission(self, request: HttpRequest, obj: Member | None = None) -> bool:
        """Whoever may, or else no user who belongs somewhere could be deleted."""
        return admin.ModelAdmin.has_delete_permission(self, request, obj)


@admin.register(Activity)
class ActivityAdmin(ReadOnlyAdmin):
    """Who did what, newest first. It is a record, so nobody changes it."""

    list_display = ("at", "workspace", "user", "verb", "detail")
    list_filter = ("verb", "at")
    search_fields = ("workspace__slug", "workspace__name", "user__emailaddress__email", "detail")
    search_help_text = "A workspace, an email address or words of the detail"
    ordering = ("-id",)
    list_select_related = ("workspace",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Activity]:
        """Deeds with the names of who did them, in one more query."""
        return super().get_queryset(request).prefetch_related(_named_user)
