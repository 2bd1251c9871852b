"""Filters of lists by conditions that have a name."""

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest


class ChoiceFilter(admin.SimpleListFilter):
    """A filter with a condition for each of its choices: {value: (words, condition)}."""

    choices_by_value: Mapping[str, tuple[str, Q]] = {}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer them."""
        return [(value, words) for value, (words, _) in self.choices_by_value.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        """Keep those of the chosen kind."""
        chosen = self.choices_by_value.get(self.value() or "")
        return queryset.filter(chosen[1]) if chosen else None
