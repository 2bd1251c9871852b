"""The provider: what is asked of Google, and what is taken from its answer."""

import secrets
from typing import Any

import requests
from allauth.account.models import EmailAddress
from allauth.socialaccount.helpers import render_authentication_error
from allauth.socialaccount.providers.base import AuthProcess
from allauth.socialaccount.providers.google.provider import GoogleProvider as AllauthGoogleProvider
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2Adapter
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse

from accounts.google import id_token
from accounts.google.endpoints import endpoints, is_google

KEPT_CLAIMS = ("sub", "email", "email_verified", "name", "hd")


class GoogleAdapter(OAuth2Adapter):  # type: ignore[misc]
    """One trip to the provider and back."""

    provider_id = "google"
    # The nonce that the browser was sent off with; the callback view fills it in.
    nonce = ""

    @property
    def authorize_url(self) -> str:
        """Where the browser goes."""
        return endpoints().authorize

    @property
    def access_token_url(self) -> str:
        """Where the code is changed for tokens."""
        return endpoints().token

    def get_callback_url(self, request: HttpRequest, app: Any) -> str:
        """Where the browser comes back to: one fixed address, which Google knows."""
        return settings.CLOUD_URL + reverse("google_callback")

    def complete_login(self, request: HttpRequest, app: Any, token: Any, **kwargs: Any) -> Any:
        """Return the SocialLogin of a person whose ID token holds; raises OAuth2Error if not."""
        claims = id_token.verify(
            str(kwargs["response"].get("id_token", "")),
            endpoints=endpoints(),
            client_id=app.client_id,
            nonce=self.nonce,
        )
        return self.get_provider().sociallogin_from_response(request, claims)


class GoogleProvider(AllauthGoogleProvider):  # type: ignore[misc]
    """Google, or an OpenID provider that stands in for it."""

    package = "accounts.google"
    oauth2_adapter_class = GoogleAdapter
    # allauth's other way in, a token that is posted to us, has no nonce and no place here.
    supports_token_authentication = False

    def get_auth_params_from_request(self, request: HttpRequest, action: str) -> dict[str, str]:
        """Only our own: allauth would let a link add parameters, a nonce among them."""
        return self.get_auth_params()  # type: ignore[no-any-return]

    def get_scope_from_request(self, request: HttpRequest) -> list[str]:
        """Only our own."""
        return self.get_scope()  # type: ignore[no-any-return]

    def redirect(
        self,
        request: HttpRequest,
        process: str,
        next_url: str | None = None,
        data: Any = None,
        **kwargs: Any,
    ) -> HttpResponseBase:
        """Send the browser to the provider, with a nonce that its session remembers."""
        nonce = secrets.token_urlsafe(32)
        params = {**(kwargs.pop("auth_params", None) or self.get_auth_params()), "nonce": nonce}
        if process == AuthProcess.CONNECT:
            # To connect another account one must be able to choose it.
            params["prompt"] = "select_account"
        try:
            return super().redirect(  # type: ignore[no-any-return]
                request, process, next_url, data, auth_params=params, nonce=nonce, **kwargs
            )
        except (OAuth2Error, requests.RequestException) as error:
            return render_authentication_error(request, self, exception=error)  # type: ignore[no-any-return]

    def extract_extra_data(self, data: dict[str, Any]) -> dict[str, Any]:
        """Keep no more than the pages show."""
        return {name: data[name] for name in KEPT_CLAIMS if name in data}

    def extract_email_addresses(self, data: dict[str, Any]) -> list[EmailAddress]:
        """Return the address, verified only where the provider's word is enough."""
        email = data.get("email")
        if not email:
            return []
        return [EmailAddress(email=email, primary=True, verified=_is_proven(data))]


def _is_proven(data: dict[str, Any]) -> bool:
    """Whether the claims prove that the person has the address now.

    Google runs the mail of gmail.com and of its Workspace customers (`hd`). Of any other address
    it only knows that it was verified once, perhaps years ago by somebody who lost it since: then
    we verify it ourselves, by mail.
    """
    if data.get("email_verified") is not True:  # some providers send the text "false"
        return False
    domain = str(data["email"]).lower().rpartition("@")[2]
    return not is_google() or domain in ("gmail.com", "googlemail.com") or bool(data.get("hd"))


provider_classes = [GoogleProvider]
