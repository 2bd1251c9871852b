"""Every address of the cloud host."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import include, path

from cloudapp import errors, health, metrics

# Staff sign in as everybody does: email, Google, and their second factor.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

handler500 = errors.broken

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", metrics.metrics),
    path("admin/", admin.site.urls),
    path("account/", include("accounts.urls")),
    path("", include("workspaces.urls")),
]
