"""Two roles in the database: one owns the tables, another one does the daily work.

The second may read and write rows and change no table. Of the audit log it may read rows and add
some: it cannot switch the triggers off that keep the rest from happening, as an owner could.

What asks about the role must not be told by the role: while the owner looks, no name is found in a
schema where somebody else may have put a function or a table of the same name.
"""

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from psycopg import sql

# What may be added to and read, and nothing else.
APPEND_ONLY = ("accounts_auditentry",)

_STATEMENTS = (
    "GRANT USAGE ON SCHEMA public TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}",
    # What has been done to the tables is the owner's to say.
    "REVOKE INSERT, UPDATE, DELETE ON public.django_migrations FROM {role}",
)

# Databases that Postgres 14 made, or older ones, let everybody create things next to our tables;
# the next migration would run them as the owner.
_CREATES_NOTHING = (
    "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    "REVOKE CREATE ON SCHEMA public FROM {role}",
)

# Up to Postgres 14 the schema belongs to the administrator, also in databases that were made there
# and brought along. For whoever owns the tables only, the above then is a warning without effect.
_OF_ANOTHER = (
    "SELECT nspowner::regrole::text, quote_ident(current_user) FROM pg_namespace "
    "WHERE nspname = 'public' AND NOT pg_has_role(current_user, nspowner, 'MEMBER') "
    "AND (has_schema_privilege(%(role)s, oid, 'CREATE') "
    "OR NOT has_schema_privilege(%(role)s, oid, 'USAGE'))"
)

# Why a role is not apart, and the query that says whether it is so. `role` is its oid.
_REASONS = {
    "is a superuser, or makes roles, or may act as one who does": (
        "SELECT EXISTS (SELECT FROM pg_roles WHERE pg_has_role(%(role)s, oid, 'MEMBER') "
        "AND (rolsuper OR rolcreaterole))"
    ),
    "may act as a role that owns the tables": (
        "SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND pg_has_role(%(role)s, relowner, 'MEMBER'))"
    ),
    "may run programs on the database's machine, or write files there": (
        "SELECT EXISTS (SELECT FROM pg_roles WHERE pg_has_role(%(role)s, oid, 'MEMBER') "
        "AND rolname IN ('pg_execute_server_program', 'pg_write_server_files'))"
    ),
    "may create things in the schema public, or schemas": (
        "SELECT has_schema_privilege(%(role)s, 'public', 'CREATE') "
        "OR has_database_privilege(%(role)s, current_database(), 'CREATE')"
    ),
    "owns things in this database": (
        "SELECT EXISTS (SELECT FROM pg_shdepend d JOIN pg_database b ON b.oid = d.dbid "
        "WHERE b.datname = current_database() AND d.deptype = 'o' AND d.refobjid = %(role)s)"
    ),
}


class NotApart(Exception):
    """The role could do more than it is meant to. The text says why."""


def grant_runtime(role: str) -> None:
    """Give a role, which exists, what the processes need. Run it as the owner. Raises NotApart."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.current_setting('search_path')")
        (before,) = cursor.fetchone()
        cursor.execute("SET LOCAL search_path = pg_catalog, pg_temp")
        _grant(cursor, role)
        cursor.execute("SELECT set_config('search_path', %s, true)", [before])


def _grant(cursor: CursorWrapper, role: str) -> None:
    cursor.execute("SELECT oid FROM pg_roles WHERE rolname = %s", [role])
    found = cursor.fetchone()
    if found is None:
        raise NotApart(f"there is no role {role}: CREATE ROLE {role} LOGIN PASSWORD …")
    name = sql.Identifier(role)
    for statement in _CREATES_NOTHING:
        cursor.execute(sql.SQL(statement).format(role=name))
    cursor.execute(_OF_ANOTHER, {"role": found[0]})
    if row := cursor.fetchone():
        raise NotApart(
            "the schema public belongs to {}, so that {} can neither give nor take rights on it. "
            "In this database, as its administrator: ALTER SCHEMA public OWNER TO {}".format(
                *row, row[1]
            )
        )
    for words, query in _REASONS.items():
        cursor.execute(query, {"role": found[0]})
        if cursor.fetchone() != (False,):
            raise NotApart(f"{role} {words}. Revoke that, or name another role.")
    for statement in _STATEMENTS:
        cursor.execute(sql.SQL(statement).format(role=name))
    for table in APPEND_ONLY:
        _leave_append_only(cursor, role, sql.Identifier("public", table))


def _leave_append_only(cursor: CursorWrapper, role: str, table: sql.Identifier) -> None:
    names = {"table": table, "role": sql.Identifier(role)}
    cursor.execute(sql.SQL("REVOKE ALL ON {table} FROM {role}").format(**names))
    cursor.execute(sql.SQL("GRANT SELECT, INSERT ON {table} TO {role}").format(**names))
    # By way of PUBLIC, or of a role that it belongs to.
    qualified = table.as_string(None)
    cursor.execute(
        "SELECT has_table_privilege(%(role)s, %(table)s, 'UPDATE, DELETE, TRUNCATE, TRIGGER') "
        "OR has_any_column_privilege(%(role)s, %(table)s, 'UPDATE')",
        {"role": role, "table": qualified},
    )
    if cursor.fetchone() != (False,):
        raise NotApart(f"{role} may change {qualified} by way of another role: revoke that.")


def owns_the_audit_log() -> bool:
    """Whether the role of this connection could switch the audit log's triggers off.

    No, while there is none: before the first migration.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_catalog.pg_has_role(current_user, relowner, 'MEMBER') "
            "FROM pg_catalog.pg_class "
            "WHERE oid = pg_catalog.to_regclass('public.accounts_auditentry')"
        )
        found = cursor.fetchone()
    return bool(found and found[0])
