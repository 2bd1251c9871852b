"""Plans, workspaces and members, for operators.

Plans and members can be changed. A workspace itself is only looked at: what is done to one goes
through workspaces.services, so that its instance follows.
"""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse

from accounts.models import User
from workspaces import members, plans
from workspaces.models import Activity, Member, Plan, Role, Workspace
from workspaces.services import Refused

_named_user = Prefetch("user", User.objects.with_names())


class StateFilter(admin.SimpleListFilter):
    """Whether a workspace is there, deleted and restorable, or gone."""

    title = "state"
    parameter_name = "state"
    choices_by_value = {
        "live": ("there", Q(deleted_at=None)),
        "deleted": ("deleted, data kept", Q(deleted_at__isnull=False, instance__purged_at=None)),
        "purged": ("gone", Q(instance__purged_at__isnull=False)),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer the three."""
        return [(value, words) for value, (words, _) in self.choices_by_value.items()]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Workspace]
    ) -> QuerySet[Workspace] | None:
        """Keep those in the chosen state."""
        chosen = self.choices_by_value.get(self.value() or "")
        return queryset.filter(chosen[1]) if chosen else None


@admin.register(Plan)
class PlanAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """What workspaces may use. When it changes, those that have it follow, a few at a time."""

    change_form_template = "admin/workspaces/plan.html"
    list_display = (
        "name",
        "is_default",
        "memory_mb",
        "cpus",
        "pids",
        "idle_seconds",
        "internet",
        "disk_mb",
        "max_workspaces",
        "max_members",
        "spares",
        "used_by",
    )
    search_fields = ("name",)
    ordering = ("name",)

    class Media:
        css = {"all": ("workspaces/admin.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        """Plans with how many workspaces have each."""
        live = Count("workspaces", filter=Q(workspaces__deleted_at=None))
        found: QuerySet[Plan] = super().get_queryset(request)
        return found.annotate(used=live)

    def save_model(self, request: HttpRequest, obj: Plan, form: Any, change: bool) -> None:
        """Have the workspaces that have it follow."""
        super().save_model(request, obj, form, change)
        plans.follow_soon()

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Show how far its workspaces follow it."""
        plan: Plan | None = kwargs.get("obj")
        if plan is not None:
            context["progress"] = plans.progress().get(plan.pk, plans.Progress())
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="workspaces", ordering="used")
    def used_by(self, plan: Plan) -> int:
        """How many workspaces have it."""
        return int(getattr(plan, "used", 0))

    def has_delete_permission(self, request: HttpRequest, obj: Plan | None = None) -> bool:
        """Nobody can be without the default plan."""
        return super().has_delete_permission(request, obj) and not (obj and obj.is_default)


def _hold_to_limit(workspace: Workspace, coming: int) -> None:
    """Raise ValidationError unless so many more may come. The admin's transaction goes on."""
    rows = Workspace.objects.select_for_update(of=("self",)).select_related("plan")
    try:
        members.room_for_another(rows.get(pk=workspace.pk), coming)
    except Refused as refusal:
        raise forms.ValidationError(str(refusal)) from refusal


class MemberFormSet(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """The members of one workspace: no more than its plan allows."""

    def clean(self) -> None:
        """Count those that come and those that go."""
        super().clean()
        coming = sum(bool(form.has_changed()) for form in self.extra_forms)
        if coming:
            _hold_to_limit(self.instance, coming - len(self.deleted_forms))


class MemberForm(forms.ModelForm):  # type: ignore[type-arg]
    """A member: a new one only while the plan has room."""

    def clean(self) -> dict[str, Any]:
        """Count them."""
        said: dict[str, Any] = super().clean() or {}
        workspace = said.get("workspace")
        if workspace is not None and workspace.pk != self.initial.get("workspace"):
            _hold_to_limit(workspace, 1)
        return said


class MemberInline(admin.TabularInline):  # type: ignore[type-arg]
    """Who belongs to a workspace."""

    model = Member
    formset = MemberFormSet
    extra = 0
    raw_id_fields = ("user",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Member]:
        """Members with their names, in one more query."""
        return super().get_queryset(request).prefetch_related(_named_user)


@admin.register(Workspace)
class WorkspaceAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """What customers have, found by name, address, or a member's email address."""

    list_display = ("slug", "name", "status", "owners", "plan", "created_at", "deleted_at")
    list_filter = (
        StateFilter,
        "instance__desired",
        "instance__observed",
        "instance__stop_reason",
        "plan",
        "created_at",
    )
    search_fields = ("slug", "name", "=id", "=instance__id", "members__user__emailaddress__email")
    search_help_text = "A name, an address, an id or a member's email address"
    ordering = ("-created_at",)
    list_select_related = ("plan", "instance")
    list_per_page = 50
    fields = (
        "name",
        "slug",
        "status",
        "suspended_reason",
        "plan",
        "instance",
        "created_at",
        "deleted_at",
        "purged_at",
    )
    readonly_fields = fields
    inlines = (MemberInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Workspace]:
        """Workspaces with their owners' names, in two more queries however many there are."""
        owners = Member.objects.filter(role=Role.OWNER).prefetch_related(_named_user)
        found: QuerySet[Workspace] = super().get_queryset(request)
        return found.prefetch_related(Prefetch("members", owners, to_attr="owning"))

    @admin.display(description="status")
    def status(self, workspace: Workspace) -> str:
        """What people see."""
        return workspace.status.value

    @admin.display(description="owners")
    def owners(self, workspace: Workspace) -> str:
        """Who owns it."""
        owning: list[Member] = getattr(workspace, "owning", [])
        return ", ".join(str(member.user) for member in owning)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Workspaces are made by their owners, with an instance."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Workspace | None = None) -> bool:
        """Deleting a row would leave a container and a volume behind."""
        return False


@admin.register(Member)
class MemberAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Who belongs where."""

    form = MemberForm
    list_display = ("workspace", "user", "role", "created_at")
    list_filter = ("role", "created_at")
    search_fields = ("workspace__slug", "workspace__name", "user__emailaddress__email")
    search_help_text = "A workspace or an email address"
    ordering = ("-id",)
    list_select_related = ("workspace",)
    list_per_page = 50
    raw_id_fields = ("workspace", "user")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Member]:
        """Members with their names, in one more query."""
        return super().get_queryset(request).prefetch_related(_named_user)


@admin.register(Activity)
class ActivityAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Who did what, newest first. It is a record, so nobody changes it."""

    list_display = ("at", "workspace", "user", "verb", "detail")
    list_filter = ("verb", "at")
    search_fields = ("workspace__slug", "workspace__name", "user__emailaddress__email", "detail")
    search_help_text = "A workspace, an email address or words of the detail"
    ordering = ("-id",)
    list_select_related = ("workspace",)
    list_per_page = 50
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Activity]:
        """Deeds with the names of who did them, in one more query."""
        return super().get_queryset(request).prefetch_related(_named_user)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Say no."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Activity | None = None) -> bool:
        """Say no."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Activity | None = None) -> bool:
        """Say no."""
        return False
