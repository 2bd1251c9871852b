"""What must be true before the product may start outside of DEBUG.

Called at the end of settings.py, so that every process refuses: gunicorn, the workers and
manage.py alike. Each line names the setting and what to do.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured

MIN_SECRET = 32


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _same_site(one: str, other: str) -> bool:
    """Whether browsers may let two hosts share a cookie: their last two labels are alike.

    Under public suffixes of two labels (co.uk) this is stricter than browsers are, never laxer.
    """
    return one.split(".")[-2:] == other.split(".")[-2:]


def _secret_problems(settings: Mapping[str, Any]) -> Iterator[str]:
    for name in ("SECRET_KEY", "ROUTER_SECRET"):
        value = settings[name]
        if not value:
            how = f"set {name} or {name}_FILE to {MIN_SECRET} or more random characters"
            yield f"{name} is missing: {how}."
        elif len(value) < MIN_SECRET or len(set(value)) < 8 or value.startswith("django-insecure"):
            yield (
                f"{name} is too weak: make one with "
                "python -c 'import secrets; print(secrets.token_urlsafe(48))'"
            )


def _token_problems(settings: Mapping[str, Any]) -> Iterator[str]:
    if 0 < len(settings["METRICS_TOKEN"]) < MIN_SECRET:
        yield f"METRICS_TOKEN is too weak: use {MIN_SECRET} or more random characters, or none."


def _local_problems(settings: Mapping[str, Any]) -> Iterator[str]:
    for name in ("CLOUD_HOST", "APPS_HOST"):
        if not _is_loopback(settings[name]):
            yield f"LOCAL is on, but {settings[name]} is not a localhost name: leave LOCAL out."


def _public_problems(settings: Mapping[str, Any]) -> Iterator[str]:
    for name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE"):
        if not settings[name]:
            yield f"{name} is off: use an https:// CLOUD_URL and leave {name} out."
    if not settings["SECURE"]:
        yield "CLOUD_URL is not https: sign-in must not travel in clear text."
    if not settings["GOOGLE_ISSUER_URL"].startswith("https://"):
        yield "GOOGLE_ISSUER_URL is not https: anybody on the way could sign in as anybody."
    if _same_site(settings["CLOUD_HOST"], settings["APPS_HOST"]):
        yield (
            f"APPS_DOMAIN ({settings['APPS_HOST']}) is on the same site as CLOUD_URL "
            f"({settings['CLOUD_HOST']}): workspaces run customers' code, so serve them from "
            "another registered domain, where neither can touch the other's cookies."
        )


def problems(settings: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each setting that is not safe; none when DEBUG is on.

    `settings` maps the names of cloudapp.settings to their values.
    """
    found: list[str] = []
    if settings["ENDPOINT_KIND"] not in ("unix", "tcp"):
        found.append("ENDPOINT_KIND must be unix or tcp.")
    if settings["LOG_FORMAT"] not in ("json", "text"):
        found.append("LOG_FORMAT must be json or text.")
    if settings["DEBUG"]:
        return found
    found += _secret_problems(settings)
    found += _token_problems(settings)
    hosts = settings["ALLOWED_HOSTS"]
    if not hosts or any(host in ("*", ".") for host in hosts):
        found.append(
            "ALLOWED_HOSTS lets any host in: name the hosts, or leave it out and it follows "
            "CLOUD_URL and APPS_DOMAIN."
        )
    found += _local_problems(settings) if settings["LOCAL"] else _public_problems(settings)
    return found


def refuse_unsafe(settings: Mapping[str, Any]) -> None:
    """Raise ImproperlyConfigured that lists every problem, if there is one."""
    found = problems(settings)
    if found:
        raise ImproperlyConfigured(
            "cloudapp does not start:\n" + "\n".join(f"- {p}" for p in found)
        )
