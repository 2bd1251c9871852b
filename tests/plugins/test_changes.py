"""Changing a workspace's plugins, on the real engine: what works, and whatever may go wrong."""

import logging
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from deploy import images, lifecycle, vault
from deploy.builder import Builder
from deploy.engines import get_builder
from deploy.engines.base import EngineError
from deploy.index import Target
from deploy.models import Image
from deploy.reconcile import spec_of
from deploy.states import Desired, Observed, StopReason
from tests.deploy.boxes import wait_for
from tests.deploy.workspace_support import one_builds
from tests.plugins import shop as code
from tests.plugins.changing import Mortals, Place, World, log_tail, steps_of
from tests.plugins.shop import Shop
from workspaces import catalogue, changes, releases, tasks
from workspaces.models import Approval, Change, Plugin
from workspaces.services import Refused

T = TypeVar("T")
SETTINGS = {
    "LEASE_SECONDS": 30.0,
    "START_TIMEOUT_SECONDS": 60.0,
    "STOP_TIMEOUT_SECONDS": 60,
    # A busy machine may take longer over a good change than the product allows it.
    "SWITCH_SECONDS": 60.0,
    "WAKE_HOLD_SECONDS": 90.0,
}
# A good one answers in a second; the bound is for a busy machine.
SWITCH_OVER_BOUND = 45.0
MARKER = Path(tempfile.gettempdir()) / f"cloudapp-ran-{os.getpid()}"
VALUE = "hunter2-a-very-secret-value"


@pytest.fixture(scope="module")
def world(
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    workspace_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """One installation for all; each test makes what it changes."""
    shop = Shop(tmp_path_factory.mktemp("shop"))
    kept = Path(settings.STATE_DIR)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir=kept) as state:
        # The release's wheels are there already; what the shop sells is fetched.
        shutil.copytree(
            kept / "wheels",
            Path(state, "wheels"),
            copy_function=os.link,
            # What others are just fetching is gone in a moment.
            ignore=shutil.ignore_patterns("fetching-*", "putting-*"),
        )
        patch.setattr(settings, "STATE_DIR", Path(state))
        for name, value in SETTINGS.items():
            patch.setattr(settings, name, value)
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(shop.directory))
        with django_db_blocker.unblock(), World(get_builder(), workspace_image, shop) as made:
            yield made
        connection.close()


@pytest.fixture(autouse=True)
def database(world: World, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Rows that really commit: workers must see them."""
    with django_db_blocker.unblock():
        yield
        connection.close()


@pytest.fixture(scope="module")
def place(world: World, django_db_blocker: DjangoDbBlocker) -> Place:
    """A workspace whose changes all fail: it is as it was, after each."""
    with django_db_blocker.unblock():
        made = world.workspace()
        made.write("birds.db")
        return made


@pytest.fixture(scope="module")
def owls(world: World, django_db_blocker: DjangoDbBlocker) -> str:
    """A good plugin."""
    with django_db_blocker.unblock():
        return world.plugin("datasette-owls", code.PAGE.format(path="owls", words="Owls!"))


# --- a good one ----------------------------------------------------------------------------------


def test_a_good_change_loses_no_request_and_one_click_goes_back(world: World) -> None:
    place = world.workspace()
    place.write("birds.db")
    name = world.plugin("datasette-wren", code.PAGE.format(path="wren", words="first"))
    with place.visited() as visitor:
        change = place.change(name)
    assert (change.state, change.error) == ("done", "")
    assert place.get("/-/wren") == (200, "first")
    assert not visitor.lost
    assert visitor.longest_hold < SWITCH_OVER_BOUND
    print(f"\nswitch-over {visitor.longest_hold:.2f} s, {len(visitor.visits)} requests")
    print(f"milliseconds: {change.durations}")

    image = place.row.instance.image
    world.plugin(name, code.PAGE.format(path="wren", words="second"), version="2.0")
    assert place.change(name).state == "done"
    assert place.get("/-/wren") == (200, "second")
    with place.visited() as visitor:
        back = world.finished(changes.roll_back(place.row, world.owner))
    assert (back.state, back.error, back.image) == ("done", "", image)
    assert place.get("/-/wren") == (200, "first")
    assert not visitor.lost
    assert visitor.longest_hold < SWITCH_OVER_BOUND
    assert place.rows("birds.db") == 1
    print(f"back: {visitor.longest_hold:.2f} s; milliseconds: {back.durations}")


def test_one_that_sleeps_is_woken_and_tried_out(world: World, owls: str) -> None:
    place = world.workspace()
    lifecycle.want_stopped(place.row.instance_id, StopReason.IDLE)
    wait_for(lambda: place.row.instance.observed == Observed.EXITED, "it sleeps")
    assert place.change(owls).state == "done"
    assert place.row.instance.ready
    assert place.get("/-/owls") == (200, "Owls!")


def test_one_that_its_owner_stopped_stays_stopped(world: World, owls: str) -> None:
    place = world.workspace()
    lifecycle.want_stopped(place.row.instance_id, StopReason.OWNER)
    assert place.change(owls).state == "done"
    assert place.row.instance.desired == Desired.STOPPED


# --- refused before anything is touched -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("datasette-raises", code.RAISES, "RuntimeError: no owls today"),
        ("datasette-raises-late", code.RAISES_IN_STARTUP, "RuntimeError: no owls at the start"),
    ],
    ids=["at import", "in startup"],
)
def test_one_that_raises_is_refused(
    world: World, place: Place, name: str, body: str, words: str
) -> None:
    assert_nobody_notices(place, world.plugin(name, body), words)


def test_those_that_hang_are_refused_and_told_where(
    world: World, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Enough for a busy machine to come to where they hang.
    monkeypatch.setattr(images, "ANSWER_SECONDS", 25.0)
    monkeypatch.setattr(images, "SMOKE_SECONDS", 240.0)
    words = r"did not answer in 25 s.*it hangs here:.*datasette_hangs"
    early = world.plugin("datasette-hangs", code.HANGS)
    late = world.plugin("datasette-hangs-late", code.HANGS_IN_STARTUP)
    at_once(
        lambda: assert_nobody_notices(place, early, rf"{words}\.py"),
        lambda: assert_nobody_notices(world.workspace(), late, rf"{words}_late\.py"),
    )


def at_once(*works: Callable[[], T]) -> list[T]:
    """Do all of it at the same time."""

    def do(work: Callable[[], T]) -> T:
        try:
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor() as pool:
        return list(pool.map(do, works))


def assert_nobody_notices(place: Place, name: str, words: str) -> None:
    """A change to this plugin fails in these words, and the workspace answers all the while."""
    before = place.inspect()["Id"], place.row.instance.generation
    with place.visited() as visitor:
        change = place.change(name)
    assert change.state == "failed"
    assert re.search(words, told_of(change), re.DOTALL), told_of(change)
    assert not visitor.lost
    assert not visitor.longest_hold
    assert (place.inspect()["Id"], place.row.instance.generation) == before
    assert not place.row.plugins.exists()


def told_of(change: Change) -> str:
    """What an owner reads."""
    return f"{change.error} {change.detail}"


def test_a_tampered_wheel_is_refused(world: World, place: Place) -> None:
    name = world.plugin("datasette-swift", code.PAGE.format(path="swift", words="as approved"))
    world.shop.plugin(name, code.PAGE.format(path="swift", words="as tampered with"))
    assert_nobody_notices(place, name, r"datasette-swift==1\.0.* is not the file that was approved")


def test_code_at_a_build_never_runs_and_is_refused(world: World, place: Place) -> None:
    mark = code.MARK.format(marker=MARKER)
    for name, files in {
        "datasette-pth": {"owls.pth": f"import pathlib; {mark}"},
        "datasette-customize": {"sitecustomize.py": mark},
        "datasette-data": {"datasette_data-1.0.data/data/lib/x.pth": mark},
    }.items():
        plugin = world.plugin(name, "", files=files)
        assert_nobody_notices(place, plugin, "runs code whenever Python starts")
    assert not MARKER.exists()


def test_a_build_runs_nothing_of_what_it_unpacks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if such a wheel got that far: what it would write is not in the image."""
    monkeypatch.setattr(images, "refuse_code_at_start", lambda *args: None)
    monkeypatch.setattr(images, "smoke_test", lambda *args: None)
    mark = code.MARK.format(marker="/opt/further/ran")
    name = world.plugin("datasette-runs", "", files={"runs.pth": f"import pathlib; {mark}"})
    image, _ = steps_of(world, [name])
    look = "import os; print(os.path.exists('/opt/workspace/ran'), os.listdir('/opt/workspace'))"
    command = ("/opt/workspace/bin/python", "-ISB", "-c", look)
    assert world.builder.run_once(image.reference, command, 240).output.startswith("False")


def test_source_code_is_never_built(world: World) -> None:
    name = "datasette-cloudapp-source-only"
    world.shop.source(name, code.MARK.format(marker=MARKER))
    plugin = Plugin.objects.create(name=name, state="known")
    approval = Approval.objects.create(plugin=plugin, release=world.release, version="1.0")
    catalogue.lock_approval(approval, Target(world.builder.architecture(), "3.13"))
    assert approval.state == "failed"
    assert "only as source code" in approval.error
    assert not MARKER.exists()


def test_a_conflicting_pair_is_named(world: World, place: Place) -> None:
    old, new = world.shop.library("owl-lib", "1.0"), world.shop.library("owl-lib", "2.0")
    one = world.approve(world.shop.plugin("datasette-one", "", requires=["owl-lib==1.0"]), old)
    two = world.approve(world.shop.plugin("datasette-two", "", requires=["owl-lib==2.0"]), new)
    words = r"datasette-one needs owl-lib 1\.0, and datasette-two needs owl-lib 2\.0"
    with pytest.raises(Refused, match=words):
        place.ask_for(one, two)
    assert not place.row.changes.filter(state="open").exists()


# --- rolled back ---------------------------------------------------------------------------------


def test_those_that_fail_with_this_data_are_rolled_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_rolled_back(
        world,
        world.shop.plugin("datasette-bad-data", code.RAISES_AT_POISON),
        r"stopped right after it started.* RuntimeError: poison\.db: •••",
    )
    monkeypatch.setattr(settings, "SWITCH_SECONDS", 10.0)
    assert_rolled_back(
        world,
        world.shop.plugin("datasette-slow-data", code.HANGS_AT_POISON),
        "did not answer within 10 s",
    )


def assert_rolled_back(world: World, wheel: Path, words: str) -> None:
    """A plugin works in the smoke test and not with this data: nobody gets more than a wait."""
    place = world.workspace()
    place.write("poison.db")
    before = place.row.instance
    plugin = world.approve(wheel, needs=[{"name": "OWL_KEY", "help": ""}])
    with place.visited() as visitor:
        change = place.change(plugin, secrets={"OWL_KEY": VALUE})
        place.wait_ready()
    print(f"\n{plugin}: held for {visitor.longest_hold:.2f} s. {told_of(change)}")
    assert change.state == "rolled back"
    assert re.search(words, told_of(change)), told_of(change)
    assert VALUE not in told_of(change)
    assert not visitor.lost
    after = place.row.instance
    for part in ("image", "internet", "plugin_settings", "secrets"):
        assert getattr(after, part) == getattr(before, part)
    assert place.inspect()["Config"]["Image"] == before.image.reference
    assert place.rows("poison.db") == 1
    assert not place.row.plugins.exists()


# --- killed workers, doubled and lost tasks -------------------------------------------------------


POINTS = (
    "change_runs._resolved before",
    "images.fetch_wheels before",
    "images.fetch_wheels after",
    "images.build_image before",
    "images.build_image after",
    "images.smoke_test before",
    "images.smoke_test after",
    "change_runs._begin_switch before",
    "change_runs._begin_switch after",
    "change_runs._trouble after",
    "change_runs._note after",
)


@pytest.fixture(scope="module")
def mortals(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortals]:
    """Workers that die at a change."""
    made = Mortals(tmp_path_factory.mktemp("mortals"))
    yield made
    made.close()


def test_a_killed_worker_is_followed_by_another(
    world: World, mortals: Mortals, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = world.workspace()
    place.write("birds.db")
    name = world.plugin("datasette-mortal", code.PAGE.format(path="mortal", words="lived"))
    before = place.row.instance.generation
    with place.visited() as visitor:
        with monkeypatch.context() as patch:
            patch.setattr(changes, "send", lambda pk: None)  # the mortals' own
            change = place.ask_for(name)
        for point in POINTS:
            assert mortals.run(change, point) == -signal.SIGKILL, point
            assert Change.objects.get(pk=change.pk).state == "open", point
        tasks.take_up()
        done = world.finished(change)
    assert (done.state, done.error) == ("done", "")
    assert place.get("/-/mortal") == (200, "lived")
    assert place.row.instance.generation == before + 1, "switched over just once"
    assert not visitor.lost
    assert place.rows("birds.db") == 1


def test_a_worker_killed_at_rolling_back_is_followed_by_another(
    world: World, mortals: Mortals, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = world.workspace()
    place.write("poison.db")
    image = place.row.instance.image
    name = world.plugin("datasette-bad-end", code.POISON.format(body="raise RuntimeError('bad')"))
    with place.visited() as visitor:
        with monkeypatch.context() as patch:
            patch.setattr(changes, "send", lambda pk: None)
            change = place.ask_for(name)
        assert mortals.run(change, "change_runs._trouble after") == -signal.SIGKILL
        tasks.take_up()
        done = world.finished(change)
        place.wait_ready()
    assert done.state == "rolled back"
    assert "RuntimeError: bad" in done.detail
    assert place.row.instance.image == image
    assert not visitor.lost


def test_doubled_tasks_do_no_harm(world: World, owls: str) -> None:
    place = world.workspace()
    before = place.row.instance.generation
    change = place.ask_for(owls)
    for _ in range(5):
        changes.send(change.pk)
        tasks.take_up()
    assert world.finished(change).state == "done"
    tasks.run_change(change.pk)
    assert place.row.instance.generation == before + 1
    assert place.row.activities.filter(verb="changed_plugins").count() == 1


def test_only_one_change_at_a_time(
    world: World, owls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = world.workspace()
    with monkeypatch.context() as patch:
        patch.setattr(changes, "send", lambda pk: None)
        change = place.ask_for(owls)
    with pytest.raises(Refused, match="Another change is under way"):
        place.ask_for(owls)
    tasks.take_up()
    assert world.finished(change).state == "done"


# --- grants ------------------------------------------------------------------------------------


def test_nobody_without_a_grant_gets_it(
    world: World, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = world.shop.plugin("datasette-granted", code.PAGE.format(path="granted", words="yes"))
    name = world.approve(wheel, reach=Approval.Reach.GRANTED)
    plugin = Plugin.objects.get(name=name)
    with pytest.raises(Refused, match="may not use datasette-granted"):
        place.ask_for(name)
    # By hand, past the form:
    row = place.row
    change = Change.objects.create(
        workspace=row,
        release=row.release,
        old_release=row.release,
        old_image=row.instance.image,
    )
    change.wanted.set(plugin.approvals.all())
    tasks.take_up()
    done = world.finished(change)
    assert (done.state, done.image) == ("failed", None)
    assert "may not use datasette-granted any more" in done.error
    # Taken back between the question and the work:
    catalogue.grant(plugin, row, world.owner)
    with monkeypatch.context() as patch:
        patch.setattr(changes, "send", lambda pk: None)
        change = place.ask_for(name)
    catalogue.revoke(plugin, row)
    tasks.take_up()
    done = world.finished(change)
    assert (done.state, done.image) == ("failed", None)
    assert "may not use datasette-granted any more" in done.error
    # And with it, it works, for this one alone.
    other = world.workspace()
    catalogue.grant(plugin, other.row, world.owner)
    assert other.change(name).state == "done"
    assert other.get("/-/granted") == (200, "yes")
    with pytest.raises(Refused, match="may not use"):
        place.ask_for(name)


# --- secrets -----------------------------------------------------------------------------------


TELLS = """
import os, sys
from datasette import hookimpl, Response

print("the key is", os.environ.get("OWL_TOKEN"), file=sys.stderr, flush=True)

@hookimpl
def register_routes():
    return [(r"^/-/told$", told)]

async def told(datasette):
    key = (datasette.plugin_config("datasette-tells") or {}).get("key")
    return Response.text(f"{os.environ.get('OWL_TOKEN')} {key}")
"""


def test_a_secret_reaches_its_container_and_nothing_else(
    world: World, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mine = world.workspace()
    wheel = world.shop.plugin("datasette-tells", TELLS)
    need = {"name": "OWL_TOKEN", "help": "from owls.example", "option": "key"}
    name = world.approve(wheel, needs=[need])
    with pytest.raises(Refused, match="Still needed: OWL_TOKEN"):
        mine.ask_for(name)
    change = mine.change(name, secrets={"OWL_TOKEN": VALUE})
    assert (change.state, change.error) == ("done", "")
    assert mine.get("/-/told") == (200, f"{VALUE} {VALUE}")
    assert f"OWL_TOKEN={VALUE}" in mine.inspect()["Config"]["Env"]
    assert VALUE not in str(place.inspect())
    image = world.docker.inspect_image(mine.row.instance.image.reference)
    assert VALUE not in str(image)
    assert VALUE not in str(world.docker.history(mine.row.instance.image.reference))
    assert "the key is •••" in log_tail(mine)
    assert_in_no_table(VALUE)
    assert caplog.text
    assert VALUE not in caplog.text
    rotate(mine)
    # Write-only, and kept where nothing was typed.
    assert mine.change(name, secrets={"OWL_TOKEN": ""}).state == "done"
    assert mine.get("/-/told") == (200, f"{VALUE} {VALUE}")


def assert_in_no_table(value: str) -> None:
    """No row of any table of the database holds this text."""
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        assert "deploy_instance" in tables
        for table in tables:
            quoted = connection.ops.quote_name(table)
            cursor.execute(f"select count(*) from {quoted} t where t::text like %s", [f"%{value}%"])
            assert cursor.fetchone() == (0,), table


def rotate(place: Place) -> None:
    """A new key in front, everything sealed anew, the old key away; a lost one is told of."""
    with pytest.MonkeyPatch.context() as patch:
        old = list(settings.ENCRYPTION_KEYS)
        patch.setattr(settings, "ENCRYPTION_KEYS", ["new key", *old])
        call_command("rotate_secrets")
        patch.setattr(settings, "ENCRYPTION_KEYS", ["new key"])
        assert vault.open_all(place.row.instance.secrets) == {"OWL_TOKEN": VALUE}
        patch.setattr(settings, "ENCRYPTION_KEYS", ["quite another key"])
        with pytest.raises(CommandError, match=r"OWL_\w+ was encrypted with a key") as raised:
            call_command("rotate_secrets")
        assert VALUE not in str(raised.value)
        patch.setattr(settings, "ENCRYPTION_KEYS", [*old, "new key"])
        call_command("rotate_secrets")


def test_a_lost_key_touches_nothing_that_runs(
    world: World, owls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = world.workspace()
    lifecycle.set_secrets(place.row.instance_id, changes.sealed({"OWL_TOKEN": VALUE}))
    monkeypatch.setattr(settings, "ENCRYPTION_KEYS", ["a key that never sealed anything"])
    assert_nobody_notices(place, owls, "The secret OWL_TOKEN was encrypted with a key that")


@pytest.mark.parametrize(
    "name",
    [
        *("INSTANCE_KEY", "INSTANCE_ID", "INSTANCE_LISTEN", "PATH", "LD_PRELOAD", "PYTHONPATH"),
        *("HOME", "TMPDIR", "HTTPS_PROXY", "SSL_CERT_FILE", "DATASETTE_SECRET", "owl", "", "A=B"),
        *("OWL KEY", "1OWL", "OWL\n"),
    ],
)
def test_a_secret_takes_the_place_of_nothing(place: Place, name: str) -> None:
    with pytest.raises(Refused, match="cannot be named"):
        changes.sealed({name: "value"})
    instance = place.row.instance
    instance.secrets = {name: vault.seal("value")}  # as if it had got into the row
    environment = spec_of(instance).environment
    assert "value" not in environment.values()
    assert environment["INSTANCE_KEY"] == instance.key


def test_a_value_that_no_container_can_have_is_refused() -> None:
    for value in ("with\0nul", "x" * 20_000):
        with pytest.raises(Refused, match="The value of OWL_KEY") as raised:
            changes.sealed({"OWL_KEY": value})
        assert value not in str(raised.value)


# --- images ------------------------------------------------------------------------------------


def test_same_set_same_image_and_one_more_is_one_more_layer(world: World, owls: str) -> None:
    one, two = world.workspace(), world.workspace()
    first = one.ask_for(owls)
    second = two.ask_for(owls)
    assert {world.finished(first).state, world.finished(second).state} == {"done"}
    assert one.inspect()["Image"] == two.inspect()["Image"]
    assert one.row.instance.image == two.row.instance.image
    image, steps = steps_of(world, [owls])
    assert (image, steps) == (one.row.instance.image, [])
    more = world.plugin("datasette-more", code.PAGE.format(path="more", words="more"))
    bigger, steps = steps_of(world, [owls, more])
    assert steps == ["fetch", "build", "check"]
    assert bigger.reference != image.reference
    described = [world.docker.inspect_image(i.reference) for i in (image, bigger)]
    small, big = (d["RootFS"]["Layers"] for d in described)
    assert small[:-1] == big[:-1], "all but the last layer is shared"
    labels = described[1]["Config"]["Labels"]
    assert labels["cloudapp.image.digest"] == bigger.digest
    assert labels["cloudapp.image.release"] == "Datasette 0.65.5"
    assert {"datasette==0.65.5", "datasette-more==1.0", "datasette-owls==1.0"} <= set(
        labels["cloudapp.image.packages"].split()
    )
    assert labels["cloudapp.image.base"].endswith(bigger.inputs["base"]["id"])


def test_two_builds_at_once_are_one(world: World) -> None:
    name = world.plugin("datasette-twice", "")
    gate = threading.Barrier(2)

    def build() -> tuple[Image, list[str]]:
        gate.wait()
        return steps_of(world, [name])

    (one, first), (two, second) = at_once(build, build)
    assert one == two
    assert sorted([first, second]) == [[], ["fetch", "build", "check"]]


def test_one_that_does_not_work_is_not_kept(world: World) -> None:
    name = world.plugin("datasette-not-kept", code.RAISES)
    with pytest.raises(images.ImageError, match="no owls today"):
        steps_of(world, [name])
    failed = Image.objects.get(inputs__packages__has_key=name)
    assert failed.state == Image.State.FAILED
    assert not world.builder.image_exists(failed.reference)


def test_what_is_there_stays_until_one_that_was_built_anew_works(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others use the same row: new workspaces, spares, the health of it all."""
    name = world.plugin("datasette-once-more", "")
    image, _ = steps_of(world, [name])
    before = world.builder.image_id(image.reference)
    seen: list[tuple[str, str | None]] = []

    def look(builder: Builder, reference: str, wheels: list[Path]) -> None:
        image.refresh_from_db()
        seen.append((image.state, builder.image_id(image.reference)))
        assert world.builder.image_id(reference) not in {None, before}, "it is built anew"
        raise images.ImageError("no owls today")

    with monkeypatch.context() as patch:
        patch.setattr(images, "smoke_test", look)
        with pytest.raises(images.ImageError, match="no owls today"):
            steps_of(world, [name], anew=True)
    image.refresh_from_db()
    assert seen == [(Image.State.READY, before)]
    assert (image.state, image.error) == (Image.State.READY, "")
    assert world.builder.image_id(image.reference) == before
    assert not world.builder.image_exists(images.trial_of(image.reference))

    built_at = image.built_at
    again, steps = steps_of(world, [name], anew=True)
    assert (again, steps) == (image, ["fetch", "build", "check"])
    assert built_at is not None
    assert again.built_at is not None
    assert again.built_at > built_at
    assert world.builder.image_id(image.reference) not in {None, before}
    assert not world.builder.image_exists(images.trial_of(image.reference))


def test_an_engine_that_is_away_does_not_make_an_image_a_failed_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(reference: str) -> bool:
        raise EngineError("it does not answer")

    name = world.plugin("datasette-engine-away", "")
    image, _ = steps_of(world, [name])
    with monkeypatch.context() as patch:
        patch.setattr(world.builder, "image_exists", away)
        with pytest.raises(images.ImageError, match="it does not answer"):
            steps_of(world, [name])
    image.refresh_from_db()
    assert image.state == Image.State.READY


def test_only_what_nobody_needs_is_pruned(
    world: World, owls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = world.workspace()
    more = world.plugin("datasette-prune", "")
    assert place.change(more).state == "done"
    assert place.change(more, owls).state == "done"
    before, running = (steps_of(world, names)[0] for names in ([more], [more, owls]))
    failed = world.plugin("datasette-prune-failed", code.RAISES_IN_STARTUP)
    assert place.change(failed).state == "failed"
    unused, _ = steps_of(world, [world.plugin("datasette-unused", "")])
    assert releases.prune(world.builder) == [], "all are young"

    Image.objects.update(built_at=timezone.now() - timedelta(hours=2))
    monkeypatch.setattr(releases, "LEFTOVERS_AFTER", {"further": timedelta(0)})
    with one_builds():  # other tests may be building, and leave things too
        pruned = releases.prune(world.builder)
        # Products that other tests started build too, and leave things for as long as that takes.
        wait_for(lambda: not _left_after_pruning(world), "nothing to be left of further plugins")
        assert leftovers(world, "common")
    assert unused.reference in pruned
    assert not any(world.builder.image_exists(reference) for reference in pruned)
    needed = {image.reference for image in Image.objects.filter(pk__in=releases.needed())}
    assert {before.reference, running.reference, world.release.image.reference} <= needed
    assert all(world.builder.image_exists(reference) for reference in needed)

    # What was pruned is made again, the rest is there.
    back = world.finished(changes.roll_back(place.row, world.owner))
    assert (back.state, back.image) == ("done", before)
    assert not back.durations.keys() & {"fetch", "build", "check"}
    image, steps = steps_of(world, ["datasette-unused"])
    assert (image.reference, steps) == (unused.reference, ["fetch", "build", "check"])


def _left_after_pruning(world: World) -> list[dict[str, Any]]:
    releases.prune(world.builder)
    return leftovers(world, "further")


def leftovers(world: World, stage: str) -> list[dict[str, Any]]:
    """What builds left on the engine."""
    return list(world.docker.images(all=True, filters={"label": f"cloudapp.stage={stage}"}))


def test_an_image_taken_in_the_last_moment_is_not_pruned(world: World) -> None:
    image, _ = steps_of(world, [world.plugin("datasette-last-moment", "")])
    state = settings.STATE_DIR
    assert not images.remove(world.builder, image, state, lambda image: True)
    assert world.builder.image_exists(image.reference)
    assert images.remove(world.builder, image, state, lambda image: False)
    assert not world.builder.image_exists(image.reference)
