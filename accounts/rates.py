"""How often an API token may ask: the generic cell rate algorithm, one row and one statement each.

In Postgres, so that all processes count together and losing Redis lets nobody in or out. The table
is unlogged: a crash of the database forgets the counts, which does no harm.
"""

import math
from dataclasses import dataclass

from django.db import connection

# Take `cost` seconds of the budget, unless it would be overdrawn.
_TAKE = """
INSERT INTO accounts_apibudget AS budget (token_id, full_at)
VALUES (%(token)s, clock_timestamp() + %(cost)s * interval '1 second')
ON CONFLICT (token_id) DO UPDATE
    SET full_at = greatest(budget.full_at, clock_timestamp()) + %(cost)s * interval '1 second'
    WHERE greatest(budget.full_at, clock_timestamp()) + %(cost)s * interval '1 second'
          <= clock_timestamp() + %(window)s * interval '1 second'
RETURNING extract(epoch FROM full_at - clock_timestamp())
"""
_LOOK = """
SELECT extract(epoch FROM full_at - clock_timestamp()) FROM accounts_apibudget WHERE token_id = %s
"""


@dataclass(frozen=True)
class Budget:
    """What is left of a rate: `limit` requests in `window` seconds."""

    limit: int
    window: int
    allowed: bool
    used: float  # seconds until all of it is there again

    @property
    def remaining(self) -> int:
        """How many requests could follow at once."""
        return max(0, math.floor((self.window - self.used) * self.limit / self.window + 1e-6))

    @property
    def reset(self) -> int:
        """In how many seconds all of it is there again."""
        return math.ceil(max(0.0, self.used))

    @property
    def retry_after(self) -> int:
        """In how many seconds the next request is let in."""
        return max(1, math.ceil(self.used + self.window / self.limit - self.window))


def spend(token_id: int, limit: int, window: int = 60) -> Budget:
    """Count one request of a token; say whether it is within the limit."""
    values = {"token": token_id, "cost": window / limit, "window": window}
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, values)
        if row := cursor.fetchone():
            return Budget(limit, window, allowed=True, used=float(row[0]))
        cursor.execute(_LOOK, [token_id])
        row = cursor.fetchone()
        return Budget(limit, window, allowed=False, used=float(row[0]) if row else float(window))
