"""What goes in and comes out for operators. Every field says what it is, with an example."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self

from django.db.models import TextChoices
from ninja import Schema
from pydantic import Field, StringConstraints

from workspaces import operations, plans, rollouts
from workspaces.api.shapes import In, Text
from workspaces.fleet import Fleet
from workspaces.models import Approval, Change, Grant, Plan, Plugin, Release, Rollout

Note = Annotated[str, StringConstraints(max_length=600, pattern=r"^[^\x00]*$")]
Short = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")]
Package = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?$")
]
Option = Annotated[str, StringConstraints(pattern=r"^([A-Za-z_][A-Za-z0-9_-]{0,99})?$")]
Count = Annotated[int, Field(ge=0, le=1_000_000)]


def _one_of(choices: type[TextChoices], words: str, example: str) -> Any:
    """Return a field with one of these. As a type of its own, each would be called State."""
    values: Any = {"enum": list(choices.values)}
    return Field(description=words, examples=[example], json_schema_extra=values)


# --- workspaces and the fleet --------------------------------------------------------------------


class SuspendIn(In):
    """Why a workspace is suspended."""

    reason: Text = Field(
        min_length=1,
        max_length=operations.MAX_REASON,
        description="Its members read it; at most 200 characters.",
        examples=["Unpaid since June. Write to billing@example.org."],
    )


class ReleaseOfIn(In):
    """The release that a workspace is to have."""

    version: Text = Field(description="One of /operator/releases.", examples=["1.0a41"])


class SparesOut(Schema):
    """Instances that nobody has claimed yet."""

    ready: int = Field(description="Those that whoever comes next can have at once.", examples=[2])
    coming: int = Field(description="Those that do not answer yet.", examples=[0])
    wanted: int = Field(description="How many the default plan asks for.", examples=[2])


class CauseOut(Schema):
    """Why the last attempt at something did not work, and at how many instances."""

    cause: str = Field(description="What went wrong, in words.", examples=["It ran out of memory."])
    count: int = Field(description="How many instances say this.", examples=[3])
    example: str | None = Field(
        description="The slug of one of them; null where all are spares.", examples=["trees"]
    )


class FleetOut(Schema):
    """All of it in numbers."""

    workspaces: int = Field(
        description="How many there are; deleted ones while their data is kept.", examples=[120]
    )
    by_status: dict[str, int] = Field(
        description="How many have each status.", examples=[{"running": 20, "sleeping": 100}]
    )
    spares: SparesOut = Field(description="What is kept ready for new workspaces.")
    failing: list[CauseOut] = Field(
        description="Instances whose last attempt failed, by cause; the most frequent ones first."
    )
    open_changes: dict[str, int] = Field(
        description="Changes of plugins that are under way, by step.", examples=[{"build": 1}]
    )
    rollouts: int = Field(description="How many roll-outs are under way.", examples=[0])
    images: dict[str, int] = Field(
        description="How many images are in each state.", examples=[{"ready": 12, "failed": 1}]
    )
    orphans: dict[str, int] = Field(
        description="What the engine has and no row knows, by kind.", examples=[{"volume": 1}]
    )
    users: int = Field(description="How many people have an account.", examples=[80])
    new_users: int = Field(description="How many of them signed up within 24 hours.", examples=[4])

    attention: dict[str, int] = Field(
        description="What needs an operator's attention, by code: see docs/attention.md.",
        examples=[{"instance-failing": 3, "orphan-volume": 1}],
    )

    @classmethod
    def of(cls, fleet: Fleet, attention: Mapping[str, int]) -> Self:
        """Show a summary."""
        spares = fleet.spares
        return cls(
            workspaces=fleet.workspaces,
            by_status=dict(fleet.by_status),
            spares=SparesOut(ready=spares.ready, coming=spares.coming, wanted=spares.wanted),
            failing=[
                CauseOut(cause=cause.words, count=cause.count, example=cause.example)
                for cause in fleet.failing
            ],
            open_changes=dict(fleet.open_changes),
            rollouts=fleet.rollouts,
            images=dict(fleet.images),
            orphans=dict(fleet.orphans),
            users=fleet.users,
            new_users=fleet.new_users,
            attention=dict(attention),
        )


# --- plans ---------------------------------------------------------------------------------------

PlanName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=50, strip_whitespace=True, pattern=r"^[^\x00]*$"),
]
MemoryMb = Annotated[int, Field(ge=64, le=1_048_576)]
Cpus = Annotated[float, Field(ge=0.05, le=1024, allow_inf_nan=False)]
Pids = Annotated[int, Field(ge=16, le=1_000_000)]
Seconds = Annotated[int, Field(ge=0, le=31_536_000)]
Spares = Annotated[int, Field(ge=0, le=100)]
DiskMb = Annotated[int, Field(ge=1, le=1_073_741_824)]
Members = Annotated[int, Field(ge=1, le=1_000_000)]

# What each field of a plan is, and an example: the same in all of its shapes.
_PLAN: dict[str, tuple[str, Any]] = {
    "name": ("What customers read.", "Standard"),
    "is_default": ("Whether new workspaces get it. True takes it from the one before.", True),
    "memory_mb": ("Memory of a workspace, in MiB.", 512),
    "cpus": ("CPU cores of a workspace.", 1.0),
    "pids": ("How many processes a workspace may have.", 128),
    "idle_seconds": ("It sleeps after so many seconds without use; 0: never.", 900),
    "internet": ("Whether it may reach the internet.", False),
    "disk_mb": (
        "How much data a workspace may hold, in MiB: it is read-only when that is reached.",
        10_240,
    ),
    "max_workspaces": ("How many workspaces an owner may have.", 10),
    "max_members": ("How many members a workspace may have.", 25),
    "spares": ("How many instances are kept ready for new workspaces.", 2),
}


def _plan_field(name: str, *default: Any) -> Any:
    words, example = _PLAN[name]
    return Field(*default, description=words, examples=[example])


class PlanOut(Schema):
    """What workspaces may use."""

    id: int = Field(description="Its number.", examples=[1])
    name: str = _plan_field("name")
    is_default: bool = _plan_field("is_default")
    memory_mb: int = _plan_field("memory_mb")
    cpus: float = _plan_field("cpus")
    pids: int = _plan_field("pids")
    idle_seconds: int = _plan_field("idle_seconds")
    internet: bool = _plan_field("internet")
    disk_mb: int = _plan_field("disk_mb")
    max_workspaces: int = _plan_field("max_workspaces")
    max_members: int = _plan_field("max_members")
    spares: int = _plan_field("spares")
    workspaces: int = Field(description="How many workspaces have it.", examples=[120])
    following: int = Field(
        description="How many of them have its limits as they are now. After a change of the plan, "
        "the others follow a few at a time.",
        examples=[118],
    )
    failing: int = Field(
        description="How many of those that follow do not come up just now.", examples=[0]
    )

    @classmethod
    def of(cls, plan: Plan, progress: plans.Progress) -> Self:
        """Show a plan, and how far its workspaces follow it."""
        values = {name: getattr(plan, name) for name in plans.LABELS}
        return cls(
            id=plan.pk,
            workspaces=progress.total,
            following=progress.following,
            failing=progress.failing,
            **values,
        )


class PlanIn(In):
    """A plan to be made; what is left out is usual."""

    name: PlanName = _plan_field("name")
    is_default: bool = _plan_field("is_default", False)
    memory_mb: MemoryMb = _plan_field("memory_mb", 512)
    cpus: Cpus = _plan_field("cpus", 1.0)
    pids: Pids = _plan_field("pids", 128)
    idle_seconds: Seconds = _plan_field("idle_seconds", 900)
    internet: bool = _plan_field("internet", False)
    disk_mb: DiskMb = _plan_field("disk_mb", 10_240)
    max_workspaces: Count = _plan_field("max_workspaces", 10)
    max_members: Members = _plan_field("max_members", 25)
    spares: Spares = _plan_field("spares", 2)


class PlanChanges(In):
    """What is to be another way; what is left out stays."""

    name: PlanName | None = _plan_field("name", None)
    is_default: bool | None = _plan_field("is_default", None)
    memory_mb: MemoryMb | None = _plan_field("memory_mb", None)
    cpus: Cpus | None = _plan_field("cpus", None)
    pids: Pids | None = _plan_field("pids", None)
    idle_seconds: Seconds | None = _plan_field("idle_seconds", None)
    internet: bool | None = _plan_field("internet", None)
    disk_mb: DiskMb | None = _plan_field("disk_mb", None)
    max_workspaces: Count | None = _plan_field("max_workspaces", None)
    max_members: Members | None = _plan_field("max_members", None)
    spares: Spares | None = _plan_field("spares", None)


# --- releases and roll-outs ----------------------------------------------------------------------


class ReleaseStateOut(Schema):
    """A Datasette version that this software has a lock for."""

    version: str = Field(description="Datasette's.", examples=["0.65.5"])
    prerelease: bool = Field(description="Whether it is an alpha or the like.", examples=[False])
    offered: bool = Field(description="Whether its image is kept built.", examples=[True])
    is_default: bool = Field(description="Whether new workspaces get it.", examples=[True])
    image: str | None = Field(
        description="The state of its image; null while there is none.", examples=["ready"]
    )
    error: str | None = Field(
        description="Why its image could not be built, the last time that was tried.",
        examples=[None],
    )
    workspaces: int = Field(description="How many workspaces have it.", examples=[120])

    @classmethod
    def of(cls, release: Release, used: int) -> Self:
        """Show a release that `used` workspaces have."""
        return cls(
            version=release.version,
            prerelease=release.prerelease,
            offered=release.offered,
            is_default=release.is_default,
            image=release.image.state if release.image else None,
            error=release.error or None,
            workspaces=used,
        )


class OfferIn(In):
    """Whether a release is offered."""

    offered: bool = Field(description="False: not any more.", examples=[True])


class RolloutIn(In):
    """The move of all workspaces of one release to another."""

    source: Text = Field(description="The version that they have.", examples=["0.65.5"])
    target: Text = Field(description="The version that they get.", examples=["1.0a41"])
    batch_size: Annotated[int, Field(ge=1, le=100)] = Field(
        5,
        description="So many at a time; the next ones begin when all of these are done.",
        examples=[5],
    )
    leave_out: list[Short] = Field(
        [], max_length=1000, description="Slugs of those that stay.", examples=[["trees"]]
    )


class RolloutOut(Schema):
    """A roll-out: how far it is, and what stopped it."""

    id: int = Field(description="Its number.", examples=[3])
    source: str = Field(description="The version that they have.", examples=["0.65.5"])
    target: str = Field(description="The version that they get.", examples=["1.0a41"])
    batch_size: int = Field(description="So many at a time.", examples=[5])
    state: str = _one_of(Rollout.State, "How it is.", "running")
    error: str | None = Field(
        description="What stopped it: which workspace, and what went wrong there.",
        examples=["trees: The new set did not come up."],
    )
    skipped: dict[str, str] = Field(
        description="The workspaces that stay where they are, and why.",
        examples=[{"trees": "Left out by the operator."}],
    )
    moved: int = Field(description="How many have changed over.", examples=[15])
    to_move: int | None = Field(description="How many are left; null in lists.", examples=[105])
    at: datetime = Field(description="When it began.", examples=["2026-11-27T17:00:00Z"])
    finished_at: datetime | None = Field(
        description="When it ended; null while it is under way.", examples=[None]
    )

    @classmethod
    def of(cls, rollout: Rollout, *, whole: bool = True) -> Self:
        """Show a roll-out that came with `moved`; `whole` counts what is left, in a query."""
        return cls(
            id=rollout.pk,
            source=rollout.from_release.version,
            target=rollout.to_release.version,
            batch_size=rollout.batch_size,
            state=rollout.state,
            error=rollout.error or None,
            skipped=rollout.skipped,
            moved=getattr(rollout, "moved", 0),
            to_move=rollouts.remaining(rollout).count() if whole else None,
            at=rollout.at,
            finished_at=rollout.finished_at,
        )


# --- the catalogue -------------------------------------------------------------------------------


class EntryIn(In):
    """A package to be put into the catalogue."""

    name: Package = Field(description="As on the package index.", examples=["datasette-vega"])


class EntryChanges(In):
    """What can be set about a plugin."""

    description: Note = Field(
        description="What customers read; empty for the package's own summary.",
        examples=["Charts of what a query returns"],
    )


class EntryOut(Schema):
    """A plugin of the catalogue: what the index says of it, and what counts."""

    name: str = Field(description="The package's name.", examples=["datasette-vega"])
    state: str = _one_of(Plugin.State, "`reading` while a worker reads the index.", "known")
    error: str | None = Field(description="Why it was refused, in words.", examples=[None])
    newest: str = Field(description="The newest version on the index.", examples=["0.6.2"])
    approved: str | None = Field(
        description="The version that is approved on the default release.", examples=["0.6.1"]
    )
    summary: str = Field(description="What it says of itself.", examples=["Charts"])
    description: str = Field(description="What customers read instead, if any.", examples=[""])
    licence: str = Field(description="Its licence.", examples=["Apache-2.0"])
    home_page: str = Field(description="Its home page.", examples=["https://example.org/"])
    requires_python: str = Field(description="Which Python it asks for.", examples=[">=3.10"])
    requires_datasette: str = Field(description="Which Datasette it asks for.", examples=[">=0.54"])
    requires: list[str] = Field(
        description="Its dependencies, in its own words.", examples=[["datasette>=0.54"]]
    )
    own: bool = Field(description="Whether it comes with this software.", examples=[False])
    workspaces: int = Field(description="How many have it on, in any version.", examples=[7])
    added_by: str | None = Field(
        description="Who added it; null where nobody did.", examples=["Olga"]
    )
    added_at: datetime = Field(description="When.", examples=["2026-11-27T17:00:00Z"])
    read_at: datetime | None = Field(
        description="When the index was last read.", examples=["2026-11-27T17:00:04Z"]
    )

    @classmethod
    def of(cls, plugin: Plugin) -> Self:
        """Show a plugin that came with `approved` and `used`, and the name of who added it."""
        told = ("name", "newest", "summary", "description", "licence", "home_page", "own")
        asks = ("requires_python", "requires_datasette", "requires", "added_at", "read_at")
        return cls(
            state=plugin.state,
            error=plugin.error or None,
            approved=getattr(plugin, "approved", None),
            workspaces=getattr(plugin, "used", 0),
            added_by=plugin.added_by.display_name if plugin.added_by else None,
            **{name: getattr(plugin, name) for name in told + asks},
        )


class NeedIn(In):
    """A value that each workspace is asked for before it can switch the plugin on."""

    name: Short = Field(
        description="The name of an environment variable.", examples=["OPENCAGE_KEY"]
    )
    help: Short = Field(
        "", description="What it is and where to get it.", examples=["Your key for OpenCage"]
    )
    option: Option = Field(
        "", description="The plugin's setting that gets it too.", examples=["api_key"]
    )


class ApprovalIn(In):
    """A yes to one exact version of a plugin on one release."""

    version: Text = Field(description="Exactly as the index has it.", examples=["0.6.2"])
    release: Text | None = Field(
        None, description="A Datasette version; left out, the default one.", examples=["0.65.5"]
    )
    reach: Approval.Reach = Field(
        Approval.Reach.GRANTED, description="Who may use it.", examples=["everyone"]
    )
    required: bool = Field(
        False, description="Whether it is part of every image of the release.", examples=[False]
    )
    needs_internet: bool = Field(
        False, description="Whether a workspace with it reaches the internet.", examples=[False]
    )
    needs: list[NeedIn] = Field(
        [],
        max_length=12,
        description="What it asks of each workspace.",
        examples=[[{"name": "OPENCAGE_KEY"}]],
    )
    note: Note = Field("", description="Why, for other operators.", examples=["Read by two of us"])


class ApprovalOut(Schema):
    """An approval, as it was given and how it is now."""

    id: int = Field(description="Its number.", examples=[12])
    plugin: str = Field(description="The plugin's name.", examples=["datasette-vega"])
    version: str = Field(description="The one version it is for.", examples=["0.6.2"])
    release: str = Field(description="The Datasette version it is for.", examples=["0.65.5"])
    state: str = _one_of(
        Approval.State, "`locking` while a worker locks its files; only `active` counts.", "active"
    )
    error: str | None = Field(description="Why it could not be locked.", examples=[None])
    reach: str = _one_of(Approval.Reach, "Who may use it.", "everyone")
    required: bool = Field(description="Whether it is in every image.", examples=[False])
    needs_internet: bool = Field(
        description="Whether a workspace with it reaches the internet.", examples=[False]
    )
    needs: list[dict[str, str]] = Field(
        description="What it asks of each workspace: name, help and option.",
        examples=[[{"name": "OPENCAGE_KEY", "help": "", "option": ""}]],
    )
    note: str = Field(description="Why, for other operators.", examples=["Read by two of us"])
    by: str | None = Field(
        description="Who gave it; null where it came with this software.", examples=["Olga"]
    )
    at: datetime = Field(description="When.", examples=["2026-11-27T17:00:00Z"])
    expires_at: datetime | None = Field(
        description="From when on nobody new can switch it on; null: never.",
        examples=["2027-11-27T17:00:00Z"],
    )
    ended_by: str | None = Field(description="Who ended it.", examples=[None])
    ended_at: datetime | None = Field(description="When it ended.", examples=[None])
    workspaces: int = Field(description="How many workspaces have this one on.", examples=[7])

    @classmethod
    def of(cls, approval: Approval) -> Self:
        """Show an approval that came with `used`, and the names of who gave and ended it."""
        return cls(**cls._facts(approval))

    @classmethod
    def _facts(cls, approval: Approval) -> dict[str, Any]:
        told = (
            *("version", "required", "needs_internet", "needs", "note"),
            *("at", "expires_at", "ended_at"),
        )
        return {
            "id": approval.pk,
            "plugin": approval.plugin.name,
            "release": approval.release.version,
            "state": approval.state,
            "error": approval.error or None,
            "reach": approval.reach,
            "by": approval.by.display_name if approval.by else None,
            "ended_by": approval.ended_by.display_name if approval.ended_by else None,
            "workspaces": getattr(approval, "used", 0),
            **{name: getattr(approval, name) for name in told},
        }


class FileOut(Schema):
    """A package that an approval adds to the release."""

    name: str = Field(description="The package.", examples=["datasette-vega"])
    version: str = Field(description="Its exact version.", examples=["0.6.2"])
    sha256: list[str] = Field(
        description="Of each file that may be taken.", examples=[["9f2c…", "41aa…"]]
    )


class WholeApprovalOut(ApprovalOut):
    """An approval with every file that it locked."""

    files: list[FileOut] = Field(description="Every package that it adds to the release.")

    @classmethod
    def of(cls, approval: Approval) -> Self:
        """Show an approval with its lock."""
        files = [
            FileOut(name=pin.name, version=pin.version, sha256=list(pin.hashes))
            for pin in approval.pins.values()
        ]
        return cls(**cls._facts(approval), files=files)


class WithdrawIn(In):
    """What becomes of the workspaces that use it."""

    rebuild: bool = Field(
        False,
        description="True: they are rebuilt without it now. False: they keep running it until "
        "their set is changed.",
        examples=[False],
    )


class BegunOut(Schema):
    """A change that was begun."""

    workspace: str = Field(description="Its workspace's slug.", examples=["trees"])
    change: int = Field(
        description="Its number: /workspaces/{slug}/changes/{change} tells how far it is.",
        examples=[41],
    )

    @classmethod
    def of(cls, change: Change) -> Self:
        """Show one."""
        return cls(workspace=change.workspace.slug, change=change.pk)


class WithdrawnOut(Schema):
    """What came of a withdrawal."""

    approval: ApprovalOut = Field(description="As it is now.")
    begun: list[BegunOut] = Field(description="The workspaces that are rebuilt without it.")
    refused: dict[str, str] = Field(
        description="The workspaces that keep it for now, and why.",
        examples=[{"oaks": "Another change is under way."}],
    )


class GrantOut(Schema):
    """The permission of one workspace to use a plugin."""

    workspace: str = Field(description="Its slug.", examples=["trees"])
    by: str | None = Field(description="Who gave it.", examples=["Olga"])
    at: datetime = Field(description="When.", examples=["2026-11-27T17:00:00Z"])

    @classmethod
    def of(cls, grant: Grant) -> Self:
        """Show a grant that came with its workspace and the name of who gave it."""
        by = grant.by.display_name if grant.by else None
        return cls(workspace=grant.workspace.slug, by=by, at=grant.at)
