"""The user is a key that other things hang on, and nothing else.

Email addresses are allauth's EmailAddress, Google accounts its SocialAccount: several per user.
"""

from typing import Any, ClassVar

from allauth.account.models import EmailAddress
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models
from django.utils import timezone


class UserManager(BaseUserManager["User"]):
    """Make users. There is nothing to give but a password."""

    def create_user(self, password: str | None = None, **fields: Any) -> "User":
        """Make a user; without a password they can only sign in another way."""
        user = self.model(**fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, password: str | None = None, **fields: Any) -> "User":
        """Make an operator who may do everything."""
        return self.create_user(password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    """Somebody who can sign in: no name, no address, no username."""

    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField("operator", default=False)
    created = models.DateTimeField(default=timezone.now, editable=False)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "id"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    def __str__(self) -> str:
        return self.display_name

    @property
    def email(self) -> str:
        """The primary address, or the first one, or an empty text."""
        addresses = sorted(
            EmailAddress.objects.filter(user_id=self.pk), key=lambda a: (not a.primary, a.pk)
        )
        return addresses[0].email if addresses else ""

    @property
    def display_name(self) -> str:
        """What to call this person: the profile's name, else the address, else the number."""
        profile = Profile.objects.filter(user_id=self.pk).first()
        return (profile.display_name if profile else "") or self.email or f"user {self.pk}"


class Profile(models.Model):
    """What a person may tell about themselves; optional."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="profile")
    display_name = models.CharField(max_length=100, blank=True)

    def __str__(self) -> str:
        return self.display_name or f"profile of user {self.user_id}"
