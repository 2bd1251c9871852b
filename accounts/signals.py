"""What follows from a change to somebody's account."""

from typing import Any

from allauth.account.models import EmailAddress
from allauth.account.signals import email_confirmed, password_changed, password_reset, password_set
from django.contrib.auth import logout
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.http import HttpRequest

from accounts.addresses import release_claims
from accounts.models import User
from accounts.sessions import end_sessions


@receiver([password_changed, password_set])
def end_other_sessions(request: HttpRequest, user: User, **kwargs: Any) -> None:
    """A new password ends every session but the one that set it."""
    end_sessions(user, keep=request.session.session_key)


@receiver(password_reset)
def end_all_sessions(request: HttpRequest, user: User, **kwargs: Any) -> None:
    """After a reset nobody stays signed in: whoever made it necessary may be among them."""
    if request.user.is_authenticated and request.user.pk == user.pk:
        logout(request)
    end_sessions(user)


@receiver(post_save, sender=User)
def end_sessions_of_inactive(instance: User, created: bool, **kwargs: Any) -> None:
    """A user who is switched off is signed out everywhere."""
    if not created and not instance.is_active:
        end_sessions(instance)


@receiver(email_confirmed)
def drop_other_claims(email_address: EmailAddress, **kwargs: Any) -> None:
    """Once an address is somebody's, what others claimed about it is void."""
    release_claims(email_address.email, keep=User.objects.get(pk=email_address.user_id))
