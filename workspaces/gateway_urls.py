"""Addresses of the gateway and of the hand-off sign-in."""

from django.urls import URLPattern, path

from workspaces import gateway, handoff
from workspaces.handoff_tokens import START

urlpatterns: list[URLPattern] = [
    path("_gateway/authorize", gateway.authorize),
    path("_gateway/unreachable", gateway.unreachable),
    path("workspaces/<slug:slug>/enter/", handoff.enter, name="workspace_enter"),
    path(START.lstrip("/"), handoff.start),
    path(handoff.SIGN_IN.lstrip("/"), handoff.sign_in),
    path(handoff.SIGN_OUT.lstrip("/"), handoff.sign_out),
]
