"""Addresses under /account/: allauth's pages, and ours beside them."""

from django.urls import include, path

urlpatterns = [
    path("", include("allauth.urls")),
]
