"""A webhook's new secret on its way to the next page, which shows it once.

It waits in the session, sealed: neither a cookie nor the database shows it to anybody.
"""

from django.http import HttpRequest

from deploy import vault
from workspaces.models import Webhook

_KEY = "new_webhook_secret"
_NAME = "of this webhook"


def show_next(request: HttpRequest, webhook: Webhook, secret: str) -> None:
    """Have the next page of this webhook show its secret."""
    request.session[_KEY] = [webhook.pk, vault.seal(secret)]


def take(request: HttpRequest, webhook: Webhook) -> str:
    """Return the secret that this webhook has just got, this once; else nothing."""
    pk, sealed = request.session.get(_KEY, (None, ""))
    if pk != webhook.pk:
        return ""
    del request.session[_KEY]
    return vault.open_all({_NAME: sealed})[_NAME]
