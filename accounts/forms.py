"""Forms, where ours differ from allauth's."""

from typing import Any

from allauth.account.adapter import get_adapter
from allauth.account.forms import ChangePasswordForm as AllauthChangePasswordForm
from allauth.account.forms import ResetPasswordForm as AllauthResetPasswordForm
from allauth.account.forms import ResetPasswordKeyForm as AllauthResetPasswordKeyForm
from allauth.account.forms import SignupForm as AllauthSignupForm
from allauth.account.models import EmailAddress
from allauth.mfa.webauthn.forms import AddWebAuthnForm as AllauthAddKeyForm
from allauth.socialaccount.forms import SignupForm as AllauthGoogleSignupForm
from django import forms
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX, make_password
from django.http import HttpRequest

from accounts.addresses import is_taken
from accounts.models import Profile, User


class _UnverifiedIsNobodys(forms.Form):
    """An address that somebody typed but never verified is free."""

    def validate_unique_email(self, value: str) -> str:
        self.account_already_exists = is_taken(value)
        return value


class SignupForm(_UnverifiedIsNobodys, AllauthSignupForm):  # type: ignore[misc]
    """Sign up by email and password."""

    def try_save(self, request: HttpRequest) -> Any:
        """Save a new user, or only seem to: in the same time, for those who measure it."""
        if self.account_already_exists:
            make_password(self.cleaned_data["password1"])
        return super().try_save(request)


class GoogleSignupForm(_UnverifiedIsNobodys, AllauthGoogleSignupForm):  # type: ignore[misc]
    """Type an address, where Google gave none that can be used as it is."""


class ResetPasswordForm(AllauthResetPasswordForm):  # type: ignore[misc]
    """Ask for a reset link. It goes to the verified owner of an address only.

    Whoever never verified theirs is told to sign up again, which works: their claim to the
    address keeps nobody out, themselves included.
    """

    def clean_email(self) -> str:
        email: str = super().clean_email()
        owners = EmailAddress.objects.filter(
            email=email.lower(), verified=True, user__is_active=True
        )
        self.users = [address.user for address in owners.select_related("user")]
        return email


class _PlainLabels(forms.Form):
    """Labels in the case of all our others."""

    LABELS = {
        "oldpassword": "Current password",
        "password1": "New password",
        "password2": "New password, once more",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in self.LABELS.keys() & self.fields.keys():
            self.fields[name].label = self.LABELS[name]


class ChangePasswordForm(_PlainLabels, AllauthChangePasswordForm):  # type: ignore[misc]
    """Change the password that one knows."""


class ResetPasswordKeyForm(_PlainLabels, AllauthResetPasswordKeyForm):  # type: ignore[misc]
    """Choose a new password, by a link from a mail."""


class LinkForm(ResetPasswordForm):
    """An operator has the link sent: also to whom operators made a user for, and who did not come.

    Such a user has no password, no Google account and never signed in, so nobody else waits in it
    for the owner of the mailbox to come.
    """

    def clean_email(self) -> str:
        email: str = super().clean_email()
        if not self.users:
            self.users = list(
                User.objects.filter(
                    emailaddress__email=email.lower(),
                    is_active=True,
                    last_login=None,
                    password__startswith=UNUSABLE_PASSWORD_PREFIX,
                    socialaccount=None,
                )
            )
        return email


class AddKeyForm(AllauthAddKeyForm):  # type: ignore[misc]
    """Add a passkey, or a security key for after the password."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        passwordless = self.fields["passwordless"]
        passwordless.label = "Sign in with it alone, without a password"
        passwordless.help_text = "Then it is a passkey. Otherwise it comes after the password."
        passwordless.initial = True


class ConfirmForm(forms.Form):
    """Show that it was you who signed up, in a browser that does not know you."""

    password = forms.CharField(
        strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "current-password"})
    )

    def __init__(
        self, *args: Any, request: HttpRequest, email: str, user: AbstractBaseUser, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.request, self.email, self.user = request, email, user

    def clean_password(self) -> str:
        """Raise ValidationError for a wrong password, and for too many of them."""
        password: str = self.cleaned_data["password"]
        adapter = get_adapter()
        found = adapter.authenticate(self.request, email=self.email, password=password)
        if found is None or found.pk != self.user.pk:
            raise adapter.validation_error("incorrect_password")
        return password


class ProfileForm(forms.ModelForm):  # type: ignore[type-arg]
    """What others see of you."""

    class Meta:
        model = Profile
        fields = ("display_name",)
        help_texts = {
            "display_name": "Members of your workspaces see it. "
            "Without one they see your email address."
        }
        widgets = {"display_name": forms.TextInput(attrs={"autocomplete": "name"})}
