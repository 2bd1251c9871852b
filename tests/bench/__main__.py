"""Run every measurement against a running product and print the table.

`make bench` starts that product and gives BENCH_URL, BENCH_STATE_DIR and its settings. Pairs are
interleaved, so that a machine that gets slower or faster does so for both sides.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from uuid import uuid4

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cloudapp.settings")
django.setup()

import docker  # noqa: E402
from django.conf import settings  # noqa: E402
from django.utils import timezone  # noqa: E402

from accounts.models import User  # noqa: E402
from deploy import lifecycle, tokens  # noqa: E402
from deploy.models import Image, Instance  # noqa: E402
from tests.bench import customer as customers  # noqa: E402
from tests.bench import floor, load  # noqa: E402
from tests.bench.api import MANY, READS, ApiClient, many_workspaces, p95_of, wait_latencies  # noqa: E402
from tests.bench.customer import Customer, put_to_sleep  # noqa: E402
from tests.bench.floor import BareContainer  # noqa: E402
from workspaces.models import Plan, Workspace  # noqa: E402

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "12"))
AT_ONCE = 10
TENS = 5
PAIRS = 11
POLICIES = (2, 3, AT_ONCE)
PAGES = 60
SETTLE_SECONDS = 15.0
SETTLED = 0.05  # of the processors' time
OUTPUT = Path(__file__).parent.parent.parent / "var" / "bench.json"


class Bench:
    """The product under test, the bare engine beside it, and what was measured."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.label = f"bench-{uuid4().hex[:8]}"
        self.client = docker.APIClient(settings.DOCKER_HOST, version="auto", timeout=60)
        self.image = Image.objects.filter(state=Image.State.READY).latest("built_at").reference
        self.user: User = customers.make_user()
        Plan.objects.update(max_workspaces=10_000)
        self.spares = Plan.objects.get(is_default=True).spares
        self.customer = Customer(self.user, url)
        self.numbers: dict[str, float] = {}

    def bare(self) -> BareContainer:
        """Return a bare container, not started."""
        return BareContainer(self.client, self.image, self.label, settings.RUN_DIR / self.label)

    def slug(self) -> str:
        """Return a slug that nobody has."""
        return f"b-{uuid4().hex[:12]}"

    def measurements(self) -> dict[str, Callable[[], None]]:
        """Return them all, in their order; some may be named on the command line."""
        return {
            "pages": self.pages,
            "api": self.api,
            "router": self.router,
            "claim": self.claim,
            "ten": partial(self.ten_at_once, "ten"),
            "cold": self.cold,
        }

    # --- what is measured --------------------------------------------------------------------

    def claim(self) -> None:
        """Create → first page, as people have it: a spare is ready."""
        times = []
        for _ in range(ROUNDS):
            self.wait_for_spares()
            settle()
            slug = self.slug()
            times.append(self.customer.create(slug) * 1000)
            self.forget(slug)
        self.numbers["create_ms"] = round(statistics.median(times))
        title = f"create → first page, {self.spares} spares, ms"
        print(f"{title:44}  {'':33} ours {_spread(times)}", flush=True)

    def cold(self) -> None:
        """As people have it when no spare is left."""
        self.without_spares()
        self.ten_at_once("ten_cold")
        self.create_and_wake()

    def wait_for_spares(self) -> None:
        """Wait until there are as many spares as the plan says, and they are ready."""
        customers.wait_for(
            lambda: Instance.objects.filter(spare=True, ready=True).count() == self.spares
        )

    def without_spares(self) -> None:
        """From now on each container is made for the one who asks for it."""
        self.spares = 0
        Plan.objects.update(spares=0)
        customers.wait_for(lambda: not Instance.objects.filter(spare=True, purged_at=None).exists())

    def create_and_wake(self) -> None:
        """Create → first page without a spare, and wake → first page, beside the bare engine's."""
        times: dict[str, list[float]] = {
            "floor": [],
            "create_cold": [],
            "floor_wake": [],
            "wake": [],
        }
        for warm in (False, *[True] * ROUNDS):
            slug = self.slug()
            with self.bare() as container:
                pair = {"floor": _timed(container.run)}
                settle()
                pair["create_cold"] = self.customer.create(slug)
                container.stop()
                put_to_sleep(slug)
                pair["floor_wake"] = _timed(container.start)
                settle()
                pair["wake"] = self.customer.wake(slug)
            self.forget(slug)
            if warm:
                for name, seconds in pair.items():
                    times[name].append(seconds * 1000)
        title = f"create → first page, {self.spares} spares, ms"
        self.report(title, "floor", times["floor"], "create_cold", times["create_cold"])
        self.report(
            "wake → first page, ms", "floor_wake", times["floor_wake"], "wake", times["wake"]
        )

    def ten_at_once(self, name: str) -> None:
        """Ten creations at once, beside the bare engine's best policy."""
        floors: dict[int, list[float]] = {policy: [] for policy in POLICIES}
        ours: list[float] = []
        browsers = [Customer(self.user, self.url) for _ in range(AT_ONCE)]
        self._ten(browsers)  # warm: each browser has its connections
        for _ in range(TENS):
            self.wait_for_spares()
            for policy in POLICIES:
                settle()
                floors[policy].append(floor.many_at_once(self.bare, AT_ONCE, policy))
            settle()
            ours.append(self._ten(browsers))
        best = min(POLICIES, key=lambda policy: statistics.median(floors[policy]))
        title = f"ten at once, {self.spares} spares, s (bare: {best} at a time)"
        self.report(title, f"{name}_floor", floors[best], f"{name}_create", ours, unit="s")

    def _ten(self, browsers: Sequence[Customer]) -> float:
        slugs = [self.slug() for _ in browsers]
        started = time.monotonic()
        with ThreadPoolExecutor(len(browsers)) as pool:
            list(pool.map(Customer.create, browsers, slugs))
        seconds = time.monotonic() - started
        for slug in slugs:
            self.forget(slug)
        return seconds

    def router(self) -> None:
        """Requests per second, straight at the container and through the router."""
        slug = self.slug()
        self.customer.create(slug)
        instance = Workspace.objects.get(slug=slug).instance
        token = tokens.actor_token(instance, floor.ACTOR, floor.WORKSPACE)
        straight = {tokens.HEADER: token}
        through = {"Cookie": self.customer.cookies_of(slug)}
        address = self.url.partition("://")[2].replace("localhost", "127.0.0.1")
        host = f"{slug}.{self.url.partition('://')[2]}"
        for name, path, count in (("page", "/", 400), ("tiny", "/-/actor.json", 1500)):
            rates: dict[str, list[float]] = {"straight": [], "through": []}
            for warm in (False, *[True] * PAIRS):
                settle()
                pair = {
                    "straight": load.requests_per_second(
                        path, count, straight, endpoint=instance.endpoint
                    ),
                    "through": load.requests_per_second(
                        path, count, through, endpoint=address, host=host
                    ),
                }
                if warm:
                    for side, rate in pair.items():
                        rates[side].append(rate)
            ratios = [a / b for a, b in zip(rates["through"], rates["straight"], strict=True)]
            self.numbers[f"router_{name}_ratio"] = round(statistics.median(ratios), 3)
            self.numbers[f"straight_{name}_rps"] = round(statistics.median(rates["straight"]))
            self.numbers[f"router_{name}_rps"] = round(statistics.median(rates["through"]))
            _line(
                f"router, {name} ({path}), requests/s", rates["straight"], rates["through"], ratios
            )
        self.forget(slug)

    def pages(self) -> None:
        """The control plane's own pages, through the router, signed in."""
        slug = self.slug()
        self.customer.create(slug)
        paths = ("/workspaces/", "/workspaces/new/", f"/workspaces/{slug}/", "/account/")
        times = []
        for path in paths * PAGES:
            get = partial(self.customer.http.get, f"{self.url}{path}")
            started = time.monotonic()
            get().raise_for_status()
            times.append((time.monotonic() - started) * 1000)
        p95 = statistics.quantiles(times, n=20)[-1]
        self.numbers["pages_p95_ms"] = round(p95, 1)
        self.numbers["pages_median_ms"] = round(statistics.median(times), 1)
        print(f"{'own pages, ms':44}  median {statistics.median(times):8.1f}   p95 {p95:8.1f}")
        self.forget(slug)

    def api(self) -> None:
        """How soon a wait returns, and what reading costs among ten thousand workspaces."""
        client = ApiClient(self.user, self.url)
        slug = self.slug()
        times = wait_latencies(client, slug, ROUNDS)
        self.numbers["api_wait_ms"] = round(statistics.median(times), 1)
        print(f"{'change of status → its wait returns, ms':44}  {'':33} ours {_spread(times)}")
        self.forget(slug)
        operator = customers.make_user()
        User.objects.filter(pk=operator.pk).update(is_staff=True, is_superuser=True)
        for name, who, more in (("customer", self.user, ()), ("operator", operator, ("operator",))):
            with many_workspaces(who) as slugs:
                reader = ApiClient(User.objects.get(pk=who.pk), self.url, *more)
                for what, paths in (
                    ("list", ["/workspaces", "/workspaces?status=stopped&q=many"] * (READS // 2)),
                    ("get", [f"/workspaces/{slug}" for slug in slugs[:READS]]),
                ):
                    p95 = p95_of(reader, paths)
                    self.numbers[f"api_{what}_{name}_p95_ms"] = round(p95, 1)
                    title = f"API, {what} among {MANY:,} ({name}), ms"
                    print(f"{title:44}  p95 {p95:8.1f}", flush=True)

    # --- keeping house -----------------------------------------------------------------------

    def report(  # noqa: PLR0917 - a row of the table
        self,
        title: str,
        floor_name: str,
        floors: list[float],
        our_name: str,
        ours: list[float],
        unit: str = "ms",
    ) -> None:
        """Print a pair with its ratios and keep its medians."""
        ratios = [a / b for a, b in zip(ours, floors, strict=True)]
        digits = 0 if unit == "ms" else 2
        self.numbers[f"{floor_name}_{unit}"] = round(statistics.median(floors), digits)
        self.numbers[f"{our_name}_{unit}"] = round(statistics.median(ours), digits)
        self.numbers[f"{our_name}_ratio"] = round(statistics.median(ratios), 3)
        _line(title, floors, ours, ratios)

    def forget(self, slug: str) -> None:
        """Delete a workspace at once, and go on without waiting for it to be gone."""
        workspace = Workspace.objects.get(slug=slug, purged_at=None)
        lifecycle.want_absent(workspace.instance_id, timezone.now())
        Workspace.objects.filter(pk=workspace.pk).update(
            deleted_at=timezone.now(), purged_at=timezone.now()
        )
        customers.wait_for_purge(workspace)


def _busy() -> tuple[float, float]:
    """Return the seconds that the processors worked, and all seconds, since the machine started."""
    ticks = [int(number) for number in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def settle() -> None:
    """Wait until the machine has nothing to do: the kernel goes on tidying up after containers.

    Otherwise whoever is measured next would pay for whoever was measured before.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        busy, total = _busy()
        time.sleep(0.3)
        busy_now, total_now = _busy()
        if busy_now - busy < SETTLED * (total_now - total):
            return


def _timed(act: Callable[[], None]) -> float:
    settle()
    started = time.monotonic()
    act()
    return time.monotonic() - started


def _spread(values: Sequence[float]) -> str:
    digits = 2 if max(values) < 100 else 0
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:8.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _line(title: str, floors: list[float], ours: list[float], ratios: list[float]) -> None:
    print(
        f"{title:44}  bare {_spread(floors):28} ours {_spread(ours):28} "
        f"ratio {statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


def main() -> None:
    """Measure, print, and write var/bench.json."""
    customers.resolve_localhost()
    only = sys.argv[1:]
    bench = Bench(os.environ["BENCH_URL"])
    print(f"\n{os.cpu_count()} cores, image {bench.image}; medians (min to max)\n")
    try:
        bench.wait_for_spares()
        for name, measure in bench.measurements().items():
            if not only or name in only:
                measure()
    finally:
        floor.clean_up(bench.client, bench.label)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(bench.numbers, indent=2) + "\n")
    print(
        f"\nwritten to {OUTPUT.relative_to(Path.cwd())}"
        if OUTPUT.is_relative_to(Path.cwd())
        else ""
    )


main()
