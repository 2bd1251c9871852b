"""Plans: what workspaces may use. Those that have a plan follow it when it changes.

How many do and how many lag behind is seen from the rows and counted nowhere. So whoever goes on
after a crash, `follow_all` in any worker, begins where the last one ended.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from celery import current_app
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Subquery
from django.utils.text import capfirst

from deploy import lifecycle
from deploy.finding import having_status
from deploy.lifecycle import Limits
from deploy.models import Instance, InstanceEvent
from deploy.states import FAILED_AFTER_ATTEMPTS, Desired, Status
from workspaces import sets
from workspaces.models import Approval, Change, Plan, Workspace
from workspaces.services import ChangedMeanwhile, Refused, changing

logger = logging.getLogger(__name__)

# So many containers are replaced at once, and so many workspaces that do not run are given what
# their next container gets.
AT_ONCE = 5
ASLEEP_AT_ONCE = 200
NO_DEFAULT = "New workspaces need a plan: make another one the default instead."
# So many slugs of those that fail are named.
NAMED = 20

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

    With `seen`, a `version_of` it, only if it still is as it was then. Workspaces that have it
    follow from then on, a few at a time.
    """
    with transaction.atomic():
        current = Plan.objects.select_for_update().get(pk=plan.pk)
        if seen is not None and seen != version_of(current):
            raise ChangedMeanwhile
        changed = [name for name, value in values.items() if getattr(current, name) != value]
        if current.is_default and "is_default" in changed:
            raise Refused(NO_DEFAULT, "is_default")
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
    follow_soon()
    return plan


# --- following ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """How many live workspaces have a plan, and how many of them have its limits already.

    `failing` counts those that follow it and do not come up; `examples` are slugs of some.
    """

    total: int = 0
    following: int = 0
    failing: int = 0
    examples: tuple[str, ...] = ()

    @property
    def lagging(self) -> int:
        """How many have still to be given the limits of their plan."""
        return self.total - self.following


# What their containers are made with is not what their plan says; `wants_internet` is annotated.
_OTHER_CONTAINER = Q(
    *(
        ~Q(**{f"instance__{name}": F(f"plan__{name}")})
        for name in lifecycle.OF_CONTAINER
        if name != "internet"
    ),
    ~Q(instance__internet=F("wants_internet")),
    _connector=Q.OR,
)
_OTHER = _OTHER_CONTAINER | ~Q(
    instance__idle_seconds=F("plan__idle_seconds"), instance__disk_mb=F("plan__disk_mb")
)
_FAILING = having_status(Status.FAILED, prefix="instance__")


def _live() -> QuerySet[Workspace]:
    """Return the workspaces that can follow: a deleted one does when it is brought back."""
    online = Approval.objects.filter(workspaces=OuterRef("pk"), needs_internet=True)
    wants_internet = Q(plan__internet=True) | Exists(online)
    live = Workspace.objects.filter(deleted_at=None).exclude(instance__desired=Desired.ABSENT)
    return live.annotate(wants_internet=wants_internet)


def progress() -> dict[int, Progress]:
    """Return how far the workspaces of each plan follow it, by the plan's key. In two queries."""
    counted = (
        _live()
        .order_by()
        .values("plan")
        .annotate(
            total=Count("pk"),
            lagging=Count("pk", filter=_OTHER),
            failing=Count("pk", filter=_FAILING & ~_OTHER),
        )
    )
    examples: dict[int, list[str]] = {}
    rows = _live().filter(_FAILING & ~_OTHER).order_by("slug").values_list("plan", "slug")
    for plan, slug in rows[:NAMED]:
        examples.setdefault(plan, []).append(slug)
    return {
        row["plan"]: Progress(
            row["total"],
            row["total"] - row["lagging"],
            row["failing"],
            tuple(examples.get(row["plan"], ())),
        )
        for row in counted
    }


def follow_soon() -> None:
    """Have a worker begin once the transaction is in; else the beat does."""
    send = partial(current_app.send_task, "workspaces.tasks.follow_plans")
    transaction.on_commit(send, robust=True)


def tell_soon() -> None:
    """Have what runs be told soon how much data it may hold; else it hears of it in a minute."""
    transaction.on_commit(partial(current_app.send_task, "deploy.tasks.measure"), robust=True)


def may_follow_now(workspace: Workspace) -> bool:
    """Whether it need not take its turn: nobody is served by it, or few of its plan come up now.

    One whose plugins change does: it follows later, as by `follow_all`.
    """
    if workspace.changes.filter(state=Change.State.OPEN).exists():
        return False
    serves = workspace.instance.desired == Desired.RUNNING and workspace.instance.ready
    return not serves or _places(_live().filter(plan=workspace.plan)) > 0


def follow(workspace: Workspace) -> None:
    """Give a workspace the limits of its plan. The caller holds its rows, as by `changing`."""
    chosen = list(workspace.plugins.select_related("plugin"))
    spec = sets.spec_of(workspace, workspace.release, chosen)
    limits: Limits = {**workspace.plan.limits, "internet": spec.internet}
    lifecycle.change_limits(workspace.instance_id, **limits)


def follow_all() -> bool:
    """Take the workspaces of every plan a step further; return whether more can be done at once.

    In a worker. Two of them at once do the same twice, which does nothing the second time.
    """
    more = False
    for plan in Plan.objects.all():
        there = _live().filter(plan=plan)
        instances = Instance.objects.filter(workspace__in=there.values("pk"))
        if lifecycle.change_limits_at_once(
            instances, idle_seconds=plan.idle_seconds, disk_mb=plan.disk_mb
        ):
            tell_soon()
        # One whose plugins change comes later: a change writes the spec too.
        changing_now = Change.objects.filter(workspace=OuterRef("pk"), state=Change.State.OPEN)
        lagging = there.filter(_OTHER_CONTAINER).exclude(Exists(changing_now)).order_by("slug")
        asleep = lagging.exclude(instance__desired=Desired.RUNNING)
        more |= _follow(asleep[:ASLEEP_AT_ONCE]) == ASLEEP_AT_ONCE
        awake = lagging.filter(instance__desired=Desired.RUNNING)
        _follow(awake[: _places(there)])
    return more


# What has an instance come up: somebody asks for it, or its container is made anew.
_UP = ("wake", "want_running")
_ANEW = ("change_spec", "change_plugins", "roll_back", "restart", "set_secret")


def _places(workspaces: QuerySet[Workspace]) -> int:
    """Return how many more may be replaced now, while others of the same plan come up.

    Those that failed take places too, all but one: a limit that does harm does it slowly, and one
    workspace that does not come up does not keep the others waiting for ever.
    """
    here = workspaces.filter(~_OTHER_CONTAINER, instance__desired=Desired.RUNNING)
    # Also such as no worker has begun with: their old container still answers.
    up = Q(instance__ready=True, instance__observed_generation=F("instance__generation"))
    waits = Q(instance__predecessor__isnull=False, instance__predecessor__purged_at=None)
    # Whoever came for a page or pressed Start is not replaced by us.
    asked = InstanceEvent.objects.filter(instance=OuterRef("instance"), kind__in=[*_UP, *_ANEW])
    by_somebody = Q(asked__in=_UP, asked__isnull=False)
    coming_up = here.annotate(asked=Subquery(asked.order_by("-id").values("kind")[:1]))
    well = Count("pk", filter=Q(instance__attempts__lt=FAILED_AFTER_ATTEMPTS))
    found = coming_up.exclude(up | waits | by_somebody).aggregate(all=Count("pk"), coming=well)
    coming: int = found["coming"]
    failing: int = found["all"] - coming
    return max(0, max(1, AT_ONCE - failing) - coming)


def _follow(lagging: QuerySet[Workspace]) -> int:
    found = list(lagging)
    for one in found:
        try:
            # Deleted meanwhile: it follows when somebody brings it back.
            with suppress(Refused), changing(one) as current:
                follow(current)
        except Exception:  # it is tried again; those after it need not wait
            logger.exception("%s cannot be given the limits of its plan", one)
    return len(found)
