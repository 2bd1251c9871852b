"""The catalogue's services: add, approve, withdraw, grant; and releases that are rolled out.

The index is a directory of small wheels. What a worker does is called here, without a broker.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from deploy import locks
from deploy.engines import get_builder
from deploy.models import Image, Instance
from deploy.states import Status
from tests import factories
from tests.shelf import TARGET, Shelf
from workspaces import attention, catalogue, change_runs, changes, releases, rollouts, sets, starter
from workspaces.catalogue import Terms
from workspaces.models import Approval, Change, Grant, Plugin, Release, Rollout, Step, Workspace
from workspaces.services import NoImage, Refused, create_workspace

State = Approval.State
EVERYONE = Terms(reach=Approval.Reach.EVERYONE)
pytestmark = pytest.mark.usefixtures("ready")


@pytest.fixture
def operator(db: None) -> User:
    return factories.make_user("op@example.org", name="Olga", is_staff=True, is_superuser=True)


def known(shelf: Shelf, name: str = "datasette-birds", **said: Any) -> Plugin:
    """A plugin that was added and read."""
    shelf.wheel(name, **said)
    plugin = catalogue.add_plugin(name, None)
    catalogue.read_plugin(plugin, TARGET)
    return plugin


def read_before(name: str = "datasette-birds") -> Plugin:
    """A plugin that is known, where the index does not matter."""
    return Plugin.objects.create(name=name, state=Plugin.State.KNOWN, newest="1.0")


def approved(
    plugin: Plugin, version: str = "1.0", terms: Terms = EVERYONE, release: Release | None = None
) -> Approval:
    """An approval that a worker has locked, or failed to lock."""
    release = release or catalogue.default_release()
    approval = catalogue.approve(plugin, release, version, terms, None)
    catalogue.lock_approval(approval, TARGET)
    return Approval.objects.get(pk=approval.pk)


def with_plugins(slug: str, *approvals: Approval, release: Release | None = None) -> Workspace:
    """A running workspace that has these switched on."""
    workspace = factories.make_workspace(factories.make_user(), slug)
    if release:
        Workspace.objects.filter(pk=workspace.pk).update(release=release)
    workspace.plugins.set(approvals)
    return Workspace.objects.select_related("instance", "plan", "release").get(pk=workspace.pk)


def wanted(change: Change) -> dict[str, str]:
    return {a.plugin.name: a.version for a in change.wanted.all()}


# --- adding --------------------------------------------------------------------------------------


def test_adding_reads_what_the_package_says(shelf: Shelf, operator: User) -> None:
    metadata = {"Summary": "Birds", "License": "MIT", "Requires-Python": ">=3.9"}
    shelf.wheel("datasette-birds", "1.2", requires=["datasette>=0.6", "httpx"], metadata=metadata)
    plugin = catalogue.add_plugin(" Datasette_Birds ", operator)
    assert (plugin.name, plugin.state, plugin.added_by) == ("datasette-birds", "reading", operator)
    catalogue.read_plugin(plugin, TARGET)
    plugin.refresh_from_db()
    assert (plugin.state, plugin.newest, plugin.summary) == ("known", "1.2", "Birds")
    assert (plugin.licence, plugin.requires_python) == ("MIT", ">=3.9")
    assert (plugin.requires_datasette, plugin.requires) == (">=0.6", ["datasette>=0.6", "httpx"])
    assert plugin.read_at is not None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("datasette-nobody", "has no datasette-nobody, or has it only as source code"),
        ("datasette-source", "has no datasette-source, or has it only as source code"),
        ("plain", "plain is no Datasette plugin"),
    ],
)
def test_what_is_no_plugin_for_us_is_refused_in_words(shelf: Shelf, name: str, words: str) -> None:
    shelf.sdist("datasette-source")
    shelf.wheel("plain", entry_points="")
    plugin = catalogue.add_plugin(name, None)
    catalogue.read_plugin(plugin, TARGET)
    plugin.refresh_from_db()
    assert plugin.state == Plugin.State.REFUSED
    assert words in plugin.error
    with pytest.raises(Refused, match="cannot be approved"):
        catalogue.approve(plugin, catalogue.default_release(), "1.0", Terms(), None)


def test_a_malformed_name_and_one_that_is_there_are_refused_at_once(shelf: Shelf) -> None:
    with pytest.raises(Refused, match="is no package name") as refusal:
        catalogue.add_plugin("birds; cats", None)
    assert refusal.value.field == "name"
    known(shelf)
    with pytest.raises(Refused, match="datasette-birds is in the catalogue already") as refusal:
        catalogue.add_plugin("Datasette.Birds", None)
    assert refusal.value.field == "name"


def test_what_was_refused_can_be_added_again_once_it_is_there(shelf: Shelf) -> None:
    plugin = catalogue.add_plugin("datasette-birds", None)
    catalogue.read_plugin(plugin, TARGET)
    shelf.wheel("datasette-birds")
    again = catalogue.add_plugin("datasette-birds", None)
    catalogue.read_plugin(again, TARGET)
    assert (again.pk, again.state, again.error) == (plugin.pk, "known", "")


def test_a_known_plugin_stays_known_when_it_cannot_be_read_again(shelf: Shelf) -> None:
    plugin = known(shelf)
    for wheel in shelf.directory.glob("*.whl"):
        wheel.unlink()
    catalogue.refresh_all()
    plugin.refresh_from_db()
    assert plugin.state == Plugin.State.READING
    catalogue.read_plugin(plugin, TARGET)
    assert (plugin.state, plugin.newest) == ("known", "1.0")
    assert "could not be read again" in plugin.error


def test_ours_is_never_asked_of_an_index(shelf: Shelf) -> None:
    shelf.wheel("datasette-ours", "9.0")
    ours = Plugin.objects.create(name="datasette-ours", state="known", newest="0.1", own=True)
    catalogue.refresh(ours)
    catalogue.refresh_all()
    ours.refresh_from_db()
    assert ours.state == Plugin.State.KNOWN
    release = catalogue.default_release()
    pins = locks.parse(f"datasette-ours==0.1 --hash=sha256:{'a' * 64}")
    first = Approval.objects.create(plugin=ours, release=release, version="0.1")
    catalogue.activate(first, pins)
    catalogue.withdraw(first, None)
    with pytest.raises(Refused, match=r"comes with this software.* there is: 0\.1"):
        catalogue.approve(ours, release, "9.0", Terms(), None)
    again = catalogue.approve(ours, release, "0.1", Terms(), None)
    assert (again.state, again.pins) == (State.ACTIVE, pins)


# --- approving -----------------------------------------------------------------------------------


def test_approving_locks_version_and_files_of_the_closure(shelf: Shelf, operator: User) -> None:
    in_release = catalogue.default_release().pins["httpx"]
    shelf.wheel("httpx", in_release.version, entry_points="")
    hashes = {"feathers": shelf.wheel("feathers", "2.5", entry_points="")}
    plugin = known(shelf, requires=["httpx", "feathers>=2"])
    [wheel] = shelf.directory.glob("datasette_birds*.whl")
    terms = Terms(note="Looked at its code.", needs_internet=True, needs=[{"name": "BIRD_KEY"}])
    approval = catalogue.approve(plugin, catalogue.default_release(), "1.0", terms, operator)
    assert approval.state == State.LOCKING
    catalogue.lock_approval(approval, TARGET)
    approval.refresh_from_db()
    assert (approval.state, approval.by, approval.note) == ("active", operator, terms.note)
    assert approval.needs_internet
    assert approval.needs == [{"name": "BIRD_KEY"}]
    assert set(approval.pins) == {"datasette-birds", "feathers"}
    assert approval.pins["feathers"] == locks.Pin("feathers", "2.5", (hashes["feathers"],))
    assert approval.pins["datasette-birds"].hashes == (sha256(wheel.read_bytes()).hexdigest(),)


def test_two_plugins_share_a_dependency_where_they_can(shelf: Shelf) -> None:
    shelf.wheel("feathers", "1.0", entry_points="")
    first = approved(known(shelf, "datasette-birds", requires=["feathers"]))
    shelf.wheel("feathers", "2.0", entry_points="")
    second = approved(known(shelf, "datasette-cats", requires=["feathers"]))
    third = approved(known(shelf, "datasette-dogs", requires=["feathers>=2"]))
    assert [a.pins["feathers"].version for a in (first, second, third)] == ["1.0", "1.0", "2.0"]
    sets.lock_of(first.release, [first, second])
    words = r"datasette-birds needs feathers 1\.0, and datasette-dogs needs feathers 2\.0"
    with pytest.raises(locks.Conflict, match=words):
        sets.lock_of(first.release, [first, third])


def test_what_does_not_fit_the_release_fails_with_both_names(shelf: Shelf) -> None:
    httpx = catalogue.default_release().pins["httpx"].version
    for version in (httpx, "99.0"):
        shelf.wheel("httpx", version, entry_points="")
    approval = approved(known(shelf, requires=["httpx>=99"]))
    assert approval.state == State.FAILED
    assert "datasette-birds 1.0 depends on httpx>=99" in approval.error
    assert f"httpx=={httpx}" in approval.error


def test_a_version_that_is_not_there_fails(shelf: Shelf) -> None:
    approval = approved(known(shelf), "7.0")
    assert (approval.state, approval.lock) == (State.FAILED, "")
    assert "There is no datasette-birds==7.0" in approval.error


@pytest.mark.parametrize("version", ["", "1.0,<2", "*", "1.0 --pre", "1.0; x", "-1"])
def test_a_version_is_one_exact_version(version: str) -> None:
    with pytest.raises(Refused, match="Say which version") as refusal:
        catalogue.approve(read_before(), catalogue.default_release(), version, Terms(), None)
    assert refusal.value.field == "version"
    assert not Approval.objects.exists()


def test_a_newer_version_is_pointed_out_and_not_taken(shelf: Shelf) -> None:
    plugin = known(shelf)
    approval = approved(plugin)
    assert plugin.newer_than(approval.version) == ""
    shelf.wheel("datasette-birds", "1.10")
    catalogue.read_plugin(plugin, TARGET)
    assert plugin.newer_than(approval.version) == "1.10"
    approval.refresh_from_db()
    assert (approval.state, approval.version) == (State.ACTIVE, "1.0")
    assert approval.pins["datasette-birds"].version == "1.0"


@pytest.mark.parametrize(
    ("newest", "version", "newer"),
    [("1.10", "1.9", "1.10"), ("1.0", "1.1a2", ""), ("1.1", "1.1a2", "1.1"), ("", "1.0", ""),
     ("1.0", "", ""), ("what", "1.0", ""), ("1.0", "1.0.0", "")],
)  # fmt: skip
def test_newer_means_what_indexes_mean(newest: str, version: str, newer: str) -> None:
    assert Plugin(newest=newest).newer_than(version) == newer


def test_a_new_approval_takes_the_place_of_the_one_before(shelf: Shelf, operator: User) -> None:
    plugin = known(shelf)
    first = approved(plugin)
    shelf.wheel("datasette-birds", "2.0")
    second = catalogue.approve(plugin, first.release, "2.0", EVERYONE, operator)
    first.refresh_from_db()
    assert first.state == State.ACTIVE  # until the new one is locked
    catalogue.lock_approval(second, TARGET)
    first.refresh_from_db()
    assert (first.state, first.ended_by) == (State.REPLACED, operator)
    workspace = with_plugins("trees", first)
    assert [a.version for a in sets.available(workspace)] == ["2.0"]
    assert catalogue.users_of(first) == [workspace]


def test_a_failed_approval_leaves_the_one_before(shelf: Shelf) -> None:
    plugin = known(shelf)
    first = approved(plugin)
    approved(plugin, "7.0")
    first.refresh_from_db()
    assert first.state == State.ACTIVE


@pytest.mark.parametrize(
    ("name", "fits"),
    [("OPENCAGE_KEY", True), ("A", True), ("A" * 64, True), ("A" * 65, False), ("", False),
     ("HTTPS_PROXY", False), ("SSL_CERT_FILE", False), ("LANG", False),
     ("key", False), ("1KEY", False), ("A-B", False), ("KEY\n", False), ("PATH", False),
     ("HOME", False), ("TMPDIR", False), ("INSTANCE_KEY", False), ("PYTHONPATH", False),
     ("PYTHON", False), ("LD_PRELOAD", False), ("PATHS", True),
     ("DATASETTE_LOAD_PLUGINS", False), ("DATASETTE_KEY", True)],
)  # fmt: skip
def test_what_a_plugin_may_ask_for(name: str, fits: bool) -> None:
    plugin = read_before()
    terms = Terms(needs=[{"name": name, "help": "", "option": ""}])
    if fits:
        assert catalogue.approve(plugin, catalogue.default_release(), "1.0", terms, None).needs
        return
    with pytest.raises(Refused) as refusal:
        catalogue.approve(plugin, catalogue.default_release(), "1.0", terms, None)
    assert refusal.value.field == "needs"


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        (Terms(needs=[{"name": "KEY", "option": "a b"}]), "needs"),
        (Terms(needs=[{"name": "KEY"}, {"name": "KEY"}]), "needs"),
        (Terms(required=True, needs=[{"name": "KEY"}]), "required"),
        (Terms(required=True, needs_internet=True), "required"),
    ],
)
def test_terms_that_cannot_be_kept_are_refused(terms: Terms, field: str) -> None:
    with pytest.raises(Refused) as refusal:
        catalogue.approve(read_before(), catalogue.default_release(), "1.0", terms, None)
    assert refusal.value.field == field


@pytest.mark.parametrize("days", [365, 0])
def test_an_operators_yes_is_good_for_a_time(settings: Settings, days: int) -> None:
    settings.APPROVAL_DAYS = days
    before = timezone.now()
    made = catalogue.approve(read_before(), catalogue.default_release(), "1.0", Terms(), None)
    until = made.expires_at
    if days:
        assert until
        assert before + timedelta(days=days) <= until <= timezone.now() + timedelta(days=days)
    else:
        assert until is None


def test_what_came_with_this_software_does_not_expire() -> None:
    starter.load()
    assert Approval.objects.filter(shipped=True).exists()
    assert not Approval.objects.exclude(expires_at=None).exists()


def test_what_has_expired_nobody_new_switches_on_and_nobody_loses(shelf: Shelf) -> None:
    expired, other = approved(known(shelf)), approved(known(shelf, "datasette-cats"))
    has, has_not = with_plugins("trees", expired), with_plugins("oaks")
    Approval.objects.filter(pk=expired.pk).update(expires_at=timezone.now())
    assert list(sets.available(has)) == [expired, other]
    assert list(sets.available(has_not)) == [other]
    with pytest.raises(Refused, match="may not use datasette-birds"):
        changes.request(has_not, None, ["datasette-birds"])
    both = ["datasette-birds", "datasette-cats"]
    assert sets.names_of(changes.request(has, None, both).wanted.all()) == set(both)
    assert attention.counts()["approval-expiring"] == 1
    catalogue.renew(expired)
    assert list(sets.available(has_not)) == [expired, other]
    assert "approval-expiring" not in attention.counts()


def test_what_runs_an_older_version_may_have_the_expired_newer_one(shelf: Shelf) -> None:
    plugin = known(shelf)
    workspace = with_plugins("trees", approved(plugin))
    shelf.wheel("datasette-birds", "2.0")
    new = approved(plugin, "2.0")
    Approval.objects.update(expires_at=timezone.now())
    assert list(sets.available(workspace)) == [new], "or the next change would leave it out"
    assert not changes.not_allowed(workspace, workspace.release, [new])


def test_only_what_counts_and_expires_is_renewed(shelf: Shelf) -> None:
    approval = approved(known(shelf))
    Approval.objects.update(expires_at=None)
    with pytest.raises(Refused, match="does not expire"):
        catalogue.renew(approval)
    catalogue.withdraw(approval, None)
    with pytest.raises(Refused, match="does not count"):
        catalogue.renew(approval)


def test_required_is_part_of_every_image_and_of_nobodys_choice(shelf: Shelf) -> None:
    approval = approved(known(shelf), terms=Terms(required=True))
    assert "datasette-birds==1.0" in sets.lock_of(approval.release, [])
    assert list(sets.available(with_plugins("trees"))) == []


def test_what_the_release_holds_stays_in_it(shelf: Shelf) -> None:
    held = catalogue.default_release().pins["datasette-cluster-map"]
    plugin = known(shelf, held.name, version=held.version)
    approval = approved(plugin, held.version)
    assert (approval.state, approval.required, approval.lock) == (State.ACTIVE, True, "")
    with pytest.raises(Refused, match=r"is part of Datasette 0\.65\.5 itself"):
        catalogue.withdraw(approval, None)


@pytest.mark.parametrize("terms", [{"needs": [{"name": "KEY"}]}, {"needs_internet": True}])
def test_what_the_release_holds_can_neither_ask_nor_bring_the_internet(
    shelf: Shelf, terms: dict[str, Any]
) -> None:
    held = catalogue.default_release().pins["datasette-cluster-map"]
    plugin = known(shelf, held.name, version=held.version)
    approval = approved(plugin, held.version, Terms(**terms))
    assert (approval.state, approval.required) == (State.FAILED, False)
    assert "is part of Datasette 0.65.5 already" in approval.error


def test_what_goes_wrong_unexpectedly_is_not_tried_for_ever(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = known(shelf)
    monkeypatch.setattr(catalogue.index, "read", lambda *_, **__: 1 // 0)
    assert (approved(plugin).state, approved(plugin).error) == (State.FAILED, catalogue.UNEXPECTED)
    catalogue.read_plugin(plugin, TARGET)
    assert (plugin.state, plugin.newest) == (Plugin.State.KNOWN, "1.0")
    assert catalogue.UNEXPECTED in plugin.error
    unknown = catalogue.add_plugin("datasette-cats", None)
    catalogue.read_plugin(unknown, TARGET)
    assert (unknown.state, unknown.error) == (Plugin.State.REFUSED, catalogue.UNEXPECTED)


def test_an_approval_that_was_withdrawn_while_it_was_locked_stays_so(
    shelf: Shelf, operator: User
) -> None:
    approval = catalogue.approve(known(shelf), catalogue.default_release(), "1.0", EVERYONE, None)
    catalogue.withdraw(approval, operator)
    for version in ("1.0", "7.0"):  # one that could be locked, and one that could not
        approval.version = version
        catalogue.lock_approval(approval, TARGET)
        approval.refresh_from_db()
        assert (approval.state, approval.error) == (State.WITHDRAWN, "")


def test_the_newer_approval_counts_whichever_is_locked_first(shelf: Shelf) -> None:
    plugin, release = known(shelf), catalogue.default_release()
    older, newer = (catalogue.approve(plugin, release, "1.0", EVERYONE, None) for _ in "12")
    catalogue.lock_approval(newer, TARGET)
    catalogue.lock_approval(older, TARGET)
    assert [Approval.objects.get(pk=a.pk).state for a in (older, newer)] == ["replaced", "active"]


def test_a_new_approval_still_shares_with_the_others(shelf: Shelf) -> None:
    shelf.wheel("feathers", "1.0", entry_points="")
    approved(known(shelf, "datasette-cats", requires=["feathers"]))
    birds = known(shelf, requires=["feathers"])
    approved(birds)
    shelf.wheel("feathers", "2.0", entry_points="")
    shelf.wheel("datasette-birds", "2.0", requires=["feathers"])
    assert approved(birds, "2.0").pins["feathers"].version == "1.0"


@pytest.mark.parametrize(
    ("required", "tasks"), [(True, ["build_releases", "build_releases"]), (False, [])]
)
def test_what_is_required_has_the_releases_built_anew(
    shelf: Shelf,
    django_capture_on_commit_callbacks: Callable[[], AbstractContextManager[list[Any]]],
    required: bool,
    tasks: list[str],
) -> None:
    plugin = known(shelf)
    with django_capture_on_commit_callbacks() as sent:
        catalogue.withdraw(approved(plugin, terms=Terms(required=required)), None)
    names = [send.args[0].removeprefix("workspaces.tasks.") for send in sent]
    assert names == ["lock_approval", *tasks]


# --- withdrawing ---------------------------------------------------------------------------------


def test_withdrawn_and_kept_nothing_happens_to_those_that_use_it(
    shelf: Shelf, operator: User
) -> None:
    approval = approved(known(shelf))
    users = [with_plugins(slug, approval) for slug in ("oaks", "trees")]
    gone = with_plugins("gone", approval)
    Workspace.objects.filter(pk=gone.pk).update(deleted_at=approval.at)
    assert catalogue.users_of(approval) == users
    catalogue.withdraw(approval, operator)
    approval.refresh_from_db()
    assert (approval.state, approval.ended_by) == (State.WITHDRAWN, operator)
    assert approval.ended_at is not None
    assert not Change.objects.exists()
    assert catalogue.users_of(approval) == users
    assert list(sets.available(users[0])) == []
    with pytest.raises(Refused, match="does not count any more"):
        catalogue.withdraw(approval, operator)


def test_withdrawn_and_rebuilt_each_changes_to_its_set_without_it(
    shelf: Shelf, operator: User
) -> None:
    birds, cats = approved(known(shelf)), approved(known(shelf, "datasette-cats"))
    trees, oaks = with_plugins("trees", birds, cats), with_plugins("oaks", birds)
    other = with_plugins("other", cats)
    rebuilds = catalogue.withdraw_and_rebuild(birds, operator)
    assert {change.workspace: wanted(change) for change in rebuilds.begun} == {
        trees: {"datasette-cats": "1.0"},
        oaks: {},
    }
    assert {change.by for change in rebuilds.begun} == {operator}
    assert rebuilds.refused == {}
    assert not other.changes.exists()


def test_whoever_could_not_be_rebuilt_is_told_and_can_be_later(
    shelf: Shelf, operator: User
) -> None:
    birds = approved(known(shelf))
    trees = with_plugins("trees", birds)
    busy = changes.request(trees, None, ["datasette-birds"])
    rebuilds = catalogue.withdraw_and_rebuild(birds, operator)
    assert rebuilds.begun == []
    assert "Another change is under way" in rebuilds.refused["trees"]
    Change.objects.filter(pk=busy.pk).update(state=Change.State.FAILED)
    assert [c.workspace for c in catalogue.withdraw_and_rebuild(birds, operator).begun] == [trees]


def test_what_was_required_is_found_in_the_images_that_run(shelf: Shelf, operator: User) -> None:
    birds = approved(known(shelf), terms=Terms(required=True))
    trees, _ = with_plugins("trees"), with_plugins("other")
    inputs = {"packages": {"datasette-birds": "1.0", "datasette": "0.65.5"}}
    image = Image.objects.create(digest="d", reference="r", state="ready", inputs=inputs)
    Instance.objects.filter(pk=trees.instance_id).update(image=image)
    assert catalogue.users_of(birds) == [trees]
    [change] = catalogue.withdraw_and_rebuild(birds, operator).begun
    assert (change.workspace, wanted(change)) == (trees, {})
    assert "datasette-birds" not in sets.lock_of(birds.release, [])


def test_what_an_operator_withdrew_no_upgrade_brings_back(operator: User) -> None:
    starter.load()
    approval = Approval.objects.get(plugin__name="datasette-vega", release__version="0.65.5")
    catalogue.withdraw(approval, operator)
    other = Approval.objects.get(plugin__name="datasette-edit-schema", release__version="0.65.5")
    for row in (approval, other):  # as if the next version of this software locked other files
        lock = row.lock.replace("sha256:", "sha256:0", 1)[:-2] + "\n"
        Approval.objects.filter(pk=row.pk).update(lock=lock)
    assert starter.load() == 1
    approval.refresh_from_db()
    other.refresh_from_db()
    assert (approval.state, other.state) == (State.WITHDRAWN, State.REPLACED)
    assert starter.load() == 0


def test_nobody_new_gets_what_was_required_and_is_withdrawn(shelf: Shelf) -> None:
    birds = approved(known(shelf), terms=Terms(required=True))
    optional = approved(known(shelf, "datasette-cats"))
    catalogue.withdraw(optional, None)
    assert catalogue.default_release().image is not None
    catalogue.withdraw(birds, None)
    assert catalogue.default_release().image is None
    with pytest.raises(NoImage):
        create_workspace(factories.make_user(), "Trees", "trees")


def test_a_build_that_was_overtaken_by_a_withdrawal_is_made_again(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    birds = approved(known(shelf), terms=Terms(required=True))
    built = []

    def ensure(_builder: Any, lock: str, *_: Any, **__: Any) -> Image:
        if not built:
            catalogue.withdraw(birds, None)
        built.append("datasette-birds" in lock)
        image, _new = Image.objects.get_or_create(digest=str(built[-1]), reference=str(built[-1]))
        return image

    monkeypatch.setattr(releases.images, "ensure_image", ensure)
    image = releases.build(birds.release, get_builder())
    # The last time, once the release's row keeps anybody from pruning it.
    assert built == [True, False, False]
    assert catalogue.default_release().image == image
    assert image.digest == "False"


def test_what_another_plugin_brings_along_is_found_with_it(shelf: Shelf) -> None:
    birds = known(shelf)
    nests = approved(known(shelf, "datasette-nests", requires=["datasette-birds"]))
    approval = approved(birds)
    approved(known(shelf, "datasette-cats"))
    assert catalogue.brought_by(approval) == [nests]
    trees, _ = with_plugins("trees"), with_plugins("other")
    image = Image.objects.create(
        digest="d", reference="r", state="ready", inputs={"packages": {"datasette-birds": "0.9"}}
    )
    Instance.objects.filter(pk=trees.instance_id).update(image=image)
    assert list(catalogue.holders_of(birds)) == [trees]


def test_what_is_required_now_stands_before_what_was_chosen_once(shelf: Shelf) -> None:
    plugin = known(shelf)
    before = approved(plugin)
    shelf.wheel("datasette-birds", "2.0")
    approved(plugin, "2.0", Terms(required=True))
    lock = locks.parse(sets.lock_of(before.release, [before]))
    assert lock["datasette-birds"].version == "2.0"


# --- granting ------------------------------------------------------------------------------------


def test_a_grant_opens_a_plugin_to_one_workspace(shelf: Shelf, operator: User) -> None:
    plugin = known(shelf)
    approval = approved(plugin, terms=Terms())
    trees, other = with_plugins("trees"), with_plugins("other")
    assert list(sets.available(trees)) == []
    assert catalogue.grant(plugin, trees, operator)
    assert not catalogue.grant(plugin, trees, None)
    assert Grant.objects.values_list("by", "workspace").get() == (operator.pk, trees.pk)
    assert list(sets.available(trees)) == [approval]
    assert list(sets.available(other)) == []
    trees.plugins.add(approval)
    catalogue.revoke(plugin, trees)
    assert list(sets.available(trees)) == []
    assert catalogue.users_of(approval) == [trees]
    with pytest.raises(Refused, match="may not use datasette-birds"):
        changes.request(trees, None, ["datasette-birds"])


# --- releases ------------------------------------------------------------------------------------


def make_next(*, ready: bool = True) -> Release:
    """The other release that comes with this software."""
    release = factories.make_release("1.0a41")
    if ready:
        image, _ = Image.objects.get_or_create(digest="n", reference="n", state=Image.State.READY)
        Release.objects.filter(pk=release.pk).update(image=image, prerelease=True)
    return Release.objects.select_related("image").get(pk=release.pk)


def test_the_default_is_a_release_whose_image_is_ready(operator: User) -> None:
    old = catalogue.default_release()
    with pytest.raises(Refused, match="is not ready"):
        releases.make_default(make_next(ready=False))
    coming = make_next()
    releases.offer(coming, False)
    releases.make_default(coming)
    assert catalogue.default_release() == coming
    assert catalogue.default_release().offered
    with pytest.raises(Refused, match="Make another one the default first"):
        releases.offer(catalogue.default_release(), False)
    releases.offer(Release.objects.get(pk=old.pk), False)
    assert not Release.objects.get(pk=old.pk).offered


@pytest.mark.usefixtures("workspace_image")
def test_a_release_that_cannot_be_built_says_why(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("shelf")  # empty
    lock = f"cloudapp-nobody==1.0 --hash=sha256:{'a' * 64}\n"
    release = Release.objects.create(version="9.9", lock=lock, offered=False)
    releases.build_all(get_builder(), release.pk)
    release.refresh_from_db()
    assert "cloudapp-nobody==1.0" in release.error
    assert release.image is None


def test_a_workspace_takes_its_plugins_along_by_name(shelf: Shelf, operator: User) -> None:
    coming = make_next()
    birds, cats = known(shelf), known(shelf, "datasette-cats")
    shelf.wheel("datasette-birds", "2.0a1")
    approved(birds, "2.0a1", release=coming)
    approved(cats, terms=Terms(required=True), release=coming)
    trees = with_plugins("trees", approved(birds), approved(cats))
    change = changes.to_release(trees, operator, coming)
    assert (change.release, wanted(change)) == (coming, {"datasette-birds": "2.0a1"})
    dogs = approved(known(shelf, "datasette-dogs"))
    with pytest.raises(Refused, match=r"On Datasette 1\.0a41 it may not use datasette-dogs"):
        changes.to_release(with_plugins("oaks", dogs), operator, coming)
    there = with_plugins("elms", release=coming)
    with pytest.raises(Refused, match=r"on Datasette 1\.0a41 already"):
        changes.to_release(there, operator, coming)


# --- rolling out ---------------------------------------------------------------------------------


def finish(rollout: Rollout, state: str = "done", error: str = "") -> list[str]:
    """End the changes that are under way, as the worker would; return whose they were."""
    begun = rollout.changes.filter(state="open").order_by("workspace__slug")
    slugs = list(begun.values_list("workspace__slug", flat=True))
    if state == "done":
        Workspace.objects.filter(slug__in=slugs).update(release=rollout.to_release)
    rollout.changes.filter(state="open").update(state=state, error=error)
    return slugs


def step(rollout: Rollout) -> Rollout:
    rollouts.run_all()
    rollout.refresh_from_db()
    return rollout


def begin(operator: User, size: int = 2, leave_out: Sequence[Workspace] = ()) -> Rollout:
    return rollouts.start(catalogue.default_release(), make_next(), size, operator, leave_out)


def test_a_roll_out_goes_batch_by_batch_to_the_end(operator: User) -> None:
    for number in range(5):
        with_plugins(f"w{number}")
    elsewhere = with_plugins("elsewhere", release=make_next())
    stopped = factories.make_workspace(factories.make_user(), "gone", status=Status.DELETING)
    rollout = begin(operator)
    step(rollout)
    assert Change.objects.filter(state="open").count() == 2
    step(rollout)  # the batch is under way
    assert Change.objects.count() == 2
    assert {change.by for change in rollout.changes.all()} == {operator}
    batches = []
    while rollout.state == Rollout.State.RUNNING:
        batches.append(finish(rollout))
        step(rollout)
    assert batches == [["w0", "w1"], ["w2", "w3"], ["w4"]]
    assert (rollout.state, rollout.error, rollout.skipped) == ("done", "", {})
    assert rollout.finished_at is not None
    assert not elsewhere.changes.exists()
    assert not stopped.changes.exists()


@pytest.mark.parametrize("state", ["failed", "rolled back"])
def test_a_roll_out_stops_at_the_first_failure(operator: User, state: str) -> None:
    for number in range(4):
        with_plugins(f"w{number}")
    rollout = begin(operator)
    step(rollout)
    bad = rollout.changes.get(workspace__slug="w1")
    Change.objects.filter(pk=bad.pk).update(state=state, error="It did not come up.")
    step(rollout)  # w0 is still under way, and comes to its end
    assert (rollout.state, rollout.error) == ("stopped", "w1: It did not come up.")
    finish(rollout)
    step(rollout)
    assert rollout.changes.count() == 2
    w1 = Workspace.objects.get(slug="w1")
    assert (w1.release, w1.changes.get().old_image) == (rollout.from_release, w1.instance.image)


@pytest.mark.usefixtures("workspace_image")
def test_a_failing_workspace_stops_it_and_keeps_what_it_runs(
    request: pytest.FixtureRequest, operator: User
) -> None:
    """The worker's own function, on the real engine; the index has changed a file since."""
    shelf = request.getfixturevalue("shelf")  # after the image, which needs the real index
    old, new = make_next(), catalogue.default_release()
    plugin = known(shelf)
    approved(plugin, release=new)
    before = approved(plugin, release=old)
    trees = with_plugins("trees", before, release=old)
    shelf.wheel("datasette-birds", content="evil = True\n")
    rollout = step(rollouts.start(old, new, 1, operator))
    change = rollout.changes.get()
    change_runs.run(change.pk, get_builder())
    step(rollout)
    assert rollout.state == Rollout.State.STOPPED
    change.refresh_from_db()
    assert (change.state, change.step) == (Change.State.FAILED, Step.FETCH)
    assert rollout.error == f"trees: {change.error}"
    assert "datasette-birds" in rollout.error
    now = Workspace.objects.select_related("instance").get(pk=trees.pk)
    assert (now.release, list(now.plugins.all())) == (old, [before])
    assert now.instance.image_id == trees.instance.image_id
    assert now.instance.generation == trees.instance.generation


def test_those_whose_plugins_have_no_approval_there_are_skipped_and_listed(
    shelf: Shelf, operator: User
) -> None:
    birds = approved(known(shelf))
    with_plugins("a-trees", birds)
    with_plugins("b-oaks")
    stays = with_plugins("c-elms")
    rollout = step(begin(operator, leave_out=[stays]))
    assert finish(rollout) == ["b-oaks"]
    step(rollout)
    assert rollout.state == Rollout.State.DONE
    assert rollout.skipped == {
        "a-trees": "On Datasette 1.0a41 it may not use datasette-birds.",
        "c-elms": rollouts.LEFT_OUT,
    }


def test_a_workspace_with_a_change_of_its_own_comes_later(operator: User) -> None:
    trees = with_plugins("trees")
    own = changes.request(trees, None, [])
    rollout = step(begin(operator))
    assert (rollout.state, rollout.changes.count()) == (Rollout.State.RUNNING, 0)
    Change.objects.filter(pk=own.pk).update(state=Change.State.DONE)
    step(rollout)
    assert finish(rollout) == ["trees"]


def test_a_roll_out_that_makes_no_sense_is_refused(operator: User) -> None:
    old = catalogue.default_release()
    with pytest.raises(Refused, match="is not ready"):
        rollouts.start(old, make_next(ready=False), 5, operator)
    with pytest.raises(Refused, match="another release"):
        rollouts.start(make_next(), make_next(), 5, operator)
    rollout = begin(operator)
    with pytest.raises(Refused, match="is under way already"):
        begin(operator)
    rollouts.stop(rollout, "Stopped by Olga.")
    with pytest.raises(Refused, match="is over"):
        rollouts.stop(rollout, "Stopped by Olga.")
    begin(operator)


def test_what_is_required_counts_on_the_release_that_is_changed_to(shelf: Shelf) -> None:
    coming = make_next()
    terms = Terms(reach=Approval.Reach.EVERYONE, needs_internet=True,
                  needs=[{"name": "BIRD_KEY", "help": "", "option": "key"}])  # fmt: skip
    approval = approved(known(shelf), terms=terms, release=coming)
    Approval.objects.filter(pk=approval.pk).update(required=True)
    trees = with_plugins("trees")
    assert not sets.spec_of(trees, trees.release, []).internet
    spec = sets.spec_of(trees, coming, [])
    assert spec.internet
    assert spec.plugin_settings == {"datasette-birds": {"key": {"$env": "BIRD_KEY"}}}


def older_and_newer() -> tuple[Release, list[Workspace]]:
    """A release after an upgrade of this software, and workspaces from before."""
    parts = {"base": {"id": "sha256:1"}, "files": {"Dockerfile": "old"}}
    factories.make_image(inputs=parts)
    old = [with_plugins(f"old-{number}") for number in range(3)]
    newest = factories.make_image(inputs=parts | {"files": {"Dockerfile": "new"}})
    release = catalogue.default_release()
    assert release.image == newest
    # Plugins are its own, and so is its image; what is ours in it is new.
    own = factories.make_image(inputs=newest.inputs | {"packages": {"datasette-owls": "1.0"}})
    Release.objects.filter(pk=release.pk).update(image=newest)
    new = with_plugins("new")
    Instance.objects.filter(pk=new.instance_id).update(image=own)
    return release, old


def test_after_an_upgrade_a_release_is_rolled_out_to_those_with_an_older_image(
    operator: User,
) -> None:
    release, old = older_and_newer()
    assert set(releases.behind()) == set(old)
    assert attention.counts()["image-outdated"] == 3
    rollout = step(rollouts.start(release, release, 2, operator))
    batches = []
    while rollout.state == Rollout.State.RUNNING:
        under_way = rollout.changes.filter(state="open")
        assert {(change.release, change.anew) for change in under_way} == {(release, False)}
        moved = Instance.objects.filter(workspace__changes__in=under_way)
        moved.update(image=release.image)
        batches.append(finish(rollout))
        step(rollout)
    assert batches == [["old-0", "old-1"], ["old-2"]]
    assert rollout.state == Rollout.State.DONE
    assert "image-outdated" not in attention.counts()
    with pytest.raises(Refused, match="newest image"):
        rollouts.start(release, release, 2, operator)
