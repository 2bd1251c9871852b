"""Addresses under /account/: ours, and allauth's behind them."""

from django.urls import include, path, re_path

from accounts import views

urlpatterns = [
    path("", views.overview, name="account_overview"),
    path("profile/", views.profile, name="account_profile"),
    # In front of allauth's view of the same name.
    re_path(
        r"^confirm-email/(?P<key>[-:\w]+)/$", views.confirm_email, name="account_confirm_email"
    ),
    path("", include("allauth.urls")),
]
