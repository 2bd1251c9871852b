"""`manage.py render_router`: write the router's nginx configuration and the pages that it shows."""

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from deploy.router import NotSafe, RouterConfig, render
from workspaces import gateway_pages
from workspaces.gateway import Verdict
from workspaces.handoff import PATHS
from workspaces.handoff_tokens import SESSION_COOKIE, START, STATE_COOKIE


def write(path: Path, text: str, mode: int) -> None:
    """Write a file in one piece: nobody ever reads half of it."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    new.chmod(mode)
    new.replace(path)


def config() -> RouterConfig:
    """Return the router's configuration as the settings have it."""
    return RouterConfig(
        listen=settings.ROUTER_LISTEN,
        redirect_listen=settings.ROUTER_REDIRECT_LISTEN,
        web=settings.WEB_LISTEN,
        waiting=settings.WAITING_LISTEN,
        secret=settings.ROUTER_SECRET,
        cloud_url=settings.CLOUD_URL,
        cloud_netloc=urlsplit(settings.CLOUD_URL).netloc,
        cloud_host=settings.CLOUD_HOST,
        apps_domain=settings.APPS_DOMAIN,
        apps_host=settings.APPS_HOST,
        scheme=settings.SCHEME,
        directory=settings.RUN_DIR / "router",
        session_cookie=SESSION_COOKIE,
        state_cookie=STATE_COOKIE,
        private_cookies=[
            SESSION_COOKIE,
            STATE_COOKIE,
            settings.SESSION_COOKIE_NAME,
            settings.CSRF_COOKIE_NAME,
        ],
        handoff_paths=PATHS,
        sign_in_path=START,
        sign_in_verdict=Verdict.SIGN_IN,
        pages=gateway_pages.PAGES,
        modules=settings.ROUTER_MODULES,
        user=settings.ROUTER_USER,
        group=settings.ROUTER_GROUP or settings.ROUTER_USER,
        local=settings.LOCAL,
        certificate=settings.ROUTER_CERTIFICATE,
        certificate_key=settings.ROUTER_CERTIFICATE_KEY,
        apps_certificate=settings.ROUTER_APPS_CERTIFICATE,
        apps_certificate_key=settings.ROUTER_APPS_CERTIFICATE_KEY,
        trusted_proxies=settings.ROUTER_TRUSTED_PROXIES,
        access_log=settings.ROUTER_ACCESS_LOG,
        hsts_seconds=settings.SECURE_HSTS_SECONDS,
        gateway_seconds=int(settings.WAKE_HOLD_SECONDS) + 15,
    )


class Command(BaseCommand):
    """Everything in it comes from the settings; run it again when one of them changes."""

    help = (
        "Write the router's nginx configuration, and below RUN_DIR/router the pages that it shows. "
        "Start it with: nginx -c FILE -g 'daemon off;'"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--output", metavar="FILE", required=True, type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        output = Path(options["output"]).absolute()
        router = config()
        try:
            text = render(router)
        except NotSafe as problem:
            raise CommandError(str(problem)) from problem
        pages = router.directory / "pages"
        for directory in (router.directory, pages, router.directory / "temp"):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o755)
        for name, page in gateway_pages.files().items():
            write(pages / name, page, 0o644)
        output.parent.mkdir(parents=True, exist_ok=True)
        # The router's secret is in it.
        write(output, text, 0o600)
        self.stdout.write(f"The router's configuration is in {output}.")
