"""Who belongs to a workspace, and the tokens with which programs act for you."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cloudctl.commands.params import AsJson, Slug, group
from cloudctl.errors import WrongUsage
from cloudctl.output import Column, when
from cloudctl.paths import Json, address
from cloudctl.session import Session

if TYPE_CHECKING:
    from cloudctl.api import Api

SCOPES = "read, lifecycle, plugins, secrets, members, data, operator"
members = group("Who belongs to a workspace: `cloudctl members SLUG` lists them.")
tokens = group("Your API tokens, as far as they are no mightier than the one in use.")


class Role(StrEnum):
    """What somebody is in a workspace."""

    OWNER = "owner"
    EDITOR = "editor"
    VIEWER = "viewer"


Who = Annotated[
    str, typer.Argument(help="An email address, or a number of the list.", metavar="WHO")
]
Scopes = Annotated[
    list[str], typer.Option("--scope", metavar="SCOPE", help=f"May be repeated. One of: {SCOPES}.")
]


# --- members -------------------------------------------------------------------------------------


@members.command("list")
def list_members(slug: Slug, as_json: AsJson = False) -> None:
    """List the members of a workspace."""
    here = Session(as_json)
    found = list(here.api.pages(address("workspaces", slug, "members")))
    if as_json:
        here.out.json(found)
        return
    columns = [Column("ID"), Column("ROLE"), Column("NAME", True), Column("EMAIL"), Column("SINCE")]
    rows = [
        [str(one["id"]), one["role"], one["name"], one["email"], when(one["since"])]
        for one in found
    ]
    here.out.table(columns, rows)


def _number(api: "Api", slug: str, who: str) -> int:
    """Return a member's number. Raises WrongUsage when nobody has this address."""
    if who.isascii() and who.isdigit():
        return int(who)
    for member in api.pages(address("workspaces", slug, "members")):
        if member["email"].casefold() == who.casefold():
            return int(member["id"])
    raise WrongUsage(f"Nobody with the address {who} belongs to {slug}.")


@members.command("role")
def change_role(
    slug: Slug,
    who: Who,
    role: Annotated[Role, typer.Argument(help="The new role.")],
    as_json: AsJson = False,
) -> None:
    """Give a member another role."""
    here = Session(as_json)
    number = _number(here.api, slug, who)
    path = address("workspaces", slug, "members", number)
    found: Json = here.api.send("PATCH", path, {"role": role.value}).json()
    if as_json:
        here.out.json(found)
    else:
        here.out.line(f"{found['name']} is {found['role']} of {slug} now.")


@members.command("remove")
def remove_member(slug: Slug, who: Who, as_json: AsJson = False) -> None:
    """Take somebody out of a workspace; yourself, to leave it."""
    here = Session(as_json)
    number = _number(here.api, slug, who)
    here.api.send("DELETE", address("workspaces", slug, "members", number))
    if as_json:
        here.out.json({"removed": number})
    else:
        here.out.line(f"{who} is no member of {slug} any more.")


# --- tokens --------------------------------------------------------------------------------------


@tokens.command("list")
def list_tokens(as_json: AsJson = False) -> None:
    """List your tokens, newest first."""
    here = Session(as_json)
    found = list(here.api.pages("/tokens"))
    if as_json:
        here.out.json(found)
        return
    titles = ("ID", "NAME", "BEGINS WITH", "SCOPES", "ONLY", "EXPIRES", "LAST USED", "")
    columns = [Column(title, title in ("NAME", "SCOPES")) for title in titles]
    here.out.table(columns, [_token_row(token) for token in found])


def _token_row(token: Json) -> list[str]:
    return [
        str(token["id"]),
        token["name"],
        token["hint"],
        ",".join(token["scopes"]),
        token["workspace"] or "",
        when(token["expires_at"]) or "never",
        when(token["last_used_at"]),
        "this one" if token["this"] else "",
    ]


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="What it is for.", metavar="NAME")],
    scope: Scopes,
    workspace: Annotated[
        str | None, typer.Option(metavar="SLUG", help="The only workspace that it opens.")
    ] = None,
    days: Annotated[
        int | None, typer.Option(metavar="DAYS", help="When it expires.", min=1, max=36500)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token that can do no more than the one in use, and print it, once."""
    here = Session(as_json)
    wanted: Json = {"name": name, "scopes": scope}
    if workspace is not None:
        wanted["workspace"] = workspace
    if days is not None:
        wanted["expires_at"] = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    found: Json = here.api.post("/tokens", wanted)
    if as_json:
        here.out.json(found)
        return
    here.out.line(found["token"])
    here.out.note("Keep it: nobody can show it again.")


@tokens.command("revoke")
def revoke_token(
    number: Annotated[int, typer.Argument(help="The token's number.", metavar="ID", min=1)],
    as_json: AsJson = False,
) -> None:
    """End a token at once, with all that were made with it."""
    here = Session(as_json)
    here.api.send("DELETE", address("tokens", number))
    if as_json:
        here.out.json({"revoked": number})
    else:
        here.out.line(f"Token {number} is revoked.")
