"""Plans: what workspaces may use. A changed plan counts for workspaces made from then on."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.text import capfirst

from workspaces.models import Plan
from workspaces.services import ChangedMeanwhile, Refused

# What can be set about a plan, and what the admin calls it.
LABELS: Mapping[str, str] = {
    field.name: str(capfirst(field.verbose_name))
    for field in Plan._meta.local_concrete_fields
    if not field.primary_key
}


def version_of(plan: Plan) -> str:
    """Return a text that differs whenever the plan does."""
    values = [plan.pk, *(getattr(plan, name) for name in LABELS)]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


def add(values: Mapping[str, Any]) -> Plan:
    """Make a plan; what is left out is usual. Raises Refused."""
    with transaction.atomic():
        return _save(Plan(), values)


def change(
    plan: Plan, values: Mapping[str, Any], seen: str | None = None
) -> tuple[Plan, list[str]]:
    """Change a plan; return it as it is now, and what is another way. Raises Refused.

    With `seen`, a `version_of` it, only if it still is as it was then. Workspaces that have it keep
    their limits until somebody gives them a plan anew.
    """
    with transaction.atomic():
        current = Plan.objects.select_for_update().get(pk=plan.pk)
        if seen is not None and seen != version_of(current):
            raise ChangedMeanwhile
        changed = [name for name, value in values.items() if getattr(current, name) != value]
        if current.is_default and "is_default" in changed:
            words = "New workspaces need a plan: make another one the default instead."
            raise Refused(words, "is_default")
        return _save(current, {name: values[name] for name in changed}), changed


def _save(plan: Plan, values: Mapping[str, Any]) -> Plan:
    """Write a plan down. Where it is to be the default, none else is."""
    for name, value in values.items():
        setattr(plan, name, value)
    if values.get("is_default"):
        # Everybody who changes the default takes this row first, so that two cannot both be it.
        list(Plan.objects.select_for_update().filter(is_default=True))
        Plan.objects.filter(is_default=True).exclude(pk=plan.pk).update(is_default=False)
    if Plan.objects.filter(name=plan.name).exclude(pk=plan.pk).exists():
        raise Refused("There is a plan of this name already.", "name", code="exists")
    try:
        plan.full_clean()
    except ValidationError as error:
        name, words = next(iter(error.message_dict.items()))
        raise Refused(words[0], name) from error
    plan.save()
    return plan
