"""Users, for operators."""

from typing import Any, cast

import allauth.account.admin
import allauth.mfa.admin
import allauth.socialaccount.admin
import allauth.usersessions.admin  # noqa: F401  all four register what is replaced below
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from allauth.usersessions.models import UserSession
from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Prefetch, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import URLPattern, path
from django.utils import timezone

from accounts import api_tokens, audit, audit_log
from accounts.addresses import is_taken, release_claims
from accounts.forms import LinkForm
from accounts.models import ApiToken, AuditEntry, Profile, User, UserQuerySet
from accounts.sessions import end_sessions

# By what people sign in, operators do not write: whoever could add an address or a Google account
# to a person could be that person. Keys of second factors and provider tokens are nobody's to read,
# and Google is set up in the settings. What there is to see is on the user's page.
for model in (EmailAddress, SocialAccount, SocialApp, SocialToken, Authenticator, UserSession):
    admin.site.unregister(model)
# Whoever may change a group that they are in gives themselves what they like.
admin.site.unregister(Group)


class AddUserForm(forms.ModelForm):  # type: ignore[type-arg]
    """Make a user with an address. They choose the password, and verify the address, themselves."""

    email = forms.EmailField(
        help_text="They are mailed a link to choose a password. When they sign in for the first "
        "time, they confirm the address."
    )

    class Meta:
        model = User
        fields = ("is_staff",)

    def clean_email(self) -> str:
        """Lower-case, and nobody else's."""
        email: str = self.cleaned_data["email"].lower()
        if is_taken(email):
            raise forms.ValidationError("Somebody has this address already.")
        return email

    def save(self, commit: bool = True) -> User:
        """Return the user; the address follows in UserAdmin.save_related."""
        user: User = super().save(commit=False)
        user.set_password(None)
        if commit:
            user.save()
        return user


class ChangeUserForm(forms.ModelForm):  # type: ignore[type-arg]
    """A user's own few fields."""

    class Meta:
        model = User
        fields = ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")


class ProfileInline(admin.StackedInline):  # type: ignore[type-arg]
    model = Profile


class _ReadOnlyInline(admin.TabularInline):  # type: ignore[type-arg]
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class EmailAddressInline(_ReadOnlyInline):
    """Addresses can be taken from somebody, never given: they give their own, and verify them."""

    model = EmailAddress
    can_delete = True
    fields = readonly_fields = ("email", "verified", "primary")


class GoogleInline(_ReadOnlyInline):
    model = SocialAccount
    verbose_name_plural = "Google accounts"
    fields = readonly_fields = ("account", "uid", "last_login", "date_joined")

    @admin.display(description="address")
    def account(self, account: SocialAccount) -> str:
        return str(account.extra_data.get("email", ""))


class SecondFactorInline(_ReadOnlyInline):
    model = Authenticator
    verbose_name_plural = "second factors"
    fields = readonly_fields = ("type", "created_at", "last_used_at")


class SessionInline(_ReadOnlyInline):
    model = UserSession
    verbose_name_plural = "sessions"
    fields = readonly_fields = ("ip", "user_agent", "created_at", "last_seen_at")


class TokenInline(_ReadOnlyInline):
    """A user's tokens; each links to its own page. They are revoked in the list of tokens."""

    model = ApiToken
    verbose_name_plural = "API tokens"
    show_change_link = True
    fields = readonly_fields = (
        "name",
        "hint",
        "scopes",
        "only",
        "created_at",
        "expires_at",
        "last_used_at",
        "revoked_at",
    )


# What each flag of a user is called in the audit log when it is given, and when it is taken.
_FLAGS = {
    "is_active": ("activated_user", "deactivated_user"),
    "is_staff": ("made_operator", "unmade_operator"),
    "is_superuser": ("made_superuser", "unmade_superuser"),
}


def operator(request: HttpRequest) -> User:
    """Return who is signed in: the admin lets nobody else come here."""
    return cast("User", request.user)


def _permissions_of(user: User) -> dict[str, list[str]]:
    """Return a user's groups and permissions by their names."""
    return {
        "groups": sorted(user.groups.values_list("name", flat=True)),
        "permissions": sorted(user.user_permissions.values_list("codename", flat=True)),
    }


@admin.register(User)
class UserAdmin(DjangoUserAdmin):  # type: ignore[type-arg]
    """People who can sign in, found by any of their addresses."""

    list_display = ("__str__", "address", "is_active", "is_staff", "created", "last_login")
    list_filter = ("is_active", "is_staff", "is_superuser", "created")
    search_fields = ("=id", "emailaddress__email", "profile__display_name")
    search_help_text = "An email address, a name or a number"
    ordering = ("-id",)
    readonly_fields = ("created", "last_login")
    fieldsets = (
        (None, {"fields": ("is_active", "created", "last_login")}),
        (
            "May do",
            {"fields": ("is_staff", "is_superuser", "groups", "user_permissions")},
        ),
    )
    add_fieldsets = ((None, {"fields": ("email", "is_staff")}),)
    form = ChangeUserForm
    add_form = AddUserForm
    inlines = (
        ProfileInline,
        EmailAddressInline,
        GoogleInline,
        SecondFactorInline,
        SessionInline,
        TokenInline,
    )
    actions = (
        "deactivate",
        "activate",
        "send_reset_link",
        "sign_out",
        "revoke_tokens",
        "remove_second_factors",
    )

    def user_change_password(
        self, request: HttpRequest, id: str, form_url: str = ""
    ) -> HttpResponse:
        """Say no: who knows a password can act as its user. They are mailed a link instead."""
        raise PermissionDenied

    def get_queryset(self, request: HttpRequest) -> UserQuerySet:
        """Users with their names, in one query."""
        return User.objects.with_names().order_by(*self.ordering)

    @admin.display(description="email address", ordering="known_email")
    def address(self, user: User) -> str:
        return user.email

    def get_inlines(self, request: HttpRequest, obj: User | None) -> Any:
        """A new user has none of that yet."""
        return self.inlines if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Only those who may do everything touch others who may."""
        allowed = super().has_change_permission(request, obj)
        return allowed and (obj is None or not obj.is_superuser or request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        allowed = super().has_delete_permission(request, obj)
        return allowed and (obj is None or not obj.is_superuser or request.user.is_superuser)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Nobody gives themselves more than they have."""
        if request.user.is_superuser:
            return self.readonly_fields
        return (
            *self.readonly_fields,
            "is_staff",
            "is_superuser",
            "groups",
            "user_permissions",
        )

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """Write down who becomes an operator, or no longer is one."""
        before = User.objects.filter(pk=obj.pk).first() or User()
        super().save_model(request, obj, form, change)
        for flag, (given, taken) in _FLAGS.items():
            now = getattr(obj, flag)
            if now != getattr(before, flag):
                audit.note(operator(request), given if now else taken, obj)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Give a new user their address, and mail them the way in."""
        before = _permissions_of(form.instance)
        super().save_related(request, form, formsets, change)
        if change and (now := _permissions_of(form.instance)) != before:
            audit.note(operator(request), "changed_permissions", form.instance, detail=now)
        if not change:
            email = form.cleaned_data["email"]
            release_claims(email)
            EmailAddress.objects.create(user=form.instance, email=email, primary=True)
            self._mail_link(request, form.instance)

    def _mail_link(self, request: HttpRequest, user: User) -> None:
        form = LinkForm({"email": user.email})
        if form.is_valid() and form.users:
            form.save(request)
            audit.note(operator(request), "mailed_reset_link", user)
            self.message_user(request, f"Mailed a link to {user.email}.")
        else:
            self.message_user(
                request, f"{user}: not active, or without verified address.", messages.WARNING
            )

    def _theirs(self, request: HttpRequest, users: QuerySet[User]) -> list[User]:
        """The chosen users whom this operator may change."""
        allowed = [user for user in users if self.has_change_permission(request, user)]
        if len(allowed) < len(users):
            self.message_user(request, "Some are not yours to change.", messages.WARNING)
        return allowed

    @admin.action(description="Deactivate: sign out and keep out", permissions=["change"])
    def deactivate(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        users = [user for user in self._theirs(request, queryset) if user.pk != request.user.pk]
        for user in users:
            user.is_active = False
            with transaction.atomic():
                user.save(update_fields=["is_active"])
                audit.note(operator(request), "deactivated_user", user)
        self.message_user(request, f"Deactivated: {len(users)}. (Never yourself.)")

    @admin.action(description="Activate", permissions=["change"])
    def activate(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        users = self._theirs(request, queryset)
        for user in users:
            user.is_active = True
            with transaction.atomic():
                user.save(update_fields=["is_active"])
                audit.note(operator(request), "activated_user", user)
        self.message_user(request, f"Activated: {len(users)}.")

    @admin.action(description="Mail a link to choose a new password", permissions=["change"])
    def send_reset_link(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in self._theirs(request, queryset):
            self._mail_link(request, user)

    @admin.action(description="Sign out everywhere", permissions=["change"])
    def sign_out(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        ended = 0
        for user in self._theirs(request, queryset):
            with transaction.atomic():
                ended += end_sessions(user, keep=request.session.session_key)
                audit.note(operator(request), "ended_sessions", user)
        self.message_user(request, f"Sessions ended: {ended}.")

    @admin.action(description="Revoke all their API tokens", permissions=["change"])
    def revoke_tokens(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        ended = sum(
            api_tokens.revoke(token, by=operator(request))
            for user in self._theirs(request, queryset)
            for token in api_tokens.good(user)
        )
        self.message_user(request, f"Tokens revoked: {ended}.")

    @admin.action(
        description="Remove second factors of somebody locked out", permissions=["change"]
    )
    def remove_second_factors(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        users = self._theirs(request, queryset)
        for user in users:
            with transaction.atomic():
                Authenticator.objects.filter(user=user).delete()
                end_sessions(user, keep=request.session.session_key)
                audit.note(operator(request), "removed_second_factors", user)
        self.message_user(request, f"Second factors removed: {len(users)} people.")


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin):
    """What groups of operators may do: for those to say who may do everything."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return bool(request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return bool(request.user.is_superuser)


@admin.register(AuditEntry)
class AuditAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Who did what, newest first, and all of it as a file. It is a record: nobody changes it."""

    list_display = ("at", "who", "verb", "kind", "label", "via", "address")
    list_filter = ("by_operator", "via", "at")
    search_fields = ("verb",)  # there is a search: see get_search_results
    search_help_text = (
        "Exactly: a verb, what a thing is called, an email address, the id of a user, thing, "
        "workspace or request, or an address on the net"
    )
    ordering = ("-id",)
    list_per_page = 50
    show_full_result_count = False
    fields = readonly_fields = tuple(field.name for field in AuditEntry._meta.fields)

    @admin.display(description="who")
    def who(self, entry: AuditEntry) -> str:
        return entry.actor_email or entry.actor_name or "-"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEntry], search_term: str
    ) -> tuple[QuerySet[AuditEntry], bool]:
        """Find what is called so. Django would compare columns as text, which no index serves."""
        term = search_term.strip()
        return (queryset.filter(audit_log.called(term)) if term else queryset), False

    def get_urls(self) -> list[URLPattern]:
        """Put the files' addresses before Django's own, which would swallow them."""
        files = path(
            "export/<str:form>/",
            self.admin_site.admin_view(self.export),
            name="accounts_auditentry_export",
        )
        return [files, *super().get_urls()]

    def export(self, request: HttpRequest, form: str) -> StreamingHttpResponse:
        """Return what the list shows, all pages of it, as a file."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if form not in audit_log.FORMS:
            raise Http404
        found = self.get_changelist_instance(request).get_queryset(request)
        audit.note(operator(request), "exported_audit", detail={"query": request.GET.dict()})
        return audit_log.export(found, form, f"audit-{timezone.now():%Y-%m-%d}")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: AuditEntry | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: AuditEntry | None = None) -> bool:
        return False


@admin.register(ApiToken)
class TokenAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Everybody's API tokens: to look at, and to revoke.

    Whoever may delete them may, or else no user who has one could be deleted.
    """

    list_display = ("__str__", "owner", "created_at", "expires_at", "last_used_at", "revoked_at")
    list_filter = ("revoked_at", "expires_at", "created_at")
    search_fields = ("name", "hint", "=user__id", "user__emailaddress__email")
    search_help_text = "A name, how it begins, or its user's number or email address"
    actions = ("revoke",)
    # The digest is nobody's to read.
    fields = ("user", "parent", *TokenInline.fields)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.change_apitoken")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiToken]:
        """Tokens with the names of their users, in two queries."""
        named = Prefetch("user", User.objects.with_names())
        return super().get_queryset(request).prefetch_related(named)

    @admin.display(description="user")
    def owner(self, token: ApiToken) -> str:
        return str(token.user)

    @admin.action(description="Revoke, with all that were made with them", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        tokens = queryset
        if not request.user.is_superuser:
            tokens = tokens.filter(user__is_superuser=False)
        ended = sum(api_tokens.revoke(token, by=operator(request)) for token in tokens)
        self.message_user(request, f"Tokens revoked: {ended}.")
