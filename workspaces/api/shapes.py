"""What goes into the API and comes out of it. Every field says what it is, with an example."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, Generic, Self, TypeVar, Union, get_args, get_origin

from django.conf import settings
from ninja import Schema
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from accounts.api_tokens import Scope
from accounts.models import ApiToken
from deploy.models import Instance, UsageHour
from deploy.states import DiskLevel, Status
from workspaces.api.reach import Reached
from workspaces.changes import MAX_SECRETS
from workspaces.invitations import MAX_EMAIL
from workspaces.models import Change, Invitation, Member, Release, Role, Visibility
from workspaces.services import METADATA_NAMES
from workspaces.usage import Disk

T = TypeVar("T")

# Postgres keeps no NULs, and a name is more than white space.
NO_NUL = r"^[^\x00]*$"
NOT_BLANK = r"^[^\x00]*[^\s\x00-\x1f\x85][^\x00]*$"
# What workspaces.slugs allows, but for reserved names.
SLUG_PATTERN = r"^[a-z0-9]+(-[a-z0-9]+)*$"
Text = Annotated[str, StringConstraints(pattern=NO_NUL)]
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=80, pattern=NOT_BLANK),
    Field(description="What people call it.", examples=["Trees of Kyiv"]),
]
VARIABLE = r"^[A-Z][A-Z0-9_]{0,63}$"
Variable = Annotated[str, StringConstraints(pattern=VARIABLE)]
SecretValue = Annotated[str, StringConstraints(max_length=16_000, pattern=NO_NUL)]
MetadataName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,40}$")]
MetadataValue = Annotated[str, StringConstraints(max_length=500, pattern=NO_NUL)]


def _at_most(number: int) -> BeforeValidator:
    """Before each is looked at: pydantic's own `max_length` counts what is left afterwards."""

    def count(value: object) -> object:
        if isinstance(value, dict) and len(value) > number:
            raise ValueError(f"Send at most {number} names.")
        return value

    return BeforeValidator(count)


Pairs = Annotated[dict[MetadataName, MetadataValue], _at_most(METADATA_NAMES)]
# All of them others than there were.
MAX_METADATA_CHANGES = 2 * METADATA_NAMES
# The services say it in better words than pydantic; the document says it all the same.
_SLUG_LIMITS: dict[str, Any] = {"minLength": 3, "maxLength": 40, "pattern": SLUG_PATTERN}
_METADATA_LIMITS: dict[str, Any] = {
    "additionalProperties": False,
    "maxProperties": METADATA_NAMES,
}


def _a_text(value: object) -> object:
    """Pydantic takes numbers for times as well, also as a text."""
    if value is not None and not (isinstance(value, str) and re.match(r"\d{4}-\d\d-", value)):
        raise ValueError("Use a text such as 2026-11-27T17:00:00Z.")
    return value


def _in_utc(moment: datetime) -> datetime:
    """Postgres takes fewer zones than Python, and Python has no year 10000."""
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("There is no such time.") from error


Moment = Annotated[AwareDatetime, BeforeValidator(_a_text), AfterValidator(_in_utc)]


class In(Schema):
    """What is sent to us: a name that we do not know is a mistake, and so is "5" for 5."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _of_the_right_kind(cls, value: Any, about: ValidationInfo) -> Any:
        """pydantic would read numbers out of texts, and take 1 for true."""
        kinds = set(_kinds(cls.model_fields[about.field_name or ""].annotation))
        if value is None or not kinds & {int, float, bool}:
            return value
        if bool in kinds and not isinstance(value, bool):
            raise ValueError("Send true or false.")
        if bool not in kinds and isinstance(value, str | bool):
            raise ValueError("Send a number.")
        return value


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yield the types of which one may be given."""
    if get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _kinds(part)
    elif get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    else:
        yield annotation


REQUEST_ID = "6f1c0c1b8f7d4b0e9a2f3c4d5e6f7a8b"


class Page(Schema, Generic[T]):
    """A part of a list."""

    items: list[T] = Field(description="What is in this part of the list.")
    next: str | None = Field(
        None,
        description="Send it as `cursor` to get what follows; null at the end.",
        examples=["WyIxMjA0Il0"],
    )


class Error(Schema):
    """One thing that is wrong with a request."""

    field: str = Field(description="Where.", examples=["body.name"])
    message: str = Field(description="What, in words.", examples=["Give it a name."])


class ProblemOut(Schema):
    """An error (RFC 9457), as `application/problem+json`."""

    type: str = Field(
        description="The address of the code's explanation.",
        examples=["https://cloud.example.org/api/v1/docs#problem-not_found"],
    )
    title: str = Field(
        description="What the code means, in a few words.", examples=["There is no such thing"]
    )
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(
        description="One sentence that says what is wrong, and what to do.",
        examples=["There is no such workspace, or this token may not see it."],
    )
    instance: str = Field(
        description="The path that was asked for.", examples=["/api/v1/workspaces/trees"]
    )
    code: str = Field(
        description="What scripts rely on; it never changes its meaning.", examples=["not_found"]
    )
    request_id: str = Field(
        description="What the logs call this request, also in `X-Request-ID`. Tell the operators.",
        examples=[REQUEST_ID],
    )
    errors: list[Error] = Field(
        [], description="With the code `invalid`: the fields at fault, 20 at most."
    )


class DiskOut(Schema):
    """What a workspace's disk holds."""

    used_bytes: int | None = Field(
        description="As it was measured last; null when it has not been yet.", examples=[734003200]
    )
    limit_bytes: int = Field(
        description="What the plan allows. When it is reached, nothing can be added.",
        examples=[10737418240],
    )
    level: DiskLevel = Field(
        description="`nearly_full` from 80 % on; `full`: it can only be read.", examples=["fine"]
    )
    measured_at: datetime | None = Field(
        description="When: once a minute while it runs.", examples=["2026-11-27T17:00:00Z"]
    )

    @classmethod
    def of(cls, instance: Instance) -> Self:
        """Show the disk of an instance."""
        disk = Disk.of(instance)
        return cls(
            used_bytes=disk.used,
            limit_bytes=disk.limit,
            level=disk.level,
            measured_at=disk.measured_at,
        )


class UsageHourOut(Schema):
    """What was used within one hour. Hours in which it slept are missing."""

    hour: datetime = Field(description="When it began.", examples=["2026-11-27T17:00:00Z"])
    memory_peak_bytes: int = Field(description="The most memory seen.", examples=[125829120])
    memory_mean_bytes: int = Field(description="The mean of the memory seen.", examples=[104857600])
    cpu_seconds: float = Field(description="Seconds of one CPU core.", examples=[12.5])
    requests: int = Field(description="How many requests it answered.", examples=[321])
    awake_seconds: float = Field(description="For how long it ran.", examples=[3600.0])
    disk_bytes: int = Field(description="The most disk seen.", examples=[734003200])

    @classmethod
    def of(cls, row: UsageHour) -> Self:
        """Show one hour."""
        return cls(
            hour=row.hour,
            memory_peak_bytes=row.memory_peak,
            memory_mean_bytes=row.memory_sum // max(1, row.samples),
            cpu_seconds=round(row.cpu_seconds, 3),
            requests=row.requests,
            awake_seconds=round(row.awake_seconds, 3),
            disk_bytes=row.disk_bytes,
        )


class UsageOut(Schema):
    """What a workspace uses, and what it may use."""

    disk: DiskOut = Field(description="Its disk now.")
    memory_limit_bytes: int = Field(description="The memory it may use.", examples=[536870912])
    cpus: float = Field(description="The CPU cores it may use.", examples=[1.0])
    hours: list[UsageHourOut] = Field(
        description="By the hour, oldest first; the last one is not over. Kept for 30 days, unless "
        "the operators chose otherwise."
    )


class WorkspaceOut(Schema):
    """A workspace, as the one who asks may see it."""

    slug: str = Field(
        description="Its address is made of it; it never changes.", examples=["trees"]
    )
    name: str = Field(description="What people call it.", examples=["Trees of Kyiv"])
    status: Status = Field(
        description="What it is now. `running` means that it answers.", examples=["running"]
    )
    url: str = Field(description="Its own address.", examples=["https://trees.example-apps.net/"])
    visibility: Visibility = Field(
        description="Who may read it: its members (`private`) or everybody (`public`). "
        "Only members change anything.",
        examples=["private"],
    )
    role: Role | None = Field(
        description="Yours in it; null for operators who are no members.", examples=["owner"]
    )
    plan: str = Field(description="The name of its plan.", examples=["Standard"])
    release: str = Field(description="The Datasette version it runs.", examples=["0.65.5"])
    plugins: list[str] = Field(
        description="The plugins that are switched on.", examples=[["datasette-vega"]]
    )
    metadata: dict[str, str] = Field(
        description="What you noted about it.", examples=[{"customer": "4711"}]
    )
    disk: DiskOut = Field(description="What its disk holds.")
    moving: bool = Field(description="Whether the status is about to change by itself.")
    error: str | None = Field(
        description="What went wrong last and has not passed yet, in words.", examples=[None]
    )
    suspended_reason: str | None = Field(
        description="Why the operators suspended it; null when they did not.",
        examples=["Unpaid since June."],
    )
    created_at: datetime = Field(description="When it was made.")
    last_used_at: datetime = Field(description="When somebody last asked it for something.")
    deleted_at: datetime | None = Field(
        description="When its deletion was asked for.", examples=[None]
    )
    purge_at: datetime | None = Field(
        description="When a deleted one's data is removed; until then it can be brought back.",
        examples=[None],
    )

    @classmethod
    def of(cls, reached: Reached) -> Self:
        """Show a workspace that came from `reach.workspaces`."""
        workspace, instance = reached.workspace, reached.workspace.instance
        return cls(
            slug=workspace.slug,
            name=workspace.name,
            status=workspace.status,
            url=workspace.url,
            visibility=Visibility(workspace.visibility),
            role=Role(reached.role) if reached.role else None,
            plan=workspace.plan.name,
            release=workspace.release.version,
            plugins=[approval.plugin.name for approval in workspace.plugins.all()],
            metadata=workspace.metadata,
            disk=DiskOut.of(instance),
            moving=instance.is_moving,
            error=instance.last_error or None,
            suspended_reason=workspace.suspended_reason or None,
            created_at=workspace.created_at,
            last_used_at=instance.last_used_at,
            deleted_at=workspace.deleted_at,
            purge_at=instance.purge_at,
        )


class WorkspaceIn(In):
    """A workspace to be made."""

    name: Name
    slug: (
        Annotated[
            str,
            StringConstraints(max_length=100),
            Field(json_schema_extra=_SLUG_LIMITS),
        ]
        | None
    ) = Field(
        None,
        description="3 to 40 of a-z, 0-9 and single hyphens, and no reserved name such as `www`. "
        "Left out, it follows from the name.",
        examples=["trees"],
    )
    metadata: Pairs = Field(
        {},
        description="Up to 20 names with texts, for yourself.",
        examples=[{"customer": "4711"}],
        json_schema_extra=_METADATA_LIMITS,
    )


class WorkspaceChanges(In):
    """What is to be another way; what is left out stays."""

    name: Name | None = Field(
        None, description="What people call it.", examples=["Trees of Lisbon"]
    )
    metadata: (
        Annotated[
            dict[MetadataName, MetadataValue | None],
            _at_most(MAX_METADATA_CHANGES),
            Field(
                json_schema_extra={
                    "additionalProperties": False,
                    "maxProperties": MAX_METADATA_CHANGES,
                }
            ),
        ]
        | None
    ) = Field(
        None,
        description="Names to set; null takes one out. Others stay.",
        examples=[{"customer": "4711", "old": None}],
    )
    visibility: Visibility | None = Field(
        None,
        description="`public` lets everybody on the internet read all of its tables and run SQL "
        "that reads, without signing in; `private` only its members. It counts within seconds. "
        "The token must be of one of its owners, and have the scope `data` as well.",
        examples=["private"],
    )
    plan: Text | None = Field(
        None, description="The name of another plan. For operators.", examples=[None]
    )


class EventOut(Schema):
    """Something that happened to a workspace."""

    id: int = Field(
        description="Greater than that of everything before. Send it as `Last-Event-ID` to take a "
        "stream up again.",
        examples=[1204],
    )
    at: datetime = Field(description="When.")
    kind: str = Field(description="What, for programs.", examples=["await_ready"])
    status: Status | None = Field(
        description="The status from here on; null when this changed nothing about it.",
        examples=["running"],
    )
    who: str | None = Field(
        description="Who did it: “an operator”, without a name, where it was one of those; null "
        "for what happened by itself.",
        examples=[None],
    )
    text: str = Field(description="What, for people.", examples=["Ready: it answered"])
    detail: str = Field(description="More about it.", examples=[""])
    duration_ms: int | None = Field(description="How long it took.", examples=[212])
    failed: bool = Field(description="Whether it is something that went wrong.")


class LogOut(Schema):
    """The last lines that a workspace's program wrote."""

    lines: list[str] = Field(
        description="Each begins with its time.",
        examples=[["2026-11-27T17:00:00.123456789Z Uvicorn running on unix:/run/http.sock"]],
    )
    fetched_at: datetime | None = Field(description="When they were read; null if there are none.")


class NeedOut(Schema):
    """A secret that a plugin needs."""

    name: str = Field(description="Of the environment variable.", examples=["OPENCAGE_KEY"])
    help: str = Field(
        description="What it is and where to get it.",
        examples=["An API key from opencagedata.com"],
    )
    is_set: bool = Field(description="Whether the workspace has a value for it.")


class PluginOut(Schema):
    """A plugin that a workspace may have."""

    name: str = Field(description="Its name, which is its package's.", examples=["datasette-vega"])
    version: str = Field(description="The approved version.", examples=["0.6.2"])
    summary: str = Field(
        description="What it does.", examples=["A Datasette plugin for visualizing data"]
    )
    on: bool = Field(description="Whether it is switched on.")
    needs: list[NeedOut] = Field(description="The secrets that it needs.")
    needs_internet: bool = Field(description="Whether it brings access to the internet with it.")
    newer: str | None = Field(
        description="The approved version, where an older one is running.", examples=[None]
    )


class ChangeOut(Schema):
    """A change of a workspace's plugins: how far it is, or how it ended."""

    id: int = Field(description="Its number.", examples=[12])
    state: Change.State = Field(description="`open` while it is under way.", examples=["done"])
    step: str = Field(
        description="resolve, fetch, build, check or switch: the one under way, or the last one.",
        examples=["switch"],
    )
    durations: dict[str, int] = Field(
        description="Milliseconds of each step that is done.", examples=[{"build": 1204}]
    )
    plugins: list[str] = Field(description="What is wanted.", examples=[["datasette-vega"]])
    release: str = Field(description="The Datasette version it is for.", examples=["0.65.5"])
    error: str | None = Field(description="What went wrong, in words.", examples=[None])
    at: datetime = Field(description="When it was asked for.")
    finished_at: datetime | None = Field(description="When it ended; null while it is under way.")

    @classmethod
    def of(cls, change: Change) -> Self:
        """Show a change whose `wanted` came along."""
        return cls(
            id=change.pk,
            state=Change.State(change.state),
            step=change.step,
            durations=change.durations,
            plugins=sorted(approval.plugin.name for approval in change.wanted.all()),
            release=change.release.version,
            error=change.error or None,
            at=change.at,
            finished_at=change.finished_at,
        )


class PluginsOut(Schema):
    """What a workspace may have, and the newest change of it."""

    items: list[PluginOut] = Field(description="What it may have, by name.")
    change: ChangeOut | None = Field(description="The newest change, done or not.")


class PluginsIn(In):
    """Just these plugins are to be on."""

    plugins: list[Annotated[str, StringConstraints(max_length=200)]] = Field(
        description="By name. All others are switched off.",
        max_length=200,
        examples=[["datasette-vega"]],
    )
    secrets: Annotated[dict[Variable, SecretValue], _at_most(MAX_SECRETS)] = Field(
        {},
        json_schema_extra={"additionalProperties": False, "maxProperties": MAX_SECRETS},
        description=(
            "Values of secrets that these plugins need, for those that the workspace has not got. "
            "To give any, the token needs the scope `secrets` too."
        ),
        examples=[{}],
    )


class SecretOut(Schema):
    """A secret's name. Its value cannot be read."""

    name: str = Field(description="Of the environment variable.", examples=["OPENCAGE_KEY"])
    used_by: list[str] = Field(
        description="The plugins that are on and need it.", examples=[["datasette-enrichments"]]
    )


class SecretIn(In):
    """A secret's value."""

    value: SecretValue = Field(
        min_length=1,
        description="It is encrypted, and given to the workspace's own container only.",
        examples=["s3cret"],
    )


class MemberOut(Schema):
    """Somebody who belongs to a workspace."""

    id: int = Field(description="The user's number.", examples=[17])
    name: str = Field(description="As they want to be called.", examples=["Ada"])
    email: str = Field(description="Their primary address.", examples=["ada@example.org"])
    role: Role = Field(description="What they may do.", examples=["editor"])
    since: datetime = Field(description="When they came to it.")
    you: bool = Field(description="Whether it is the token's own user.")

    @classmethod
    def of(cls, member: Member, user_id: int) -> Self:
        """Show a member whose user came from `with_names`."""
        return cls(
            id=member.user_id,
            name=member.user.display_name,
            email=member.user.email,
            role=Role(member.role),
            since=member.created_at,
            you=member.user_id == user_id,
        )


class MemberChanges(In):
    """Another role."""

    role: Role = Field(description="What they may do from now on.", examples=["editor"])


class InvitationState(StrEnum):
    """Whether an invitation's link is good."""

    OPEN = "open"
    EXPIRED = "expired"


class InvitationOut(Schema):
    """An invitation that waits. Its link is in the mail and nowhere else."""

    id: int = Field(description="Its number.", examples=[5])
    email: str = Field(
        description="Whoever has verified this address may accept it.",
        examples=["grace@example.org"],
    )
    role: Role = Field(description="What they will be.", examples=["editor"])
    state: InvitationState = Field(
        description="`expired` when its link is too old; send it again.", examples=["open"]
    )
    invited_by: str | None = Field(
        description="Who sent it; null when they have no account any more.", examples=["Ada"]
    )
    created_at: datetime = Field(description="When it was made.")
    sent_at: datetime = Field(description="When its link was made, which is mailed at once.")
    expires_at: datetime = Field(description="Until when the link is good.")

    @classmethod
    def of(cls, invitation: Invitation) -> Self:
        """Show one whose sender came from `with_names`."""
        by = invitation.invited_by
        expired = invitation.is_expired
        return cls(
            id=invitation.pk,
            email=invitation.email,
            role=Role(invitation.role),
            state=InvitationState.EXPIRED if expired else InvitationState.OPEN,
            invited_by=by.display_name if by else None,
            created_at=invitation.created_at,
            sent_at=invitation.sent_at,
            expires_at=invitation.expires_at,
        )


class InvitationIn(In):
    """Whom to invite."""

    email: Annotated[Text, StringConstraints(min_length=3, max_length=MAX_EMAIL)] = Field(
        description="Where the link is mailed to.", examples=["grace@example.org"]
    )
    role: Role = Field(description="What they will be.", examples=["editor"])


class ReleaseOut(Schema):
    """A Datasette version that is offered."""

    version: str = Field(description="Datasette's own number.", examples=["0.65.5"])
    is_default: bool = Field(description="Whether new workspaces get it.", examples=[True])
    prerelease: bool = Field(description="Whether Datasette calls it an alpha, beta or candidate.")

    @classmethod
    def of(cls, release: Release) -> Self:
        """Show one."""
        return cls(
            version=release.version, is_default=release.is_default, prerelease=release.prerelease
        )


class ImageOut(Schema):
    """A built plugin set, named by the hash of everything that went into it."""

    digest: str = Field(
        description="The hash of everything that went into it.",
        examples=["9f2c41d3a7e05b68c1f4d2907ab3e6f5"],
    )
    state: str = Field(description="building, ready, failed or pruned.", examples=["ready"])
    packages: dict[str, str] = Field(
        description="Python packages and their versions.", examples=[{"datasette": "0.65.5"}]
    )
    created_at: datetime = Field(description="When it was first asked for.")
    built_at: datetime | None = Field(description="When it was built; null before.")


class TokenOut(Schema):
    """An API token. Its text is shown once, when it is made."""

    id: int = Field(description="Its number.", examples=[3])
    name: str = Field(description="What it is for.", examples=["nightly import"])
    hint: str = Field(description="Its first characters.", examples=["cloudapp_a1B2c3"])
    scopes: list[str] = Field(
        description="What it may be used for.", examples=[["read", "lifecycle"]]
    )
    workspace: str | None = Field(
        description="The slug of the only workspace that it opens.", examples=[None]
    )
    created_at: datetime = Field(description="When it was made.")
    expires_at: datetime | None = Field(
        description="When it ends; null for never.", examples=["2027-11-27T17:00:00Z"]
    )
    last_used_at: datetime | None = Field(
        description="When it was last used, to the minute; null if it never was."
    )
    this: bool = Field(description="Whether it is the one that you use now.")

    @classmethod
    def of(cls, token: ApiToken, slug: str | None, this: ApiToken) -> Self:
        """Show a token; `slug` is that of the workspace that it is for."""
        return cls(**cls._facts(token, slug, this))

    @classmethod
    def _facts(cls, token: ApiToken, slug: str | None, this: ApiToken) -> dict[str, Any]:
        return {
            "id": token.pk,
            "name": token.name,
            "hint": token.hint,
            "scopes": token.scopes,
            "workspace": slug,
            "created_at": token.created_at,
            "expires_at": token.expires_at,
            "last_used_at": token.last_used_at,
            "this": token.pk == this.pk,
        }


class MeOut(Schema):
    """Whose token it is."""

    id: int = Field(description="The user's number.", examples=[17])
    name: str = Field(description="What the person is called.", examples=["Ada"])
    email: str = Field(description="The primary address.", examples=["ada@example.org"])
    is_operator: bool = Field(description="Whether this token acts for all customers.")
    token: TokenOut = Field(description="The token that you use.")


class NewTokenOut(TokenOut):
    """A token that was just made."""

    token: str = Field(
        description="Its text. Keep it: nobody can show it again.", examples=["cloudapp_a1B2c3…"]
    )

    @classmethod
    def made(cls, token: ApiToken, slug: str | None, this: ApiToken, text: str) -> Self:
        """Show a token with its text."""
        return cls(**cls._facts(token, slug, this), token=text)


class TokenIn(In):
    """A token to be made: no more than the one that makes it."""

    name: Name = Field(description="What it is for.", examples=["nightly import"])
    scopes: list[Scope] = Field(
        description="What it may be used for.", min_length=1, max_length=20, examples=[["read"]]
    )
    workspace: Text | None = Field(
        None, description="The slug of the only workspace that it should open.", examples=["trees"]
    )
    expires_at: Moment | None = Field(
        None,
        description="When it ends; at the latest when the token that makes it does.",
        examples=["2027-11-27T17:00:00Z"],
    )


def location(path: str) -> str:
    """Return the address of something in the API, for `Location`."""
    return f"{settings.CLOUD_URL}/api/v1{path}"
