"""Which slugs a workspace may have. A slug becomes a host name, so it is a strict DNS label."""

import re
import unicodedata

MIN_LENGTH = 3
MAX_LENGTH = 40
FALLBACK = "workspace"

# Names that people would take for ours, that browsers and mail treat specially, or that are
# addresses of the cloud pages.
_RESERVED_NAMES = """
about abuse access account accounts admin administrator api app apps auth autoconfig
autodiscover backup beta billing blog broadcasthost cdn cloud cloudapp console contact
dashboard datasette dev dns docs download email example favicon ftp gateway git healthz help
home host hostmaster http https imap info internal invalid isatap live local localdomain
localhost login logout mail mailer-daemon main metrics mx new news nobody noreply no-reply ns
ns1 ns2 oauth official operator operators owner plugins pop pop3 postmaster preview private
production public register registry robots root security service services settings shop
signin signout signup sites sitemap smtp ssh ssl staff stage staging static stats status
store support sysadmin system team test tls undefined update usenet user users webmail
webmaster well-known wiki workspace workspaces wpad www www1 www2 www3
"""
RESERVED = frozenset(_RESERVED_NAMES.split())

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


def problem(slug: str) -> str:
    """Return in words why nobody may have this slug; empty when it is fine."""
    problems = (
        (len(slug) < MIN_LENGTH, f"Use at least {MIN_LENGTH} characters."),
        (
            len(slug) > MAX_LENGTH,
            f"Use at most {MAX_LENGTH} characters; this has {len(slug)}.",
        ),
        (slug != slug.strip("-"), "It must begin and end with a letter or a digit."),
        (
            not _LABEL.fullmatch(slug),
            "Use only small letters a to z, digits, and hyphens between them.",
        ),
        ("--" in slug, "Use one hyphen at a time."),
        (slug in RESERVED, f"“{slug}” is reserved for the service itself."),
    )
    return next((words for wrong, words in problems if wrong), "")


def propose(name: str) -> str:
    """Return a slug that says what `name` says, as far as a host name can; always a valid one."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    plain = plain.replace("'", "")
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    slug = words[:MAX_LENGTH].rstrip("-") or f"my-{FALLBACK}"
    return f"{slug}-data" if problem(slug) else slug


def numbered(slug: str, number: int) -> str:
    """Return the slug with a number behind it, cut so that it still fits."""
    tail = f"-{number}"
    return slug[: MAX_LENGTH - len(tail)].rstrip("-") + tail
