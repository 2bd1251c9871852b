"""The test database itself: who is connected to it, and who waits in it."""

import logging

from django.db import connection

# How long Postgres waits for those that it ends.
MILLISECONDS = 90_000


def part_all_connections() -> None:
    """End every connection to the test database, ours too, and let nobody in any more.

    Threads that listen or wait connect anew as soon as they are parted: the database could not be
    dropped. Postgres lets nobody close the database that they are in, so it is done from another.
    """
    # They go on trying until this process ends, and that is nobody's news.
    logging.getLogger("deploy.notify").disabled = True
    name = connection.settings_dict["NAME"]
    connection.close()  # fault tests break connections: this one may be broken too
    with connection._nodb_cursor() as cursor:  # type: ignore[attr-defined]
        quoted = connection.ops.quote_name(name)
        cursor.execute(f"ALTER DATABASE {quoted} ALLOW_CONNECTIONS false")
        cursor.execute(
            "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity WHERE datname = %s",
            [MILLISECONDS, name],
        )


def somebody_waits_for_a_lock() -> bool:
    """Whether a connection to this database waits for what another one holds."""
    with connection.cursor() as cursor:
        # Or else who connected since this transaction looked first would not be seen.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(cursor.fetchone()[0])
