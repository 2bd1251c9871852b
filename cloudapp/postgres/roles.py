"""Two roles in the database: one owns the tables, another one does the daily work.

The second may read and write rows and change no table. Of the audit log it may read rows and add
some: it cannot switch the triggers off that keep the rest from happening, as an owner could.
"""

from django.db import connection
from psycopg import sql

# What may be added to and read, and nothing else.
APPEND_ONLY = ("accounts_auditentry",)

_STATEMENTS = (
    "GRANT USAGE ON SCHEMA public TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}",
    # What has been done to the tables is the owner's to say.
    "REVOKE INSERT, UPDATE, DELETE ON django_migrations FROM {role}",
)


class NotApart(Exception):
    """The role could do more than it is meant to. The text says why."""


def grant_runtime(role: str) -> None:
    """Give a role, which exists, what the processes need. Run it as the owner. Raises NotApart."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT rolsuper OR rolcreaterole OR pg_has_role(rolname, current_user, 'MEMBER') "
            "FROM pg_roles WHERE rolname = %s",
            [role],
        )
        found = cursor.fetchone()
        if found is None:
            raise NotApart(f"there is no role {role}: CREATE ROLE {role} LOGIN PASSWORD …")
        if found[0]:
            raise NotApart(
                f"{role} is a superuser, makes roles, or may act as the role that owns the tables. "
                "Run this as the owner, for another role."
            )
        name = sql.Identifier(role)
        for statement in _STATEMENTS:
            cursor.execute(sql.SQL(statement).format(role=name))
        for table in APPEND_ONLY:
            forbid = sql.SQL("REVOKE ALL ON {table} FROM {role}")
            allow = sql.SQL("GRANT SELECT, INSERT ON {table} TO {role}")
            for query in (forbid, allow):
                cursor.execute(query.format(table=sql.Identifier(table), role=name))
            # By way of PUBLIC, or of a role that it belongs to.
            cursor.execute(
                "SELECT has_table_privilege(%s, %s, 'UPDATE, DELETE, TRUNCATE, TRIGGER')",
                [role, table],
            )
            if cursor.fetchone() != (False,):
                raise NotApart(f"{role} may change {table} by way of another role: revoke that.")


def owns_the_audit_log() -> bool:
    """Whether the role of this connection could switch the audit log's triggers off."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_has_role(current_user, relowner, 'MEMBER') FROM pg_class "
            "WHERE oid = 'accounts_auditentry'::regclass"
        )
        found = cursor.fetchone()
    return bool(found and found[0])
