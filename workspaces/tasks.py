"""Work of the workspaces that nobody waits for."""

from importlib import import_module

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from workspaces import services
from workspaces.models import SignInCode, WorkspaceSession


@shared_task
def keep_spares() -> None:
    """Make instances ahead of time, as many as the plan says."""
    services.keep_spares()


@shared_task
def clear_expired() -> None:
    """Remove what lets nobody in any more: codes and sessions; give purged slugs back."""
    now = timezone.now()
    SignInCode.objects.filter(expires_at__lt=now).delete()
    WorkspaceSession.objects.filter(expires_at__lt=now).delete()
    services.release_purged()
    import_module(settings.SESSION_ENGINE).SessionStore.clear_expired()
