"""The user is a key that other things hang on, and nothing else.

Email addresses are allauth's EmailAddress, Google accounts its SocialAccount: several per user.
"""

from typing import Any, ClassVar, Self

from allauth.account.models import EmailAddress
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models
from django.db.models import OuterRef, Subquery, Value
from django.db.models.functions import Coalesce
from django.utils import timezone


def _primary_first(user: Any) -> models.QuerySet[EmailAddress]:
    found: models.QuerySet[EmailAddress] = EmailAddress.objects.filter(user_id=user)
    return found.order_by("-primary", "-verified", "pk")


class UserQuerySet(models.QuerySet["User"]):
    """Users, many at a time."""

    def with_names(self) -> Self:
        """Bring each user's address and display name along, so that a list of users is one query.

        Without it `email` and `display_name` ask the database for every user.
        """
        address = _primary_first(OuterRef("pk")).values("email")[:1]
        name = Profile.objects.filter(user_id=OuterRef("pk")).values("display_name")
        return self.annotate(
            known_email=Coalesce(Subquery(address), Value("")),
            known_name=Coalesce(Subquery(name), Value("")),
        )


class UserManager(BaseUserManager["User"]):
    """Make users. There is nothing to give but a password."""

    def get_queryset(self) -> UserQuerySet:
        return UserQuerySet(self.model, using=self._db)

    def with_names(self) -> UserQuerySet:
        """Every user, each with address and display name: see UserQuerySet."""
        return self.get_queryset().with_names()

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

    is_active = models.BooleanField("active", default=True)
    is_staff = models.BooleanField("operator", default=False)
    created = models.DateTimeField(default=timezone.now, editable=False)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "id"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    # Only on users that came from with_names().
    known_email: str
    known_name: str

    def __str__(self) -> str:
        return self.display_name

    @property
    def email(self) -> str:
        """The primary address, or the first one, or an empty text."""
        if "known_email" in self.__dict__:
            return self.known_email
        address = _primary_first(self.pk).first()
        return address.email if address else ""

    @property
    def display_name(self) -> str:
        """What to call this person: the profile's name, else the address, else the number."""
        return self._profile_name() or self.email or f"user {self.pk}"

    def _profile_name(self) -> str:
        if "known_name" in self.__dict__:
            return self.known_name
        profile = Profile.objects.filter(user_id=self.pk).first()
        return profile.display_name if profile else ""

    def get_short_name(self) -> str:
        """Say the display name where Django greets people, as its admin does."""
        return self.display_name


class Profile(models.Model):
    """What a person may tell about themselves; optional."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="profile")
    display_name = models.CharField(max_length=100, blank=True)

    def __str__(self) -> str:
        return self.display_name or f"profile of user {self.user_id}"


class ApiToken(models.Model):
    """What lets a program act for a user. Its text is shown once; only a digest is kept.

    `only` is the one thing that it opens, by the key of that thing, or None for all that its user
    may: accounts does not know what it is. `parent` is the token with which this one was made.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=80)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    # Its first characters, to know it again.
    hint = models.CharField(max_length=20, editable=False)
    scopes = models.JSONField(default=list)
    only = models.UUIDField(null=True, blank=True)
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.CASCADE, related_name="children"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = "API token"
        ordering: ClassVar[list[str]] = ["-id"]

    def __str__(self) -> str:
        return f"{self.name} ({self.hint}…)"

    @property
    def is_good(self) -> bool:
        """Whether it opens anything still."""
        expired = self.expires_at is not None and self.expires_at <= timezone.now()
        return self.revoked_at is None and not expired


class ApiBudget(models.Model):
    """How much of its rate an API token has used: see accounts.rates. An unlogged table."""

    token = models.OneToOneField(
        ApiToken, primary_key=True, on_delete=models.CASCADE, related_name="+"
    )
    # When the whole rate is there again.
    full_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"budget of token {self.token_id}"


class ApiUserBudget(models.Model):
    """How much of their rate all API tokens of a user together have used. An unlogged table too."""

    user = models.OneToOneField(User, primary_key=True, on_delete=models.CASCADE, related_name="+")
    full_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"budget of user {self.user_id}"


class AuditEntry(models.Model):
    """Who did what to what, from where, when. accounts.audit writes it; nothing changes it.

    It outlives all that it tells of: ids without foreign keys, and beside them what people and
    things were called then. Its triggers refuse UPDATE, DELETE and TRUNCATE.
    """

    at = models.DateTimeField(default=timezone.now, editable=False)
    # A user's number; None for strangers and for our own machinery.
    actor = models.BigIntegerField(null=True, blank=True, editable=False)
    actor_name = models.CharField(max_length=254, blank=True, editable=False)
    actor_email = models.CharField(max_length=254, blank=True, editable=False)
    by_operator = models.BooleanField(default=False, editable=False)
    # One of accounts.origin.Via, and the name of the token, command or task.
    via = models.CharField(max_length=10, editable=False)
    via_name = models.CharField(max_length=120, blank=True, editable=False)
    address = models.GenericIPAddressField(null=True, blank=True, editable=False)
    request_id = models.CharField(max_length=64, blank=True, editable=False)
    verb = models.CharField(max_length=40, editable=False)
    kind = models.CharField(max_length=40, blank=True, editable=False)
    object_id = models.CharField(max_length=64, blank=True, editable=False)
    label = models.CharField(max_length=200, blank=True, editable=False)
    workspace = models.UUIDField(null=True, blank=True, editable=False)
    detail = models.JSONField(default=dict, editable=False)

    class Meta:
        verbose_name_plural = "audit log"
        ordering: ClassVar[list[str]] = ["-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["workspace", "id"],
                name="audit_of_workspace",
                condition=models.Q(workspace__isnull=False),
            ),
            models.Index(fields=["actor", "id"], name="audit_of_actor"),
            models.Index(fields=["verb", "at"], name="audit_of_verb"),
            models.Index(fields=["request_id"], name="audit_of_request"),
            models.Index(fields=["at"], name="audit_by_time"),
            models.Index(fields=["actor_email"], name="audit_of_email"),
            models.Index(fields=["label"], name="audit_of_label"),
            models.Index(fields=["object_id"], name="audit_of_object"),
            models.Index(fields=["address"], name="audit_of_address"),
        ]

    def __str__(self) -> str:
        return f"{self.verb} {self.label}".strip()
