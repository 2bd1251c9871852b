"""Who is this?"""

from importlib import import_module

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        # Receivers can only be connected once every model is there.
        import_module("accounts.signals")
        import_module("accounts.witness")
        import_module("accounts.audit").hear_the_admin()
