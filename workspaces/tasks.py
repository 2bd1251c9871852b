"""Work of the workspaces that nobody waits for."""

from importlib import import_module

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from workspaces.models import SignInCode, WorkspaceSession


@shared_task
def clear_expired() -> None:
    """Remove what lets nobody in any more: codes, workspace sessions and cloud sessions."""
    now = timezone.now()
    SignInCode.objects.filter(expires_at__lt=now).delete()
    WorkspaceSession.objects.filter(expires_at__lt=now).delete()
    import_module(settings.SESSION_ENGINE).SessionStore.clear_expired()
