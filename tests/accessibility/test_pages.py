"""axe-core finds nothing wrong with any page of the product: signed out, as owner, as operator.

Pages of customers stand in the tables below; those of operators come from the admin's own
addresses. An address that is in neither and is a page fails a test here until somebody adds it.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib import admin
from django.template.loader import render_to_string
from django.test import Client
from django.urls import Resolver404, URLResolver, get_resolver, resolve, reverse
from playwright.sync_api import Page, Route

from deploy.states import Status
from tests.accessibility.axe import Findings
from tests.accessibility.conftest import Visit
from tests.accessibility.world import PASSWORD, World
from workspaces import gateway_pages, queues
from workspaces.attention_codes import CODES
from workspaces.models import Plugin, Workspace


def name_of(address: str) -> str:
    """Return what the URLs call an address, empty when they do not know it."""
    try:
        return resolve(urlsplit(address).path).view_name
    except Resolver404:
        return ""


@dataclass(frozen=True)
class Address:
    """One page. What is in {braces} are parts of the world. With `press`, a form is sent first."""

    path: str
    status: int = 200
    fill: dict[str, str] = field(default_factory=dict)
    press: str = ""
    leads_to: str = ""

    def __str__(self) -> str:
        return f"{self.path} {self.press}".strip()

    @property
    def name(self) -> str:
        """What the URLs call the page."""
        return self.leads_to or name_of(
            re.sub(r"{(\w+)}", lambda found: "1-1" if found[1] == "reset" else "1", self.path)
        )

    def open(self, page: Page, world: World) -> None:
        """Go there."""
        answer = page.goto(self.path.format_map(world.parts))
        for label, text in self.fill.items():
            page.get_by_label(label, exact=True).fill(text)
        if self.press:
            with page.expect_navigation() as navigation:
                page.get_by_role("button", name=self.press, exact=True).last.click()
            answer = navigation.value
        assert answer
        assert (answer.status, name_of(page.url)) == (self.status, self.name), (str(self), page.url)


# For the parts of a path, so that its name is known without a world.
STAND_INS = {"invitation": "a", "confirm": "a", "reset": "1-a", "webhook": 1, "key": 1}


def addresses(*paths: str, below: str = "") -> list[Address]:
    return [Address(below + path) for path in paths]


PASSWORDS = {"Email": "grace@example.org", "Password": PASSWORD}
SIGNED_OUT = [
    *addresses("/", "/api/v1/docs", "/invitations/{invitation}/"),
    Address("/invitations/nothing/", 404),
    Address("/nowhere/", 404),
    *addresses(
        *("login/", "signup/", "inactive/", "confirm-email/", "confirm-email/{confirm}/"),
        *("confirm-email/nothing/", "password/reset/", "password/reset/done/"),
        *("password/reset/key/{reset}/", "password/reset/key/1-nothing/"),
        *("password/reset/key/done/", "google/login/", "3rdparty/login/cancelled/"),
        below="/account/",
    ),
    Address("/account/3rdparty/login/error/", 401),
    Address("/account/signup/", fill={"Email": "a@b.org", "Password": "1"}, press="Sign up"),
    Address("/account/login/", fill={"Email": "a@b.org", "Password": "no"}, press="Sign in"),
    Address("/account/login/", fill=PASSWORDS, press="Sign in", leads_to="mfa_authenticate"),
]
CHANGE = "/workspaces/change-"
OF_TREES = [
    *("", "plugins/", "members/", "visibility/", "usage/", "usage/?span=month", "activity/"),
    *("audit/", "logs/", "webhooks/", "webhooks/{webhook}/"),
]
OWNER = [
    *addresses("/workspaces/", "/workspaces/new/"),
    Address("/workspaces/new/", 422, press="Create workspace"),
    *addresses(*OF_TREES, below="/workspaces/trees/"),
    Address("/workspaces/trees/", 422, {"Name": ""}, "Rename", "workspace_rename"),
    Address("/workspaces/trees/webhooks/", 422, press="Add webhook", leads_to="webhook_add"),
    *addresses(*[f"/workspaces/is-{status}/" for status in Status if status != Status.DELETED]),
    *addresses("usage/", "activity/", "webhooks/", below="/workspaces/is-provisioning/"),
    *addresses("", "visibility/", "members/", "usage/", below="/workspaces/public/"),
    *[
        Address(f"/workspaces/change-{state}/plugins/")
        for state in ("open", "failed", "rolled-back")
    ],
    Address("/workspaces/nowhere/", 404),
    *addresses(
        *("", "profile/", "email/", "password/change/", "reauthenticate/", "sessions/", "2fa/"),
        *("2fa/totp/activate/", "2fa/webauthn/", "2fa/webauthn/add/", "3rdparty/", "tokens/"),
        "logout/",
        below="/account/",
    ),
    Address("/account/tokens/", 422, press="Make token"),
    Address("/invitations/{invitation}/"),
]
VIEWER = [
    *addresses("", "members/", "plugins/", below="/workspaces/trees/"),
    Address("/workspaces/trees/webhooks/", 403),
    *addresses("", "totp/deactivate/", "recovery-codes/", "recovery-codes/generate/",
               below="/account/2fa/"),
]  # fmt: skip
GOOGLE_ONLY = addresses(
    *("", "password/set/", "3rdparty/", "2fa/webauthn/", "2fa/webauthn/keys/{key}/edit/"),
    "2fa/webauthn/keys/{key}/remove/",
    below="/account/",
)
# As an operator; the admin's own addresses come to these.
OPERATOR = addresses("/workspaces/", "/account/tokens/")
TABLES = {
    "signed out": (None, SIGNED_OUT),
    "owner": ("ada", OWNER),
    "viewer": ("grace", VIEWER),
    "by Google": ("tim", GOOGLE_ONLY),
    "operator": ("olga", OPERATOR),
}
# Addresses with a name that are not looked at, and why.
ONLY_POSTED = (
    "workspace_start",
    "workspace_stop",
    "workspace_restart",
    "workspace_support",
    "workspace_delete",
    "workspace_undelete",
    "workspace_apply",
    "workspace_plugins_back",
    "workspace_remove_secret",
    "webhook_change",
    "webhook_switch",
    "webhook_test",
    "webhook_rotate",
    "webhook_redeliver",
    "webhook_remove",
    "workspace_leave",
    "workspace_hand",
    "member_role",
    "member_remove",
    "workspace_invite",
    "invitation_resend",
    "invitation_withdraw",
    "workspace_set_visibility",
    "invitation_accept",
    "account_token_revoke",
    "admin:logout",
)
NO_PAGES = {
    **dict.fromkeys(ONLY_POSTED, "only posted to; what refuses a form is a page above"),
    "workspace_slug": "part of a page, for htmx",
    "workspace_live": "part of a page, for htmx",
    "workspace_plugins_live": "part of a page, for htmx",
    "workspace_audit_export": "a file",
    "mfa_download_recovery_codes": "a file",
    "workspace_enter": "leads to the workspace's own host",
    "mfa_login_webauthn": "answers a script in JSON",
    "google_callback": "Google leads there, and it leads on",
    "account_confirm_login_code": "switched off: leads to signing in",
    "mfa_reauthenticate": "the same page as mfa_authenticate",
    "socialaccount_signup": "needs Google: tests/accounts/test_google.py looks at it",
    "mfa_reauthenticate_webauthn": "needs a key: tests/accounts/test_second_factor.py does",
}
NO_PAGES_OF_ADMIN = {
    "autocomplete": "answers a script in JSON",
    "jsi18n": "a script",
    "login": "leads to our own page for signing in",
    "view_on_site": "leads to the thing itself",
    "accounts_auditentry_export": "a file",
}


# --- the test ------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_pages_in_the_tables(table: str, world: World, visit: Visit) -> None:
    who, pages = TABLES[table]
    page = visit(getattr(world, who) if who else None)
    findings = Findings()
    for address in pages:
        address.open(page, world)
        findings.look_at(page, f"{address} ({table})")
    assert not findings.found, f"\n{findings}"


def test_pages_of_operators(world: World, visit: Visit) -> None:
    """Every address of the admin, with a row of each kind."""
    page, findings, client = visit(world.olga), Findings(), Client()
    client.force_login(world.olga)
    for path in [*addresses_of_admin(), *more_rows()]:
        # Nobody adds, changes or removes what is a record; and some addresses are only posted to.
        if client.get(path).status_code not in (403, 405):
            answer = page.goto(path)
            assert answer
            assert answer.status == 200, path
            findings.look_at(page, path)
    for path, action in SELECTIONS:
        page.goto(path)
        page.locator("#action-toggle").check()
        page.locator("select[name=action]").select_option(action)
        page.locator("button[name=index]").click()
        page.wait_for_load_state()
        findings.look_at(page, f"{path} {action}")
    assert not findings.found, f"\n{findings}"


def test_pages_that_are_files(world: World, visit: Visit) -> None:
    """Those of the gateway, which the router shows, and those for errors."""
    texts = dict(rendered())
    # They have no scripts, and are there only until something else is: nothing on them is lost.
    page, findings = visit(), Findings("meta-refresh")

    def answer(route: Route) -> None:
        route.fulfill(body=texts[route.request.url.rpartition("/")[2]], content_type="text/html")

    page.route("**/rendered/*", answer)
    for name in texts:
        page.goto(f"/rendered/{name}")
        findings.look_at(page, name)
    assert not findings.found, f"\n{findings}"


def rendered() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each page that no address leads to."""
    for name in ("400", "403", "403_csrf", "404", "500"):
        yield name, render_to_string(f"{name}.html", {"request_id": "a-request"})
    yield from (
        (name, text) for name, text in gateway_pages.files().items() if name.endswith(".html")
    )
    for name in ("sign-in-failed", "sign-out", "signed-out"):
        yield f"gateway-{name}", render_to_string(f"gateway/{name}.html", {"start": "/"})
    for name in ("account/signup_closed", "account/verified_email_required"):
        yield name.partition("/")[2], render_to_string(f"{name}.html")


# --- every address -------------------------------------------------------------------------------


def named(patterns: Iterable[Any], before: str = "", space: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name and the route of every address that has a name, but those of the API."""
    for entry in patterns:
        route = before + str(entry.pattern)
        if isinstance(entry, URLResolver):
            inner = f"{space}{entry.namespace}:" if entry.namespace else space
            yield from named(entry.url_patterns, route, inner)
        elif entry.name and (not route.startswith("api/v1/") or entry.name == "api_docs"):
            yield space + entry.name, route


def test_every_page_is_looked_at() -> None:
    looked_at = {address.name for _, table in TABLES.values() for address in table}
    names = {name for name, _ in named(get_resolver().url_patterns)}
    ours = {name for name in names if not name.startswith("admin:") or name in NO_PAGES}
    assert ours - looked_at == set(NO_PAGES), "look at it, or say why not"


def addresses_of_admin() -> Iterator[str]:
    """Yield each address of the admin, made with a row of its kind."""
    for name, route in named(get_resolver().url_patterns):
        space, _, bare = name.partition(":")
        if space != "admin" or bare in NO_PAGES_OF_ADMIN or name in NO_PAGES:
            continue
        if "<slug:code>" in route:
            yield from (reverse(name, args=[code]) for code in CODES)
        elif bare == "queue":
            yield from (reverse(name, args=[queue]) for queue in queues.MINUTES)
        elif "app_label" in route:
            yield from (reverse(name, args=[app]) for app in ("accounts", "deploy", "workspaces"))
        elif "<" in route:
            yield reverse(name, args=[row_for(bare)])
        else:
            yield reverse(name)


def row_for(name: str) -> Any:
    """Return the key of the first row of what an address of the admin is about."""
    for model in admin.site._registry:
        if name.startswith(f"{model._meta.app_label}_{model._meta.model_name}_"):
            row = model._default_manager.order_by("pk").first()
            assert row, f"the world has no {model._meta.verbose_name}"
            return row.pk
    return 1  # of no model that is there: auth.User


def more_rows() -> Iterator[str]:
    """Yield pages of rows in other states than the first one of their kind."""
    for workspace in Workspace.objects.filter(slug__in=("trees", "is-failed", "is-deleting")):
        yield reverse("admin:workspaces_workspace_change", args=[workspace.pk])
    for plugin in Plugin.objects.exclude(state=Plugin.State.KNOWN):
        yield reverse("admin:workspaces_plugin_change", args=[plugin.pk])
    yield "/admin/workspaces/workspace/?q=nothing-has-this-name"


SELECTIONS = [
    ("/admin/workspaces/workspace/", "suspend"),
    ("/admin/workspaces/workspace/", "forget"),
    ("/admin/accounts/user/", "delete_selected"),
]
