"""What a role allows, and how to ask for it: Datasette 0.65 and 1.0 are asked differently."""

from __future__ import annotations

from typing import Any

from datasette.app import Datasette

READING = frozenset(
    {
        "view-instance",
        "view-database",
        "view-database-download",
        "view-table",
        "view-query",
        "execute-sql",
    }
)
# The permission names of Datasette 1.0 and of well-known plugins, besides the ones in our image.
WRITING = frozenset(
    {
        "upload-csvs",
        "upload-dbs",
        "configure-fts",
        "insert-row",
        "update-row",
        "delete-row",
        "create-table",
        "alter-table",
        "drop-table",
        "create-view",
        "drop-view",
        "set-column-type",
        "execute-write-sql",
        "store-query",
        "update-query",
        "delete-query",
        "datasette-write",
        "edit-schema",
        "edit-schema-create-table",
        "edit-schema-drop-table",
        "datasette-edit-templates",
        "enrichments",
    }
)


def role_allows(actor: dict[str, Any] | None, action: str) -> bool | None:
    """Everybody reads, viewers do nothing else, editors write, owners do everything.

    None leaves the answer to Datasette and the other plugins: they may hide a table from somebody,
    and they know their own permissions. Requests without an actor come from inside only.
    """
    if actor is None or action in READING:
        return None
    if actor.get("role") == "owner":
        return True
    if actor.get("role") == "editor":
        return True if action in WRITING else None
    return False


async def may(datasette: Datasette, actor: dict[str, Any] | None, action: str) -> bool:
    """Ask for a permission that is about the whole workspace, such as upload-dbs.

    1.0 raises ValueError for an action that no plugin of this image has registered.
    """
    if hasattr(datasette, "permission_allowed"):
        return bool(await datasette.permission_allowed(actor, action, default=False))
    return action in datasette.actions and await datasette.allowed(action=action, actor=actor)
