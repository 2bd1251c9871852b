"""Hand out only connections that work, without making anybody wait for it.

After a restart of Postgres every pooled connection is broken. Without a check each of them would
be one person's error page. The pool's own check (CONN_HEALTH_CHECKS) throws them away one by one,
with growing pauses in between: somebody waits 10 s and gets the error page all the same. So the
first broken one has us look through the whole pool at once.
"""

from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg_pool import ConnectionPool


class DatabaseWrapper(base.DatabaseWrapper):
    """The backend: `ENGINE` in the settings names this package."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Return a connection that answered a moment ago. Costs one round trip."""
        connection = super().get_new_connection(conn_params)
        pool = self.pool
        if not pool or _answers(connection):
            return connection
        pool.putconn(connection)
        pool.check()
        return super().get_new_connection(conn_params)


def _answers(connection: psycopg.Connection[Any]) -> bool:
    try:
        ConnectionPool.check_connection(connection)
    except psycopg.Error:
        return False
    return True
