"""How often API tokens may ask: the generic cell rate algorithm, one row for each rate.

Each token has its rate, and each person has one for all their tokens together: tokens can make
tokens. Both are spent by one statement.

In Postgres, so that all processes count together and losing Redis lets nobody in or out. The tables
are unlogged: a crash of the database forgets the counts, which does no harm.
"""

import math
from dataclasses import dataclass

from django.db import connection

from accounts.models import ApiToken

# All tokens of a person together may ask so many times as often as one of them.
OF_A_PERSON = 4

# Take `cost` seconds of the token's budget, unless it would be overdrawn, and then `share` seconds
# of the person's. In this order: a token that asks too often takes nothing from the others.
_TAKE = """
WITH of_token AS (
    INSERT INTO accounts_apibudget AS budget (token_id, full_at)
    VALUES (%(token)s, clock_timestamp() + %(cost)s * interval '1 second')
    ON CONFLICT (token_id) DO UPDATE
        SET full_at = greatest(budget.full_at, clock_timestamp()) + %(cost)s * interval '1 second'
        WHERE greatest(budget.full_at, clock_timestamp()) + %(cost)s * interval '1 second'
              <= clock_timestamp() + %(window)s * interval '1 second'
    RETURNING full_at
), of_person AS (
    INSERT INTO accounts_apiuserbudget AS budget (user_id, full_at)
    SELECT %(user)s, clock_timestamp() + %(share)s * interval '1 second' FROM of_token
    ON CONFLICT (user_id) DO UPDATE
        SET full_at = greatest(budget.full_at, clock_timestamp()) + %(share)s * interval '1 second'
        WHERE greatest(budget.full_at, clock_timestamp()) + %(share)s * interval '1 second'
              <= clock_timestamp() + %(window)s * interval '1 second'
    RETURNING full_at
)
SELECT extract(epoch FROM of_token.full_at - clock_timestamp()),
       extract(epoch FROM of_person.full_at - clock_timestamp())
FROM of_token, of_person
"""
_LOOK = """
SELECT (SELECT extract(epoch FROM full_at - clock_timestamp())
        FROM accounts_apibudget WHERE token_id = %(token)s),
       (SELECT extract(epoch FROM full_at - clock_timestamp())
        FROM accounts_apiuserbudget WHERE user_id = %(user)s)
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


def spend(token: ApiToken, limit: int, window: int = 60) -> Budget:
    """Count one request of a token; say whether it is within the limits, by the tighter one."""
    cost = window / limit
    values = {
        "token": token.pk,
        "user": token.user_id,
        "cost": cost,
        "share": cost / OF_A_PERSON,
        "window": window,
    }
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, values)
        row = cursor.fetchone()
        allowed = row is not None
        if row is None:
            cursor.execute(_LOOK, values)
            row = cursor.fetchone()
    budgets = [
        Budget(number, window, allowed, float(used or 0.0))
        for number, used in zip((limit, limit * OF_A_PERSON), row or (), strict=True)
    ]
    return min(budgets, key=lambda budget: (budget.remaining, -budget.retry_after))
