"""Who belongs to a workspace, and the tokens with which programs act for people."""

from typing import Annotated
from uuid import UUID

from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from ninja import Path, Router
from ninja import Status as Answer

from accounts import api_tokens
from accounts.api_tokens import Scope
from accounts.models import ApiToken, User
from workspaces import invitations, members
from workspaces.api import pages, reach
from workspaces.api.callers import Caller, Needs, caller_of
from workspaces.api.problems import Problem, invalid
from workspaces.api.schema import SLUG, may_refuse
from workspaces.api.shapes import (
    InvitationIn,
    InvitationOut,
    MemberChanges,
    MemberOut,
    MeOut,
    NewTokenOut,
    Page,
    TokenIn,
    TokenOut,
)
from workspaces.api.workspace_routes import Cursor, Limit
from workspaces.models import Invitation, Member, Workspace

router = Router(tags=["people"])

_named = Prefetch("user", User.objects.with_names())
UserId = Annotated[
    int, Path(description="The user's number, as in the list.", ge=1, lt=2**63, examples=[17])
]
InvitationId = Annotated[
    int, Path(description="The invitation's number, as in the list.", ge=1, lt=2**63, examples=[5])
]
TokenId = Annotated[
    int, Path(description="The token's number, as in the list.", ge=1, lt=2**63, examples=[3])
]


# --- members -------------------------------------------------------------------------------------


@router.get(
    "/workspaces/{slug}/members",
    response=Page[MemberOut],
    auth=Needs(Scope.READ, Scope.MEMBERS),
    operation_id="list_members",
    summary="Members of a workspace",
    openapi_extra=may_refuse("not_found"),
)
def list_members(
    request: HttpRequest, slug: SLUG, cursor: Cursor = None, limit: Limit = pages.LIMIT
) -> Page[MemberOut]:
    """Who belongs to it, and as what; whoever came last comes first."""
    caller = caller_of(request)
    workspace = reach.get(caller, slug, "see").workspace
    rows = Member.objects.filter(workspace=workspace).prefetch_related(_named)
    found, after = pages.by_id(rows, cursor, limit)
    return Page(items=[MemberOut.of(member, caller.user.pk) for member in found], next=after)


def _member(caller: Caller, workspace: Workspace, user_id: int) -> MemberOut:
    rows = Member.objects.filter(workspace=workspace, user_id=user_id).prefetch_related(_named)
    member = rows.first()
    if member is None:
        raise Problem("not_found", "This person does not belong to the workspace.")
    return MemberOut.of(member, caller.user.pk)


@router.patch(
    "/workspaces/{slug}/members/{user_id}",
    response=MemberOut,
    auth=Needs(Scope.MEMBERS),
    operation_id="change_role",
    summary="Change a member's role",
    openapi_extra=may_refuse("not_found", "role_too_low", "last_owner", "quota_reached", "deleted"),
)
def change_role(
    request: HttpRequest, slug: SLUG, user_id: UserId, payload: MemberChanges
) -> MemberOut:
    """Give somebody another role; their doors change within seconds."""
    caller = caller_of(request)
    workspace = reach.get(caller, slug, "change_members").workspace
    members.change_role(workspace, caller.user, user_id, payload.role)
    return _member(caller, workspace, user_id)


@router.delete(
    "/workspaces/{slug}/members/{user_id}",
    response={204: None},
    auth=Needs(Scope.MEMBERS),
    operation_id="remove_member",
    summary="Remove a member, or leave",
    openapi_extra=may_refuse("not_found", "role_too_low", "last_owner", "deleted"),
)
def remove_member(request: HttpRequest, slug: SLUG, user_id: UserId) -> Answer[None]:
    """Take somebody out, within seconds also from the running Datasette. Yourself: leave."""
    caller = caller_of(request)
    ability = "see" if user_id == caller.user.pk else "change_members"
    workspace = reach.get(caller, slug, ability).workspace
    members.remove(workspace, caller.user, user_id)
    return Answer(204, None)


@router.post(
    "/workspaces/{slug}/members/{user_id}/transfer",
    response=MemberOut,
    auth=Needs(Scope.MEMBERS),
    operation_id="transfer_ownership",
    summary="Hand a workspace over",
    openapi_extra=may_refuse(
        "not_found", "role_too_low", "refused", "quota_reached", "deleted", once=True
    ),
)
def transfer_ownership(request: HttpRequest, slug: SLUG, user_id: UserId) -> MemberOut:
    """Make another member an owner and the token's user, who must be one, an editor: in one step.

    The answer is the new owner.
    """
    caller = caller_of(request)
    workspace = reach.get(caller, slug, "change_members").workspace
    members.transfer(workspace, caller.user, user_id)
    return _member(caller, workspace, user_id)


# --- invitations ---------------------------------------------------------------------------------

_invited_by = Prefetch("invited_by", User.objects.with_names())


@router.get(
    "/workspaces/{slug}/invitations",
    response=Page[InvitationOut],
    auth=Needs(Scope.MEMBERS),
    operation_id="list_invitations",
    summary="Open invitations of a workspace",
    openapi_extra=may_refuse("not_found", "role_too_low"),
)
def list_invitations(
    request: HttpRequest, slug: SLUG, cursor: Cursor = None, limit: Limit = pages.LIMIT
) -> Page[InvitationOut]:
    """Those that were neither accepted nor withdrawn, newest first."""
    workspace = reach.get(caller_of(request), slug, "change_members").workspace
    rows = invitations.pending(workspace).prefetch_related(_invited_by)
    found, after = pages.by_id(rows, cursor, limit)
    return Page(items=[InvitationOut.of(one) for one in found], next=after)


@router.post(
    "/workspaces/{slug}/invitations",
    response={201: InvitationOut},
    auth=Needs(Scope.MEMBERS),
    operation_id="create_invitation",
    summary="Invite somebody",
    openapi_extra=may_refuse(
        "not_found", "role_too_low", "exists", "refused", "deleted", once=True
    ),
)
def create_invitation(
    request: HttpRequest, slug: SLUG, payload: InvitationIn
) -> Answer[InvitationOut]:
    """Have a link mailed to an address. Only who has verified that address can accept, once."""
    caller = caller_of(request)
    workspace = reach.get(caller, slug, "change_members").workspace
    made = invitations.invite(workspace, caller.user, payload.email, payload.role)
    return Answer(201, _shown(made))


def _shown(invitation: Invitation) -> InvitationOut:
    rows = Invitation.objects.prefetch_related(_invited_by)
    return InvitationOut.of(rows.get(pk=invitation.pk))


@router.post(
    "/workspaces/{slug}/invitations/{invitation_id}/resend",
    response=InvitationOut,
    auth=Needs(Scope.MEMBERS),
    operation_id="resend_invitation",
    summary="Send an invitation again",
    openapi_extra=may_refuse("not_found", "role_too_low", "refused", "deleted", once=True),
)
def resend_invitation(
    request: HttpRequest, slug: SLUG, invitation_id: InvitationId
) -> InvitationOut:
    """Mail another link, good for as long as a new one; the old link works no more."""
    caller = caller_of(request)
    workspace = reach.get(caller, slug, "change_members").workspace
    return _shown(invitations.resend(workspace, caller.user, invitation_id))


@router.delete(
    "/workspaces/{slug}/invitations/{invitation_id}",
    response={204: None},
    auth=Needs(Scope.MEMBERS),
    operation_id="withdraw_invitation",
    summary="Withdraw an invitation",
    openapi_extra=may_refuse("not_found", "role_too_low", "deleted"),
)
def withdraw_invitation(
    request: HttpRequest, slug: SLUG, invitation_id: InvitationId
) -> Answer[None]:
    """Take it back: its link works no more."""
    caller = caller_of(request)
    workspace = reach.get(caller, slug, "change_members").workspace
    invitations.withdraw(workspace, caller.user, invitation_id)
    return Answer(204, None)


# --- oneself -------------------------------------------------------------------------------------


@router.get(
    "/me",
    response=MeOut,
    auth=Needs(),
    operation_id="get_me",
    summary="Whose token it is",
    openapi_extra=may_refuse(),
)
def get_me(request: HttpRequest) -> MeOut:
    """The person for whom the token acts, and what is known of the token. Any token may ask."""
    caller = caller_of(request)
    user = User.objects.with_names().get(pk=caller.user.pk)
    slug = _slugs([caller.token]).get(caller.token.only)
    return MeOut(
        id=user.pk,
        name=user.display_name,
        email=user.email,
        is_operator=caller.is_operator,
        token=TokenOut.of(caller.token, slug, caller.token),
    )


# --- tokens --------------------------------------------------------------------------------------


def _slugs(tokens: list[ApiToken]) -> dict[UUID | None, str]:
    wanted = [token.only for token in tokens if token.only is not None]
    return dict(Workspace.objects.filter(pk__in=wanted, purged_at=None).values_list("pk", "slug"))


@router.get(
    "/tokens",
    response=Page[TokenOut],
    auth=Needs(),
    operation_id="list_tokens",
    summary="Your tokens",
    openapi_extra=may_refuse(),
)
def list_tokens(
    request: HttpRequest, cursor: Cursor = None, limit: Limit = pages.LIMIT
) -> Page[TokenOut]:
    """The good ones that are no mightier than the one you use, which is among them."""
    caller = caller_of(request)
    found, after = pages.by_id(_within(caller), cursor, limit)
    slugs = _slugs(found)
    items = [TokenOut.of(token, slugs.get(token.only), caller.token) for token in found]
    return Page(items=items, next=after)


def _within(caller: Caller) -> QuerySet[ApiToken]:
    """Return the user's tokens that can do nothing which the one in use cannot."""
    mine = caller.token
    rows = api_tokens.good(caller.user).filter(
        scopes__contained_by=sorted(api_tokens.implied(mine))
    )
    return rows.filter(only=mine.only) if mine.only is not None else rows


@router.post(
    "/tokens",
    response={201: NewTokenOut},
    auth=Needs(),
    operation_id="create_token",
    summary="Make a token",
    openapi_extra=may_refuse("refused", once=True),
)
def create_token(request: HttpRequest, payload: TokenIn) -> Answer[NewTokenOut]:
    """Make a token that can do no more, and lives no longer, than the one that you use.

    Its text is shown once. It ends when the one that made it is revoked.
    """
    caller = caller_of(request)
    only = caller.token.only
    if payload.workspace is not None:
        found = reach.workspaces(caller).filter(slug=payload.workspace).first()
        if found is None:
            raise invalid("body.workspace", "There is no such workspace, or you may not see it.")
        only = found.pk
    try:
        token, text = api_tokens.create(
            caller.user,
            payload.name,
            payload.scopes,
            only=only,
            expires_at=payload.expires_at or caller.token.expires_at,
            parent=caller.token,
        )
    except api_tokens.NotAllowed as refusal:
        raise Problem("refused", str(refusal)) from refusal
    slug = _slugs([token]).get(token.only)
    return Answer(201, NewTokenOut.made(token, slug, caller.token, text))


@router.delete(
    "/tokens/{token_id}",
    response={204: None},
    auth=Needs(),
    operation_id="revoke_token",
    summary="Revoke a token",
    openapi_extra=may_refuse("not_found"),
)
def revoke_token(request: HttpRequest, token_id: TokenId) -> Answer[None]:
    """End it at once, with all that were made with it. The one in use, too, if you name it."""
    caller = caller_of(request)
    token = _within(caller).filter(pk=token_id).first()
    if token is None:
        raise Problem("not_found", "You have no such token, or this one is not as mighty.")
    api_tokens.revoke(token, by=caller_of(request).user)
    return Answer(204, None)
