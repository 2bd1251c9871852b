"""What the operators' pages have beside forms for rows: deeds, each with an address and a button.

What each does, needs and leaves in the row's history is in workspaces.deeds, for the API as well.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import AdminForm
from django.core.exceptions import PermissionDenied
from django.db.models import Model, Prefetch
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from accounts.admin import operator
from accounts.models import User
from workspaces import deeds
from workspaces.services import Refused

Row = TypeVar("Row", bound=Model)

named_by = Prefetch("by", User.objects.with_names())


def demand(request: HttpRequest, deed: str) -> None:
    """Raise PermissionDenied unless the operator may do this: one of deeds.NEEDS."""
    if not deeds.may(operator(request), deed):
        raise PermissionDenied


def page_of(row: Model) -> str:
    """Return the address of a row's page in the admin."""
    name = row._meta.model_name
    return reverse(f"admin:workspaces_{name}_change", args=[row.pk])


def back_to(row: Model) -> HttpResponseRedirect:
    """Lead to a row's page."""
    return HttpResponseRedirect(page_of(row))


class DeedsAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """An admin with deeds. Each method is given the request and the row."""

    # The last part of the address -> the method.
    deeds: Mapping[str, str] = {}

    class Media:
        css = {"all": ("workspaces/admin.css",)}

    def get_urls(self) -> list[URLPattern]:
        """Put the deeds' addresses before Django's own, which would swallow them."""
        name = self.model._meta.model_name
        ours = [
            path(
                f"<int:pk>/{deed}/",
                self.admin_site.admin_view(partial(self._do, getattr(self, method))),
                name=f"workspaces_{name}_{deed}",
            )
            for deed, method in self.deeds.items()
        ]
        return [*ours, *super().get_urls()]

    def _do(self, method: Callable[..., HttpResponse], request: HttpRequest, pk: int) -> Any:
        return method(request, get_object_or_404(self.model, pk=pk))

    def at_once(
        self,
        request: HttpRequest,
        row: Model,
        deed: Callable[[], str],
    ) -> HttpResponse:
        """Do what a single button asks for, say so, and lead back to the row's page."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        try:
            words = deed()
        except Refused as refusal:
            messages.error(request, str(refusal))
        else:
            messages.success(request, words)
        return back_to(row)

    def ask(
        self,
        request: HttpRequest,
        title: str,
        form: forms.Form,
        *,
        template: str = "admin/workspaces/ask.html",
        **context: Any,
    ) -> TemplateResponse:
        """Show a form of a deed in the admin's own look; 422 when it was refused."""
        fields: Any = [(None, {"fields": list(form.fields)})]
        told = {
            **self.admin_site.each_context(request),
            "opts": self.model._meta,
            "title": title,
            "form": form,
            "adminform": AdminForm(cast("Any", form), fields, {}),
            "media": self.media + form.media,
            "has_view_permission": self.has_view_permission(request),
            **context,
        }
        refused = form.is_bound and bool(form.errors)
        return TemplateResponse(request, template, told, status=422 if refused else 200)


def refuse(form: forms.Form, refusal: Refused) -> None:
    """Put the words of a refusal at the field that is at fault, or above all of them."""
    field = refusal.field if refusal.field in form.fields else None
    form.add_error(field, str(refusal))
