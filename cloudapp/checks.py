"""What `manage.py check --deploy --database default` looks at besides what Django does."""

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import DatabaseError

from cloudapp.postgres import roles


@register(Tags.database, deploy=True)
def audit_log_is_safe(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn when the role that we connect as could switch the audit log's triggers off.

    Silence must mean that somebody looked, so a database that does not answer is told of too.
    """
    if not databases:
        return []
    try:
        owned = roles.owns_the_audit_log()
    except DatabaseError as error:
        words = f"Postgres could not be asked about the role of the processes: {error}"
        return [Warning(words, hint="Look at DATABASE_URL.", id="cloudapp.W002")]
    if not owned:
        return []
    words = "The database role of the processes owns the audit log, so it could be changed."
    hint = "Let another role own the tables: docs/operating.md, The database's two roles."
    return [Warning(words, hint=hint, id="cloudapp.W001")]
