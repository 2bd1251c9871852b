"""axe-core finds nothing wrong with any page of operators: every address of the admin.

They come from the admin's own addresses, each with a row of its kind, so there is no table.
"""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.test import Client
from django.urls import get_resolver, reverse
from playwright.sync_api import expect

from tests.accessibility.addresses import named
from tests.accessibility.axe import Findings
from tests.accessibility.conftest import Visit
from tests.accessibility.world import World
from workspaces import queues
from workspaces.attention_codes import CODES
from workspaces.models import Plugin, Workspace

NO_PAGES = {
    "autocomplete": "answers a script in JSON",
    "jsi18n": "a script",
    "login": "leads to our own page for signing in",
    "logout": "only posted to",
    "view_on_site": "leads to the thing itself",
    "accounts_auditentry_export": "a file",
}


# Nobody adds, changes or removes what is a record; and some addresses are only posted to.
REFUSED = (403, 405)
# The admin's list of everything is the same beside each page, but for what is marked in it as the
# place where one is. So it is looked at beside these, and closed beside others: half the work.
WITH_LIST = ("/admin/workspaces/workspace/", "/admin/accounts/user/add/")
CLOSED = "localStorage.setItem('django.admin.navSidebarIsOpen', 'false')"


def test_pages_of_operators(world: World, visit: Visit) -> None:
    """Every address of the admin, with a row of each kind."""
    page, findings, client = visit(world.olga), Findings(), Client()
    client.force_login(world.olga)
    for path in WITH_LIST:
        page.goto(path)
        expect(page.locator("#nav-sidebar")).to_be_visible()
        findings.look_at(page, path)
    page.evaluate(CLOSED)
    for path in [*addresses_of_admin(), *more_rows()]:
        if client.get(path).status_code not in REFUSED:
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


def addresses_of_admin() -> Iterator[str]:
    """Yield each address of the admin, made with a row of its kind."""
    for name, route in named(get_resolver().url_patterns):
        space, _, bare = name.partition(":")
        if space != "admin" or bare in NO_PAGES:
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
