"""The audit log: what is in it, and that nobody changes it."""

from collections.abc import Callable

import pytest
from allauth.account.models import EmailAddress
from allauth.account.signals import email_changed, email_confirmed, email_removed
from allauth.mfa.models import Authenticator
from allauth.mfa.signals import authenticator_removed
from allauth.socialaccount.models import SocialAccount
from allauth.socialaccount.signals import social_account_removed
from django.contrib.auth.models import AnonymousUser, Group, Permission
from django.core.management import CommandError, call_command
from django.db import ProgrammingError, connection, transaction
from django.test import Client, RequestFactory

from accounts import api_tokens, audit, origin
from accounts.models import AuditEntry, User
from accounts.origin import Origin, Via
from cloudapp.checks import audit_log_is_safe
from cloudapp.postgres import roles
from tests.accounts.conftest import PASSWORD, MakeUser

pytestmark = pytest.mark.django_db

RUNTIME = "audit_test_runtime"
REFUSED = {
    "update": "UPDATE accounts_auditentry SET verb = 'nothing'",
    "update of no row": "UPDATE accounts_auditentry SET verb = 'nothing' WHERE false",
    "delete": "DELETE FROM accounts_auditentry",
    "truncate": "TRUNCATE accounts_auditentry",
    "upsert": "INSERT INTO accounts_auditentry SELECT * FROM accounts_auditentry "
    "ON CONFLICT (id) DO UPDATE SET verb = 'nothing'",
}
FOR_THE_OWNER = {
    "disable the trigger": "ALTER TABLE accounts_auditentry DISABLE TRIGGER append_only",
    "drop the trigger": "DROP TRIGGER append_only ON accounts_auditentry",
    "another trigger": "CREATE TRIGGER mine BEFORE INSERT ON accounts_auditentry "
    "FOR EACH STATEMENT EXECUTE FUNCTION accounts_audit_is_append_only()",
    "another function": "CREATE OR REPLACE FUNCTION accounts_audit_is_append_only() "
    "RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
    "drop the table": "DROP TABLE accounts_auditentry",
    "rename the table": "ALTER TABLE accounts_auditentry RENAME TO other",
    "replication role": "SET session_replication_role = replica",
    "become the owner": "ALTER TABLE accounts_auditentry OWNER TO " + RUNTIME,
}


def refused(statement: str) -> str:
    """Try a statement; return why it was refused."""
    with (
        pytest.raises(ProgrammingError) as told,
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
    return str(told.value)


def last() -> AuditEntry:
    return AuditEntry.objects.latest("id")


def verbs_since(mark: int) -> list[str]:
    found = AuditEntry.objects.filter(id__gt=mark).order_by("id")
    return list(found.values_list("verb", flat=True))


@pytest.fixture
def mark() -> int:
    """The last entry before the test."""
    newest = AuditEntry.objects.order_by("-id").first()
    return newest.pk if newest else 0


# --- append only ---------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", REFUSED.values(), ids=REFUSED)
def test_not_even_the_owner_changes_a_row(statement: str) -> None:
    audit.note(None, "tested")
    with connection.cursor() as cursor:
        # As it is everywhere but in the tests' own database.
        cursor.execute("ALTER TABLE accounts_auditentry ENABLE ALWAYS TRIGGER append_only_truncate")
    assert "append only" in refused(statement)
    assert last().verb == "tested"


def test_the_triggers_fire_whatever_the_replication_role_is() -> None:
    audit.note(None, "tested")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
    assert "append only" in refused(REFUSED["delete"])


@pytest.fixture
def as_runtime(db: None) -> Callable[[], None]:
    """Go on as the role of the processes, until the test ends."""
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {RUNTIME} LOGIN")
    call_command("grant_runtime", RUNTIME)

    def go_on() -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL ROLE {RUNTIME}")

    return go_on


@pytest.mark.parametrize(
    "statement", [*REFUSED.values(), *FOR_THE_OWNER.values()], ids=[*REFUSED, *FOR_THE_OWNER]
)
def test_the_runtime_role_adds_rows_and_changes_none(
    statement: str, as_runtime: Callable[[], None]
) -> None:
    as_runtime()
    audit.note(None, "tested")
    words = refused(statement)
    assert "permission denied" in words or "must be owner" in words
    assert last().verb == "tested"
    assert not roles.owns_the_audit_log()


def test_the_runtime_role_does_the_daily_work(as_runtime: Callable[[], None]) -> None:
    as_runtime()
    user = User.objects.create_user(PASSWORD)
    token, _ = api_tokens.create(user, "ci", ["read"])
    api_tokens.revoke(token, by=user)
    user.delete()
    assert last().verb == "revoked_token"


def test_who_could_switch_it_off_is_warned_of(as_runtime: Callable[[], None]) -> None:
    assert [found.id for found in audit_log_is_safe(["default"])] == ["cloudapp.W001"]
    as_runtime()
    assert audit_log_is_safe(["default"]) == []


def test_before_the_first_migration_there_is_nothing_to_warn_of() -> None:
    run("ALTER TABLE accounts_auditentry RENAME TO not_made_yet")
    assert audit_log_is_safe(["default"]) == []


def test_who_could_not_ask_does_not_say_that_all_is_well() -> None:
    with transaction.atomic():
        with pytest.raises(ProgrammingError):
            run("SELECT no_such_thing")
        # Until the end of the transaction Postgres answers nothing.
        [found] = audit_log_is_safe(["default"])
        transaction.set_rollback(True)
    assert found.id == "cloudapp.W002"
    assert "current transaction is aborted" in found.msg


def run(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def answer(query: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(query)
        (found,) = cursor.fetchone() or (None,)
    return found


def test_grant_runtime_refuses_who_could_do_more() -> None:
    with pytest.raises(CommandError, match="is a superuser, or makes roles"):
        call_command("grant_runtime", answer("SELECT current_user"))
    with pytest.raises(CommandError, match="no role"):
        call_command("grant_runtime", "nobody_of_this_name")
    assert roles.owns_the_audit_log()


MORE = {
    "runs programs": (f"GRANT pg_execute_server_program TO {RUNTIME}", "run programs"),
    "writes files": (f"GRANT pg_write_server_files TO {RUNTIME}", "write files"),
    "makes roles": (f"ALTER ROLE {RUNTIME} CREATEROLE", "makes roles"),
    "may become a superuser": (
        "DO $$ BEGIN EXECUTE format('GRANT %I TO " + RUNTIME + "', current_user); END $$",
        "may act as one",
    ),
    # Whoever runs the command is the administrator here, and not the owner.
    "may become the owner": (
        "CREATE ROLE audit_test_owner; ALTER TABLE accounts_auditentry OWNER TO audit_test_owner; "
        f"GRANT audit_test_owner TO {RUNTIME}",
        "owns the tables",
    ),
    "makes schemas": (
        "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO "
        + RUNTIME
        + "', current_database()); END $$",
        "schemas",
    ),
    "may create by way of another role": (
        "CREATE ROLE audit_test_group; GRANT CREATE ON SCHEMA public TO audit_test_group; "
        f"GRANT audit_test_group TO {RUNTIME}",
        "may create things in the schema public",
    ),
    "changes one column by way of everybody": (
        "GRANT UPDATE (verb) ON accounts_auditentry TO PUBLIC",
        "by way of another role",
    ),
}


@pytest.mark.parametrize(("statement", "words"), MORE.values(), ids=MORE)
def test_grant_runtime_refuses_a_role_that(statement: str, words: str) -> None:
    run(f"CREATE ROLE {RUNTIME} LOGIN", statement)
    with pytest.raises(CommandError, match=words):
        call_command("grant_runtime", RUNTIME)


def test_nobody_creates_things_beside_the_tables() -> None:
    """As in databases that Postgres 14 made."""
    run(
        f"CREATE ROLE {RUNTIME} LOGIN",
        f"GRANT CREATE ON SCHEMA public TO PUBLIC, {RUNTIME}",
    )
    call_command("grant_runtime", RUNTIME)
    assert answer(f"SELECT has_schema_privilege('{RUNTIME}', 'public', 'CREATE')") is False
    assert answer("SHOW search_path") == '"$user", public', "as it was"


# What an owner by migration has: tables, and sequences that are no column's own.
EVERYTHING_TO = """
    DO $$ DECLARE change text; BEGIN FOR change IN
    SELECT format(
        'ALTER %s public.%I OWNER TO {owner}',
        CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
        relname
    )
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')
    AND NOT EXISTS (
        SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype IN ('a', 'i')
    )
    LOOP EXECUTE change; END LOOP; END $$
"""


def test_a_schema_that_belongs_to_another_is_named() -> None:
    """As in databases that Postgres 14 made, for whoever owns the tables only."""
    owner = "audit_test_owner"
    run(
        f"CREATE ROLE {RUNTIME} LOGIN",
        f"CREATE ROLE {owner} LOGIN",
        "DO $$ BEGIN EXECUTE format('ALTER SCHEMA public OWNER TO %I', current_user); END $$",
        "GRANT ALL ON SCHEMA public TO PUBLIC",
        EVERYTHING_TO.format(owner=owner),
        f"SET LOCAL ROLE {owner}",
    )
    change = f"ALTER SCHEMA public OWNER TO {owner}"
    with pytest.raises(CommandError, match=f"the schema public belongs to .*{change}$"):
        call_command("grant_runtime", RUNTIME)
    run("RESET ROLE", change, f"SET LOCAL ROLE {owner}")
    call_command("grant_runtime", RUNTIME)
    assert answer(f"SELECT has_schema_privilege('{RUNTIME}', 'public', 'CREATE')") is False
    assert answer(f"SELECT has_schema_privilege('{RUNTIME}', 'public', 'USAGE')") is True


def test_what_the_role_left_beside_the_tables_is_not_run_as_the_owner() -> None:
    """Postgres prefers a function that fits better, wherever it finds one."""
    run(
        f"CREATE ROLE {RUNTIME} LOGIN",
        f"GRANT CREATE, USAGE ON SCHEMA public TO {RUNTIME}",
        f"SET LOCAL ROLE {RUNTIME}",
        *(
            f"CREATE FUNCTION public.{name} RETURNS boolean LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'it ran'; END $$"
            for name in (
                "has_table_privilege(text, text, text)",
                "pg_has_role(name, name, text)",
                "has_schema_privilege(oid, text, text)",
            )
        ),
        "RESET ROLE",
    )
    with pytest.raises(CommandError, match="owns things in this database"):
        call_command("grant_runtime", RUNTIME)
    run(f"DROP OWNED BY {RUNTIME}")
    call_command("grant_runtime", RUNTIME)


# --- what is in it -------------------------------------------------------------------------------


def test_an_entry_outlives_whom_it_tells_of(make_user: MakeUser) -> None:
    user = make_user("ada@example.com")
    audit.note(user, "tested", user, detail={"a": 1})
    pk = user.pk
    user.delete()
    entry = last()
    assert (entry.actor, entry.actor_email, entry.object_id) == (pk, "ada@example.com", str(pk))
    assert entry.detail == {"a": 1}


def test_it_is_part_of_the_deed(make_user: MakeUser, mark: int) -> None:
    user = make_user()
    with transaction.atomic():
        api_tokens.create(user, "ci", ["read"])
        transaction.set_rollback(True)
    assert verbs_since(mark) == []


def test_where_it_comes_from() -> None:
    here = Origin(Via.TOKEN, "ci (cloudapp_abcdef…)", "192.0.2.7", "f" * 32)
    with origin.of(here):
        entry = audit.note(None, "tested")
    assert (entry.via, entry.via_name) == ("token", "ci (cloudapp_abcdef…)")
    assert (entry.address, entry.request_id) == ("192.0.2.7", "f" * 32)
    assert audit.note(None, "tested").via == "machinery"


def test_signing_in_and_out(make_user: MakeUser, client: Client, mark: int) -> None:
    user = make_user("ada@example.com")
    wrong = {"login": "ada@example.com", "password": "something else"}
    client.post("/account/login/", wrong, headers={"X-Real-IP": "192.0.2.9"})
    entry = last()
    assert (entry.verb, entry.label, entry.actor) == ("sign_in_failed", "ada@example.com", None)
    assert entry.address == "192.0.2.9"
    right = {**wrong, "password": PASSWORD}
    headers = {"X-Real-IP": "192.0.2.9", "X-Request-ID": "0123456789abcdef"}
    response = client.post("/account/login/", right, headers=headers)
    assert response["X-Request-ID"] == "0123456789abcdef"
    entry = last()
    assert (entry.verb, entry.actor, entry.via) == ("signed_in", user.pk, "session")
    assert (entry.address, entry.request_id) == ("192.0.2.9", "0123456789abcdef")
    assert entry.detail == {"methods": ["password"]}
    client.post("/account/logout/")
    assert verbs_since(mark) == ["sign_in_failed", "signed_in", "signed_out"]
    written = [str(vars(entry)) for entry in AuditEntry.objects.filter(id__gt=mark)]
    assert not any(PASSWORD in text or "something else" in text for text in written)


def test_strangers_cannot_fill_it(monkeypatch: pytest.MonkeyPatch, mark: int) -> None:
    monkeypatch.setattr(audit, "MAX_FAILED", 3)
    for number in range(6):
        audit.note_failed_sign_in(f"person{number}@example.com")
    verbs = verbs_since(mark)
    assert 1 <= verbs.count("sign_in_failed") <= 3
    assert verbs.count("sign_in_failures_left_out") == 1


def test_nobody_hides_behind_many_failures_of_their_own(mark: int) -> None:
    """Neither by trying from one place, nor by trying one person's."""

    def fail(address: str, email: str) -> None:
        with origin.of(Origin(Via.SESSION, address=address)):
            audit.note_failed_sign_in(email)

    for number in range(audit.MAX_FAILED_OF_ONE + 5):
        fail("192.0.2.7", f"person{number}@example.com")
        fail(f"198.51.100.{number}", "ada@example.com")
    fail("203.0.113.9", "grace@example.com")
    found = AuditEntry.objects.filter(id__gt=mark)
    failed = found.filter(verb="sign_in_failed")
    assert failed.filter(address="192.0.2.7").count() == audit.MAX_FAILED_OF_ONE
    assert failed.filter(label="ada@example.com").count() == audit.MAX_FAILED_OF_ONE
    assert failed.filter(label="grace@example.com").count() == 1
    assert found.filter(verb="sign_in_failures_left_out").count() == 1


def test_changes_of_an_account(make_user: MakeUser, client: Client, mark: int) -> None:
    user = make_user("ada@example.com")
    client.post("/account/login/", {"login": "ada@example.com", "password": PASSWORD})
    client.post("/account/reauthenticate/", {"password": PASSWORD})
    EmailAddress.objects.create(user=user, email="ada@example.org", verified=True)
    client.post("/account/email/", {"action_primary": "1", "email": "ada@example.org"})
    client.post("/account/email/", {"action_remove": "1", "email": "ada@example.com"})
    assert last().label == "ada@example.com"
    client.post(
        "/account/password/change/",
        {"oldpassword": PASSWORD, "password1": "another staple 1", "password2": "another staple 1"},
    )
    deeds = ["signed_in", "changed_primary_email", "removed_email", "changed_password"]
    assert verbs_since(mark) == deeds


def test_the_name_that_others_see(make_user: MakeUser, client: Client, mark: int) -> None:
    client.force_login(make_user("ada@example.com"))
    for name in ("Ada", "Ada", "Ada L."):  # the second time nothing changes
        client.post("/account/profile/", {"display_name": name})
    assert verbs_since(mark)[-2:] == ["changed_name"] * 2
    assert last().detail == {"words": "from “Ada” to “Ada L.”"}


@pytest.mark.parametrize("whose", ["another's", "one's own", "nobody's"])
def test_who_did_it_is_who_is_signed_in(
    make_user: MakeUser, rf: RequestFactory, mark: int, whose: str
) -> None:
    """A deed to somebody's account in another one's browser is not theirs."""
    user, other = make_user("ada@example.com"), make_user("op@example.com")
    request = rf.post("/")
    request.user = {"another's": other, "one's own": user}.get(whose, AnonymousUser())
    address = user.emailaddress_set.get()
    google = SocialAccount.objects.create(user=user, provider="google", uid="42")
    about = {"sender": None, "request": request, "user": user}
    email_confirmed.send(email_address=address, **about)
    email_removed.send(email_address=address, **about)
    email_changed.send(from_email_address=address, to_email_address=address, **about)
    social_account_removed.send(sender=None, request=request, socialaccount=google)
    authenticator_removed.send(authenticator=Authenticator(user=user, type="totp"), **about)
    entries = AuditEntry.objects.filter(id__gt=mark)
    assert entries.count() == 5
    actor = other if whose == "another's" else user
    assert {entry.actor for entry in entries} == {actor.pk}


def test_tokens(make_user: MakeUser, mark: int) -> None:
    user = make_user()
    token, text = api_tokens.create(user, "ci", ["read"])
    api_tokens.revoke(token, by=user)
    api_tokens.revoke(token, by=user)
    made, revoked = AuditEntry.objects.filter(id__gt=mark).order_by("id")
    assert (made.verb, made.actor, made.label) == ("made_token", user.pk, str(token))
    assert (revoked.verb, revoked.detail["ended"]) == ("revoked_token", 1)
    assert text not in str(vars(made))
    assert token.digest not in str(vars(made))


# --- operators -----------------------------------------------------------------------------------


@pytest.fixture
def operator(make_user: MakeUser, client: Client) -> User:
    user = make_user("op@example.com")
    user.is_staff = user.is_superuser = True
    user.save()
    client.force_login(user)
    return user


def test_who_is_made_operator(
    operator: User, make_user: MakeUser, client: Client, mark: int
) -> None:
    user = make_user("ada@example.com")
    group = Group.objects.create(name="Support")
    page = f"/admin/accounts/user/{user.pk}/change/"
    form = _form_of(user) | {"is_staff": "on", "groups": [str(group.pk)]}
    assert client.post(page, form).status_code == 302
    found = {entry.verb: entry for entry in AuditEntry.objects.filter(id__gt=mark)}
    assert {"made_operator", "changed_permissions", "admin_changed"} <= set(found)
    assert found["made_operator"].object_id == str(user.pk)
    assert found["made_operator"].actor == operator.pk
    assert found["made_operator"].by_operator
    assert found["changed_permissions"].detail["groups"] == ["Support"]


def _form_of(user: User) -> dict[str, object]:
    """Return what the page of a user would send as it is."""
    address = EmailAddress.objects.get(user=user)
    fields: dict[str, object] = {
        "is_active": "on",
        "profile-TOTAL_FORMS": 0,
        "profile-INITIAL_FORMS": 0,
        "emailaddress_set-TOTAL_FORMS": 1,
        "emailaddress_set-INITIAL_FORMS": 1,
        "emailaddress_set-0-id": address.pk,
        "emailaddress_set-0-user": user.pk,
        "emailaddress_set-0-email": address.email,
        "emailaddress_set-0-verified": "on",
        "emailaddress_set-0-primary": "on",
    }
    for inline in ("socialaccount_set", "authenticator_set", "usersession_set", "api_tokens"):
        fields |= {f"{inline}-TOTAL_FORMS": 0, f"{inline}-INITIAL_FORMS": 0}
    return fields


def test_pages_of_the_admin_that_are_not_ours(operator: User, client: Client, mark: int) -> None:
    permission = Permission.objects.get(codename="view_user")
    client.post("/admin/auth/group/add/", {"name": "Support", "permissions": [permission.pk]})
    one = Group.objects.get(name="Support")
    other = Group.objects.create(name="Other")
    chosen = {"action": "delete_selected", "_selected_action": [one.pk, other.pk], "post": "yes"}
    client.post("/admin/auth/group/", chosen)
    found = AuditEntry.objects.filter(id__gt=mark, kind="group").order_by("id")
    assert sorted(found.values_list("verb", "label")) == [
        ("admin_added", "Support"),
        ("admin_removed", "Other"),
        ("admin_removed", "Support"),
    ]


def test_what_operators_do_with_people(
    operator: User, make_user: MakeUser, client: Client, mark: int
) -> None:
    user = make_user("ada@example.com")
    api_tokens.create(user, "ci", ["read"])
    for action in ("deactivate", "activate", "sign_out", "revoke_tokens", "send_reset_link"):
        chosen = {"action": action, "_selected_action": [user.pk]}
        client.post("/admin/accounts/user/", chosen)
    told = set(verbs_since(mark))
    wanted = {"deactivated_user", "activated_user", "ended_sessions", "revoked_token"}
    assert wanted | {"mailed_reset_link"} <= told


def test_an_operator_made_by_command(mark: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDAPP_OPERATOR_PASSWORD", PASSWORD)
    with origin.of(Origin(Via.COMMAND, "create_operator")):
        call_command("create_operator", email="op@example.com")
    entry = AuditEntry.objects.get(id__gt=mark, verb="made_operator")
    assert (entry.actor, entry.via, entry.via_name) == (None, "command", "create_operator")
    assert entry.label == "op@example.com"
