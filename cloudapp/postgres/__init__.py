"""Django's PostgreSQL backend, for which a restart of Postgres is nobody's error."""
