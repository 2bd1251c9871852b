"""What people type. Texts that only the database can judge come from workspaces.services."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, cast

from django import forms
from django.urls import reverse_lazy

from accounts import api_tokens
from accounts.api_tokens import Scope
from accounts.models import User
from workspaces import invitations, outbox, outside, services, slugs, webhooks
from workspaces.models import Member, Role, Workspace

_PLAIN = {"autocapitalize": "none", "autocomplete": "off", "spellcheck": "false"}


class FocusedForm(forms.Form):
    """Puts the cursor, and with it the page, where something must be put right."""

    def focus_first_error(self) -> None:
        """Call this before showing a form again."""
        for name in self.errors:
            if name in self.fields:
                for field in self.fields.values():
                    field.widget.attrs.pop("autofocus", None)
                self.fields[name].widget.attrs["autofocus"] = True
                return


class NewWorkspaceForm(FocusedForm):
    """Name and slug. An empty slug is made from the name; `proposed` is the one we put there."""

    name = forms.CharField(
        max_length=services.MAX_NAME,
        help_text="What people see. You can change it later.",
        error_messages={"required": "Give it a name."},
        widget=forms.TextInput(
            attrs={
                "autofocus": True,
                "autocomplete": "off",
                "placeholder": "Trees of Lisbon",
                # The slug follows the name until somebody edits it.
                "hx-get": reverse_lazy("workspace_slug"),
                "hx-trigger": "input changed delay:250ms",
                "hx-include": "#id_slug, #id_proposed",
                "hx-target": "#slug-field",
                "hx-swap": "outerHTML",
                "hx-sync": "this:replace",
            }
        ),
    )
    slug = forms.CharField(
        label="Address",
        required=False,
        help_text="Small letters, digits and hyphens. It stays, so that links keep working.",
        widget=forms.TextInput(
            attrs={
                **_PLAIN,
                "maxlength": slugs.MAX_LENGTH,
                "placeholder": "from its name",
                "hx-get": reverse_lazy("workspace_slug"),
                "hx-trigger": "input changed delay:250ms",
                "hx-include": "#id_proposed",
                "hx-target": "#slug-hint",
                "hx-select": "#slug-hint",
                "hx-swap": "outerHTML",
                "hx-sync": "this:replace",
            }
        ),
    )
    proposed = forms.CharField(required=False, widget=forms.HiddenInput)

    def clean_slug(self) -> str:
        """Return the slug in small letters; empty stays empty until the name is known."""
        slug: str = self.cleaned_data["slug"].strip().lower()
        if slug and (words := slugs.problem(slug)):
            raise forms.ValidationError(
                f"{words} “{services.free_slug(slugs.propose(slug))}” is free."
            )
        return slug

    def clean(self) -> dict[str, Any]:
        """Make the slug from the name where none was given."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if "slug" in cleaned and not cleaned["slug"] and cleaned.get("name"):
            cleaned["slug"] = services.free_slug(slugs.propose(cleaned["name"]))
        return cleaned


class RenameForm(FocusedForm):
    """A new name; the address stays."""

    name = forms.CharField(
        max_length=services.MAX_NAME,
        error_messages={"required": "Give it a name."},
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


class DeleteForm(FocusedForm):
    """The slug, typed, so that nobody deletes the wrong workspace."""

    confirm = forms.CharField(widget=forms.TextInput(attrs=_PLAIN))

    def __init__(self, *args: Any, workspace: Workspace, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.workspace = workspace
        self.fields["confirm"].label = f"Type “{workspace.slug}” to confirm"
        self.fields["confirm"].error_messages["required"] = (
            f"Type the address “{workspace.slug}” to confirm."
        )

    def clean_confirm(self) -> str:
        """Return the slug, or say that this is not it."""
        typed: str = self.cleaned_data["confirm"].strip()
        if typed != self.workspace.slug:
            raise forms.ValidationError(
                f"That is not it. Type “{self.workspace.slug}” exactly, to delete this workspace."
            )
        return typed


class WebhookForm(FocusedForm):
    """Where a webhook goes, and what it hears of."""

    url = forms.CharField(
        label="Address",
        max_length=outside.MAX_LENGTH,
        help_text="An https address on the public internet. Every message is a POST to it.",
        error_messages={"required": "Where should messages go?"},
        widget=forms.TextInput(
            attrs={
                **_PLAIN,
                "inputmode": "url",
                "placeholder": "https://hooks.example.org/cloudapp",
            }
        ),
    )
    name = forms.CharField(
        max_length=webhooks.MAX_NAME,
        required=False,
        help_text="What it is for. Other owners and the activity show it.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": "Chat room"}),
    )
    events = forms.MultipleChoiceField(
        choices=[(type, type) for type in outbox.TYPES],
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )


class _WorkspaceField(forms.ModelChoiceField):  # type: ignore[type-arg]
    """One of somebody's workspaces, or all of them."""

    def label_from_instance(self, obj: Any) -> str:
        return f"Only {obj.name} ({obj.slug})"


class NewTokenForm(FocusedForm):
    """An API token: what it may, where, and for how long."""

    name = forms.CharField(
        max_length=api_tokens.MAX_NAME,
        help_text="What it is for, so that you know it again.",
        error_messages={"required": "Give it a name."},
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    scopes = forms.MultipleChoiceField(
        label="It may",
        initial=[Scope.READ.value],
        error_messages={"required": "Choose at least one thing that it may do."},
        widget=forms.CheckboxSelectMultiple,
    )
    workspace = _WorkspaceField(
        label="Where",
        queryset=Workspace.objects.none(),
        required=False,
        empty_label="All your workspaces",
        help_text="All: also those that you make or join later.",
        to_field_name="slug",
        error_messages={"invalid_choice": "That is none of your workspaces. Choose another."},
    )
    days = forms.TypedChoiceField(
        label="It expires",
        coerce=int,
        initial=90,
        choices=[
            (7, "in 7 days"),
            (30, "in 30 days"),
            (90, "in 90 days"),
            (365, "in a year"),
            (0, "never"),
        ],
        error_messages={"required": "Choose how long it is good for."},
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        offered = [scope for scope in Scope if user.is_staff or scope is not Scope.OPERATOR]
        scopes = cast(forms.MultipleChoiceField, self.fields["scopes"])
        workspace = cast("forms.ModelChoiceField[Workspace]", self.fields["workspace"])
        scopes.choices = [(scope.value, api_tokens.WORDS[scope]) for scope in offered]
        workspace.queryset = Workspace.objects.filter(
            members__user=user, deleted_at=None, purged_at=None
        ).order_by("name", "slug")

    def expires_at(self, now: datetime) -> datetime | None:
        """Return when it ends if it is made now; None for never."""
        days: int = self.cleaned_data["days"]
        return now + timedelta(days=days) if days else None


class InviteForm(FocusedForm):
    """Whom to invite, and as what."""

    email = forms.CharField(
        label="Email address",
        max_length=invitations.MAX_EMAIL,
        error_messages={"required": "Whom do you want to invite?"},
        widget=forms.EmailInput(attrs={**_PLAIN, "placeholder": "ada@example.org"}),
    )
    role = forms.ChoiceField(
        choices=[
            (role.value, f"{role.label}: {invitations.ROLE_WORDS[role].removeprefix('you ')}")
            for role in (Role.VIEWER, Role.EDITOR, Role.OWNER)
        ],
        initial=Role.VIEWER,
        error_messages={"required": "Choose a role.", "invalid_choice": "Choose a role."},
    )


class TransferForm(forms.Form):
    """Who takes a workspace over."""

    to = forms.ChoiceField(label="New owner")

    def __init__(self, *args: Any, members: Iterable[Member], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        to = cast(forms.ChoiceField, self.fields["to"])
        to.choices = [(member.user_id, member.user.display_name) for member in members]
