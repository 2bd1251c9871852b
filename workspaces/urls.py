"""Addresses of the web pages and of the gateway."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
