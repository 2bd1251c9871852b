"""The two addresses of the flow: off to the provider, and back."""

from typing import Any

from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView, OAuth2LoginView
from django.http import HttpRequest

from accounts.google.provider import GoogleAdapter


class CallbackView(OAuth2CallbackView):  # type: ignore[misc]
    """Back from the provider."""

    def _get_state(self, request: HttpRequest, provider: Any) -> tuple[Any, Any]:
        state, response = super()._get_state(request, provider)
        self.adapter.nonce = state["nonce"] if state else ""
        return state, response


oauth2_login = OAuth2LoginView.adapter_view(GoogleAdapter)
oauth2_callback = CallbackView.adapter_view(GoogleAdapter)
