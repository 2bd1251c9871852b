"""Plans, members and what they did, for operators.

Plans can be changed. Who belongs to a workspace is its owners' decision: an operator who made
themselves a member would see its data without being let in.
"""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminIntegerFieldWidget
from django.db.models import Count, Exists, OuterRef, Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from accounts.admin import UserAdmin, operator
from accounts.models import User
from deploy.admin import ReadOnlyAdmin
from workspaces import deeds, plans
from workspaces.models import Activity, Member, Plan, Role
from workspaces.services import Refused

_named_user = Prefetch("user", User.objects.with_names())


class PlanForm(forms.ModelForm):  # type: ignore[type-arg]
    """What the API takes; what it refuses, refused at its field."""

    disk_mb = forms.IntegerField(
        label="Disk (MiB)", min_value=1, initial=10_240, widget=AdminIntegerFieldWidget
    )

    def clean_is_default(self) -> bool:
        """Say that there is always a default, before plans.change does."""
        wanted = bool(self.cleaned_data["is_default"])
        if self.instance.pk and self.instance.is_default and not wanted:
            raise forms.ValidationError(plans.NO_DEFAULT)
        return wanted

    def _get_validation_exclusions(self) -> set[str]:
        """Leave to `plans` that there is one default: it takes that from the one that has it."""
        inherited: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]
        return {*inherited, "is_default"}


@admin.register(Plan)
class PlanAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """What workspaces may use. When it changes, those that have it follow, a few at a time."""

    form = PlanForm
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

    def changeform_view(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponse | HttpResponseRedirect:
        """Say it in words where somebody else was faster."""
        try:
            return super().changeform_view(request, *args, **kwargs)
        except Refused as refusal:
            messages.error(request, str(refusal))
            return HttpResponseRedirect(request.get_full_path())

    def save_model(self, request: HttpRequest, obj: Plan, form: Any, change: bool) -> None:
        """Do what the API does, which leaves the line in the history as well."""
        who, said = operator(request), form.cleaned_data
        if change:
            deeds.change_plan(obj, who, {name: said[name] for name in form.changed_data})
        else:
            obj.pk = deeds.add_plan(who, said).pk

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> None:  # type: ignore[override]
        """The deed did."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> None:  # type: ignore[override]
        """The deed did."""

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


# --- who alone owns something stays --------------------------------------------------------------

Deleted = tuple[list[Any], dict[str, int], set[str], list[Any]]


def _kept(deleted: Deleted, leaving: QuerySet[Member]) -> Deleted:
    """Keep an operator from deleting the last owners of workspaces: say what to do first."""
    others = Member.objects.filter(role=Role.OWNER, user__is_active=True)
    others = others.exclude(pk__in=leaving.values("pk")).filter(workspace=OuterRef("workspace"))
    last = leaving.filter(~Exists(others), role=Role.OWNER, workspace__deleted_at=None)
    slugs = last.order_by("workspace__slug").values_list("workspace__slug", flat=True).distinct()
    words = [
        f"{slug}, of which no other owner is left: give it one, or delete it" for slug in slugs
    ]
    *others_of_django, protected = deleted
    return (*others_of_django, [*protected, *words])  # type: ignore[return-value]


admin.site.unregister(User)


@admin.register(User)
class CustomersAdmin(UserAdmin):
    """Users, as accounts shows them, but no workspace loses its last owner with one."""

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Deleted:
        """Say what would go with them, and what keeps them."""
        leaving = Member.objects.filter(user__in=[user.pk for user in objs])
        return _kept(super().get_deleted_objects(objs, request), leaving)


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

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Deleted:
        """Say what would go with them, and what keeps them."""
        leaving = Member.objects.filter(pk__in=[member.pk for member in objs])
        return _kept(super().get_deleted_objects(objs, request), leaving)

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
