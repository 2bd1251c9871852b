"""What operators can do with workspaces: one table, for the buttons of a page and for selections.

Each goes through the services that customers' pages call too, and says in words what it did.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminEmailInputWidget, AdminTextInputWidget

from accounts.models import User
from deploy import lifecycle
from deploy.states import Desired, Status, StopReason
from workspaces import changes, deeds, members, operations, services
from workspaces.models import Plan, Release, Workspace
from workspaces.services import Refused

# So many at a time: each is a transaction of its own, and somebody waits for the page.
MOST = 200

Said = Mapping[str, Any]
Run = Callable[[Workspace, User, Said], str]


class ReasonForm(forms.Form):
    """Why."""

    reason = forms.CharField(
        max_length=operations.MAX_REASON,
        widget=AdminTextInputWidget,
        help_text="Its members read this on its page, and its owners in a mail. Whoever opens its "
        "address reads only that it is suspended.",
    )


class PlanForm(forms.Form):
    """Which plan."""

    plan = forms.ModelChoiceField(Plan.objects.order_by("name"), empty_label=None)


class ReleaseForm(forms.Form):
    """Which release."""

    release = forms.ModelChoiceField(
        Release.objects.order_by("-is_default", "pk"), empty_label=None
    )


class OwnerForm(forms.Form):
    """Whose it is."""

    email = forms.EmailField(
        label="Email address",
        widget=AdminEmailInputWidget,
        help_text=(
            "Of a member, who becomes the owner at once. Where nobody belongs to the workspace, of "
            "whoever is to be invited as its owner."
        ),
    )


class ForgetForm(forms.Form):
    """Say it twice."""

    sure = forms.BooleanField(
        label="The container is gone for good, and nothing is to be brought back from here",
        error_messages={"required": "Tick this if you are sure."},
    )


@dataclass(frozen=True)
class Deed:
    """One thing to do with a workspace. `needs` is one of deeds.NEEDS.

    `fits` says whether a workspace is in a state for it. With a `form` it asks something first,
    beside `intro`.
    """

    name: str
    label: str
    needs: str
    fits: Callable[[Workspace], bool]
    run: Run
    form: type[forms.Form] | None = None
    intro: str = ""
    danger: bool = False

    @property
    def button(self) -> str:
        """Its label; with an ellipsis when it asks first."""
        return f"{self.label}…" if self.form else self.label

    def may(self, user: User) -> bool:
        """Whether this operator has the permissions."""
        return deeds.may(user, self.needs)


def _there(workspace: Workspace) -> bool:
    return workspace.deleted_at is None


def _status(*statuses: Status) -> Callable[[Workspace], bool]:
    return lambda workspace: _there(workspace) and workspace.status in statuses


def _wanted_up(workspace: Workspace) -> bool:
    return _there(workspace) and workspace.instance.desired == Desired.RUNNING


def _suspended(workspace: Workspace) -> bool:
    return _there(workspace) and workspace.instance.stop_reason == StopReason.OPERATOR


def _left(workspace: Workspace) -> bool:
    return workspace.instance.purged_at is None


def _simple(do: Callable[[Workspace, User], Any], words: str) -> Run:
    def run(workspace: Workspace, by: User, said: Said) -> str:
        do(workspace, by)
        return words

    return run


def _stop(workspace: Workspace) -> bool:
    instance = workspace.instance
    asleep = instance.desired == Desired.STOPPED and instance.stop_reason == StopReason.IDLE
    return _wanted_up(workspace) or (_there(workspace) and asleep)


def _suspend(workspace: Workspace, by: User, said: Said) -> str:
    operations.suspend(workspace, by, said["reason"])
    return "suspended"


def _change_plan(workspace: Workspace, by: User, said: Said) -> str:
    operations.change_plan(workspace, by, said["plan"])
    return f"gets the plan {said['plan']}"


def _move(workspace: Workspace, by: User, said: Said) -> str:
    deeds.try_out(said["release"], workspace, by)
    return f"changes over to {said['release']}"


def _give_owner(workspace: Workspace, by: User, said: Said) -> str:
    return operations.give_owner(workspace, by, said["email"])


DEEDS: Mapping[str, Deed] = {
    deed.name: deed
    for deed in (
        Deed(
            "retry",
            "Retry now",
            "change_workspaces",
            _left,
            _simple(operations.retry, "is tried again now"),
        ),
        Deed(
            "start",
            "Start",
            "change_workspaces",
            _status(Status.SLEEPING, Status.STOPPED, Status.FAILED),
            _simple(services.start, "starts"),
        ),
        Deed("stop", "Stop", "change_workspaces", _stop, _simple(services.stop, "stops")),
        Deed(
            "restart",
            "Restart",
            "change_workspaces",
            _wanted_up,
            _simple(services.restart, "gets a fresh container"),
        ),
        Deed(
            "suspend",
            "Suspend",
            "change_workspaces",
            lambda workspace: _there(workspace) and not _suspended(workspace),
            _suspend,
            form=ReasonForm,
            intro="It stops, and only operators can start it again. Its data is kept.",
        ),
        Deed(
            "resume",
            "Resume",
            "change_workspaces",
            _suspended,
            _simple(operations.resume, "is not suspended any more, and starts"),
        ),
        Deed(
            "plan",
            "Change plan",
            "change_workspaces",
            _there,
            _change_plan,
            form=PlanForm,
            intro="What runs is replaced by a container with the new limits.",
        ),
        Deed(
            "release",
            "Move to release",
            "try_release",
            _there,
            _move,
            form=ReleaseForm,
            intro=(
                "It keeps its plugins, at the versions that are approved there. One that does not "
                "come up is back on its old image by itself."
            ),
        ),
        Deed(
            "rebuild",
            "Rebuild",
            "change_workspaces",
            _there,
            _simple(operations.rebuild, "has its image built anew, and switches over to it"),
        ),
        Deed(
            "give-up",
            "Give up the change",
            "change_workspaces",
            lambda workspace: changes.open_change(workspace) is not None,
            _simple(operations.give_up_change, "keeps the set that it had"),
        ),
        Deed(
            "restore",
            "Undo the deletion",
            "change_workspaces",
            lambda workspace: workspace.deleted_at is not None and _left(workspace),
            _simple(changes.undelete, "is back, and starts"),
        ),
        Deed(
            "owner",
            "Give it an owner",
            "give_owner",
            lambda workspace: _there(workspace) and not members.owners(workspace).exists(),
            _give_owner,
            form=OwnerForm,
            intro=(
                "It has no owner who can sign in, so nobody can invite, change or delete anything. "
                "Make sure whose it is: an owner reads all of its data, and gives it to others. "
                "Its members read in its activity that the operators did this."
            ),
        ),
        Deed(
            "forget",
            "Forget",
            "forget_workspaces",
            lambda workspace: lifecycle.may_forget(workspace.instance),
            _simple(operations.forget, "is forgotten; its volume, if any, is an orphan now"),
            form=ForgetForm,
            intro=(
                "For one whose container is gone for good, as when its machine was lost: only "
                "where the engine itself said that there is none. Members lose it at once, its "
                "address is free again, and this cannot be undone. Nothing at the engine is "
                "touched: if its data volume is there still, it stays, is listed among the "
                "orphans, and is never removed by us. Of one that was deleted, remove it by hand: "
                "its owners were told that it goes."
            ),
            danger=True,
        ),
    )
}


@dataclass(frozen=True)
class Outcome:
    """What came of a deed at some workspaces: (slug, what happened or why it did not)."""

    done: list[tuple[str, str]]
    refused: list[tuple[str, str]]


def do(deed: Deed, workspaces: Iterable[Workspace], by: User, said: Said) -> Outcome:
    """Do it to each; one that refuses keeps no other from it."""
    outcome = Outcome([], [])
    for workspace in workspaces:
        if not deed.fits(workspace):
            words = f"it is {workspace.status.value}: nothing to do here"
            outcome.refused.append((workspace.slug, words))
            continue
        try:
            outcome.done.append((workspace.slug, deed.run(workspace, by, said)))
        except Refused as refusal:
            outcome.refused.append((workspace.slug, str(refusal)))
    return outcome
