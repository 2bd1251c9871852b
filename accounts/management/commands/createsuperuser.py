"""Django's name for it. Its own command asks for a username, which nobody has here."""

from accounts.management.commands.create_operator import Command

__all__ = ["Command"]
