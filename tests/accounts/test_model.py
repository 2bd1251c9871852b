"""The user is a key, and nothing else."""

import pytest
from allauth.account.models import EmailAddress
from pytest_django import DjangoAssertNumQueries

from accounts.models import Profile, User
from tests.accounts.conftest import MakeUser

pytestmark = pytest.mark.django_db


def test_a_user_has_no_name_and_no_address() -> None:
    columns = {field.column for field in User._meta.fields}
    assert columns == {
        "id",
        "password",
        "is_active",
        "is_staff",
        "is_superuser",
        "last_login",
        "created",
    }


def test_email_is_the_primary_one(make_user: MakeUser) -> None:
    user = make_user("second@example.com")
    EmailAddress.objects.filter(user=user).update(primary=False)
    EmailAddress.objects.create(user=user, email="first@example.com", primary=True)
    assert user.email == "first@example.com"


def test_names(make_user: MakeUser) -> None:
    user = make_user()
    assert user.display_name == str(user) == "ada@example.com"
    Profile.objects.create(user=user, display_name="Ada")
    assert user.display_name == user.get_short_name() == "Ada"
    nobody = User.objects.create_user()
    assert nobody.email == ""
    assert nobody.display_name == f"user {nobody.pk}"
    assert not nobody.has_usable_password()


def test_a_list_with_names_is_one_query(
    make_user: MakeUser, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(3):
        make_user(f"{number}@example.com")
    Profile.objects.create(user=User.objects.all()[0], display_name="Ada")
    User.objects.create_user()
    with django_assert_num_queries(1):
        found = [(user.display_name, user.email) for user in User.objects.with_names()]
    assert sorted(found) == sorted((user.display_name, user.email) for user in User.objects.all())
