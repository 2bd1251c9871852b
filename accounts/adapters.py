"""How allauth behaves here."""

import logging
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.models import EmailAddress
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.core.internal.httpkit import clean_client_ip
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialLogin
from allauth.socialaccount.providers.base import AuthProcess
from allauth.usersessions.adapter import DefaultUserSessionsAdapter
from allauth.usersessions.models import UserSession
from django import forms
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from accounts import audit, came_for
from accounts.addresses import is_claimed, is_taken, release_claims
from accounts.models import Profile, User

log = logging.getLogger(__name__)

# Somebody who talks to our socket directly, not through the router, is on this machine.
THIS_MACHINE = "127.0.0.1"


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Email and password."""

    error_messages = {
        **DefaultAccountAdapter.error_messages,
        "email_password_mismatch": "This email address and password do not go together.",
        "too_many_login_attempts": "Too many attempts. Wait five minutes and try again, "
        "or reset your password.",
        "incorrect_password": "That is not the password.",
        "rate_limited": "That was too often. Wait a minute and try again.",
    }

    def get_client_ip(self, request: HttpRequest) -> str:
        """Return the address that the router saw, or where the connection comes from.

        The router always sets the header, over whatever a client sent. On a unix socket there is
        no address at all; allauth would refuse every such request.
        """
        header = request.headers.get(settings.ALLAUTH_TRUSTED_CLIENT_IP_HEADER, "")
        for given in (header, request.META.get("REMOTE_ADDR", "")):
            address: str | None = clean_client_ip(given) if given else None
            if address:
                return address
        return THIS_MACHINE

    def is_safe_url(self, url: str | None) -> bool:
        """Whether one may be sent there after signing in: to the cloud host only.

        allauth would allow every host of ALLOWED_HOSTS, the workspaces' among them, where the
        pages are a customer's.
        """
        return url_has_allowed_host_and_scheme(
            url, {urlsplit(settings.CLOUD_URL).netloc}, require_https=settings.SECURE
        )

    def get_login_redirect_url(self, request: HttpRequest) -> str:
        """Where people go who signed in, and did not say where to."""
        path = came_for.path_in(request)
        usual: str = super().get_login_redirect_url(request)
        return path if path and self.is_safe_url(path) else usual

    def get_signup_redirect_url(self, request: HttpRequest) -> str:
        """Where new people go."""
        return self.get_login_redirect_url(request)

    # Links in mails come from the setting, not from what a request says that our host is.

    def get_email_confirmation_url(self, request: HttpRequest, emailconfirmation: Any) -> str:
        """The link that verifies an address."""
        return settings.CLOUD_URL + reverse("account_confirm_email", args=[emailconfirmation.key])

    def get_reset_password_from_key_url(self, key: str) -> str:
        """The link to choose a new password; `key` is user and token with a dash between."""
        user, token = key.split("-", 1)
        return settings.CLOUD_URL + reverse("account_reset_password_from_key", args=[user, token])


class SocialAccountAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """Google."""

    error_messages = {
        **DefaultSocialAccountAdapter.error_messages,
        "no_password": "This is your only way to sign in. Set a password first, "
        "or connect another Google account.",
        "no_verified_email": "This is your only way to sign in. Verify an email address first, "
        "or connect another Google account.",
        "connected_other": "That Google account already belongs to another account here.",
    }

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        """Decide what a Google account that is new here may do with its email address.

        It never gets into an account that is there already. Raises ImmediateHttpResponse with a
        page that says what to do when its proven address belongs to one.
        """
        connecting = sociallogin.state.get("process") == AuthProcess.CONNECT
        if sociallogin.is_existing or connecting or not sociallogin.email_addresses:
            return
        address = sociallogin.email_addresses[0]
        if address.verified:
            self._take_proven(request, address.email)
        elif is_claimed(address.email) and not is_taken(address.email):
            # Neither Google nor anybody here has proven it: ask, and verify by mail.
            sociallogin.email_addresses = []
        # An unproven address of somebody else's: allauth writes to the owner, and the page says
        # no more than for a new address, so that nobody learns who has an account here.

    def _take_proven(self, request: HttpRequest, email: str) -> None:
        if is_taken(email):
            # They own the address, so telling them about their own account gives nothing away.
            page = render(request, "socialaccount/email_taken.html", {"email": email}, status=409)
            raise ImmediateHttpResponse(page)
        release_claims(email)

    def get_signup_form_initial_data(self, sociallogin: SocialLogin) -> dict[str, str]:
        """Propose the address that Google named."""
        return {"email": sociallogin.account.extra_data.get("email", "")}

    def save_user(
        self, request: HttpRequest, sociallogin: SocialLogin, form: forms.Form | None = None
    ) -> User:
        """Save a new user with the address from the form, if there was one, and Google's name."""
        if form is not None:
            # allauth keeps it on the user, where ours has no place for it.
            email = form.cleaned_data["email"]
            sociallogin.email_addresses = [EmailAddress(email=email, primary=True)]
        user: User = super().save_user(request, sociallogin, form)
        name = str(sociallogin.account.extra_data.get("name") or "")[:100]
        if name:
            Profile.objects.create(user=user, display_name=name)
        return user

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: Any,
        error: Any = None,
        exception: Exception | None = None,
        extra_context: dict[str, Any] | None = None,
    ) -> None:
        """Tell the operator why; the person sees a page that says what to do."""
        if exception is not None:
            log.warning("sign-in with %s failed: %s", provider, exception)


class SessionsAdapter(DefaultUserSessionsAdapter):  # type: ignore[misc]
    """The list of places where somebody is signed in."""

    def end_sessions(self, sessions: Iterable[UserSession]) -> None:
        """End them: the people's own wish."""
        ended = list(sessions)
        with transaction.atomic():
            super().end_sessions(ended)
            if ended:
                audit.note(ended[0].user, "ended_sessions", ended[0].user)


class MFAAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Second factors."""

    error_messages = {
        **DefaultMFAAdapter.error_messages,
        "unverified_email": "First verify, or remove, the email addresses that are not verified.",
        "incorrect_code": "That code is not right. Codes change every 30 seconds: try the next.",
    }

    def _get_user_identifier(self, user: User) -> str:
        return user.email or user.display_name

    def _get_site_name(self) -> str:
        return "cloudapp"

    def generate_authenticator_name(self, user: User, type: Authenticator.Type) -> str:
        """Propose a name for a key."""
        return f"Key {Authenticator.objects.filter(user_id=user.pk, type=type).count() + 1}"

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        """Passkeys belong to the cloud host, whatever name a request came in by."""
        return {"id": settings.CLOUD_HOST, "name": "cloudapp"}
