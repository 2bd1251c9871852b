"""All settings, from the environment. Every name is explained in docs/configuration.md.

A secret may also be given as a file: NAME_FILE is the path of a file that holds it.
"""

import tempfile
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import environ
from csp.constants import NONE, SELF
from kombu import Queue

from cloudapp.machine import group_of, listen_addresses, unprivileged_user
from cloudapp.safety import refuse_unsafe

env = environ.FileAwareEnv()

BASE_DIR = Path(__file__).resolve().parent.parent

# --- what everything else hangs on -----------------------------------------------------------

DEBUG: bool = env.bool("DEBUG", default=False)
# A person's own machine: plain http and one site are fine there, on localhost names only.
LOCAL: bool = env.bool("LOCAL", default=False)
SECRET_KEY: str = env.str("SECRET_KEY", default="only-for-debugging" if DEBUG else "").strip()
SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", default=[])
# What customers' secrets are encrypted with: the first encrypts, all decrypt.
# Empty, or nothing but commas, is as if left out: it must not mean a key that everybody knows.
ENCRYPTION_KEYS: list[str] = [
    key.strip() for key in env.list("ENCRYPTION_KEYS", default=[]) if key.strip()
] or [SECRET_KEY, *SECRET_KEY_FALLBACKS]
ROUTER_SECRET: str = env.str("ROUTER_SECRET", default="").strip()

CLOUD_URL: str = env.str("CLOUD_URL", default="http://localhost:8000").rstrip("/")
APPS_DOMAIN: str = env.str("APPS_DOMAIN", default="localhost:8000").strip(".")
SCHEME: str = urlsplit(CLOUD_URL).scheme
SECURE: bool = SCHEME == "https"
CLOUD_HOST: str = urlsplit(CLOUD_URL).hostname or ""
APPS_HOST: str = APPS_DOMAIN.rsplit(":", 1)[0]

# The router passes the workspace hosts' sign-in pages to Django too, hence the second entry.
ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", default=[CLOUD_HOST, f".{APPS_HOST}"])
CSRF_TRUSTED_ORIGINS = [CLOUD_URL]

STATE_DIR = Path(env.str("STATE_DIR", default=str(BASE_DIR / "var")))
RUN_DIR = Path(env.str("RUN_DIR", default=str(Path(tempfile.gettempdir()) / "cloudapp")))

# --- the program -----------------------------------------------------------------------------

INSTALLED_APPS = [
    "cloudapp.apps.CloudappConfig",
    "accounts.apps.AccountsConfig",
    "workspaces.apps.WorkspacesConfig",
    "deploy.apps.DeployConfig",
    "workspaces.apps.OperatorsConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.google",
    "allauth.mfa",
    "allauth.usersessions",
    "csp",
]

MIDDLEWARE = [
    "cloudapp.middleware.RequestMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "accounts.middleware.SessionsMiddleware",
]

ROOT_URLCONF = "cloudapp.urls"
WSGI_APPLICATION = "cloudapp.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
FORMAT_MODULE_PATH = "cloudapp.formats"
USE_TZ = True

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "cloudapp" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "cloudapp.context.site",
            ],
        },
    }
]

# --- stores: Postgres is the truth, Redis only wakes people up ---------------------------------

DATABASES = {"default": env.db_url("DATABASE_URL", default="postgres:///cloudapp")}
# libpq's own spelling of a socket directory, postgres://%2Frun%2Fdir/name, works too.
DATABASES["default"]["HOST"] = unquote(DATABASES["default"]["HOST"])
DATABASES["default"]["ENGINE"] = "cloudapp.postgres"
# Threads share a few connections instead of keeping one each.
DATABASES["default"].setdefault("OPTIONS", {})["pool"] = {
    "min_size": 1,
    "max_size": env.int("DATABASE_POOL", default=20),
    "timeout": 10,
}
REDIS_URL: str = env.str("REDIS_URL", default="redis://localhost:6379/0")

# Rate limits live here. In Postgres, so that losing Redis never locks people out or lets them in.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "cache",
        # Beyond this many rows the oldest go, expired or not. With Django's default of 300 an
        # attacker could push the count of their own attempts out by trying many addresses.
        "OPTIONS": {"MAX_ENTRIES": 20_000},
    }
}

CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 600,
    "socket_keepalive": True,
    # A wake-up call that cannot be sent is given up at once: somebody's request waits for it.
    "socket_connect_timeout": 1,
    "socket_timeout": 2,
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.1,
    "interval_max": 0.1,
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_PUBLISH_RETRY = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_TIMEZONE = TIME_ZONE
# Work that a person waits for never queues behind work that nobody watches, and neither behind
# builds, which take minutes, nor behind what waits for other people's machines.
# So many minutes may pass until a beat that was put into it comes through: what is before it may
# take so long. Longer, and nobody works it off.
QUEUE_MINUTES = {"now": 2, "outside": 5, "later": 10, "builds": 30}
CELERY_TASK_QUEUES = [Queue(name) for name in QUEUE_MINUTES]
CELERY_TASK_DEFAULT_QUEUE = "now"
CELERY_TASK_ROUTES = {
    "deploy.tasks.reconcile": {"queue": "now"},
    "deploy.tasks.sweep": {"queue": "now"},
    "deploy.tasks.fetch_log": {"queue": "now"},
    "workspaces.tasks.build_releases": {"queue": "builds"},
    "workspaces.tasks.lock_approval": {"queue": "builds"},
    "workspaces.tasks.read_plugin": {"queue": "builds"},
    "workspaces.tasks.run_change": {"queue": "builds"},
    "workspaces.tasks.send_webhook": {"queue": "outside"},
    "workspaces.tasks.send_mail": {"queue": "outside"},
    "*": {"queue": "later"},
}
SWEEP_SECONDS: float = env.float("SWEEP_SECONDS", default=10.0)
# How soon a task that was lost is sent again, and a dead worker's change taken up.
TAKE_UP_SECONDS: float = env.float("TAKE_UP_SECONDS", default=15.0)
SPARES_SECONDS: float = env.float("SPARES_SECONDS", default=5.0)
# How often it is looked for workspaces whose limits are not those of their plan.
PLAN_CHECK_SECONDS: float = env.float("PLAN_CHECK_SECONDS", default=15.0)
# How often what runs is asked how much it uses, and for how long that is kept.
DISK_CHECK_SECONDS: float = env.float("DISK_CHECK_SECONDS", default=60.0)
USAGE_DAYS: int = env.int("USAGE_DAYS", default=30)
CELERY_BEAT_SCHEDULE = {
    "sweep": {
        "task": "deploy.tasks.sweep",
        "schedule": SWEEP_SECONDS,
        "options": {"expires": SWEEP_SECONDS},
    },
    "put-idle-to-sleep": {
        "task": "deploy.tasks.put_idle_to_sleep",
        "schedule": env.float("IDLE_CHECK_SECONDS", default=30.0),
        "options": {"expires": 30},
    },
    "measure": {
        "task": "deploy.tasks.measure",
        "schedule": DISK_CHECK_SECONDS,
        "options": {"expires": DISK_CHECK_SECONDS},
    },
    "follow-plans": {
        "task": "workspaces.tasks.follow_plans",
        "schedule": PLAN_CHECK_SECONDS,
        "options": {"expires": PLAN_CHECK_SECONDS},
    },
    "keep-spares": {
        "task": "workspaces.tasks.keep_spares",
        "schedule": SPARES_SECONDS,
        "options": {"expires": SPARES_SECONDS},
    },
    "look-at-host": {
        "task": "deploy.tasks.look_at_host",
        "schedule": 60.0,
        "options": {"expires": 60},
    },
    # Each says by a row that its queue is worked off: see workspaces.attention.
    **{
        f"beat-of-{queue}": {
            "task": "deploy.tasks.beat_of",
            "args": [queue],
            "schedule": 20.0,
            # It waits its turn: with a backlog, and still in time, the queue is worked off.
            "options": {"queue": queue, "expires": 60 * minutes},
        }
        for queue, minutes in QUEUE_MINUTES.items()
    },
    "take-up": {
        "task": "workspaces.tasks.take_up",
        "schedule": TAKE_UP_SECONDS,
        "options": {"expires": TAKE_UP_SECONDS},
    },
    "run-rollouts": {
        "task": "workspaces.tasks.run_rollouts",
        "schedule": 15.0,
        "options": {"expires": 15},
    },
    "look-for-newer-plugins": {
        "task": "workspaces.tasks.look_for_newer",
        "schedule": 86400.0,
        "options": {"expires": 3600},
    },
    "prune-images": {
        "task": "workspaces.tasks.prune_images",
        "schedule": 3600.0,
        "options": {"expires": 3600},
    },
    "clear-expired": {
        "task": "workspaces.tasks.clear_expired",
        "schedule": 3600.0,
        "options": {"expires": 3600},
    },
}

# --- how much people may ask for -----------------------------------------------------------------

# Of one API token, and four times as many of all that a user has; a burst may use all at once.
API_REQUESTS_PER_MINUTE: int = env.int("API_REQUESTS_PER_MINUTE", default=600)
# Of one user, beside what the plan allows to have.
CREATIONS_PER_HOUR: int = env.int("CREATIONS_PER_HOUR", default=30)
# How long an invitation's link is good.
INVITATION_DAYS: int = env.int("INVITATION_DAYS", default=7)
# Nobody sends spam by us: so many invitations may be open in one workspace, and so many mails with
# one may one person have sent in a day.
INVITATIONS_OPEN: int = env.int("INVITATIONS_OPEN", default=50)
INVITATIONS_PER_DAY: int = env.int("INVITATIONS_PER_DAY", default=50)
# How many requests of one process may wait for something to come true, and of one user.
API_HOLDS: int = env.int("API_HOLDS", default=12)
API_HOLDS_PER_USER: int = env.int("API_HOLDS_PER_USER", default=20)

# --- instances: where and how customers' containers run ----------------------------------------

NAMESPACE: str = env.str("NAMESPACE", default="cloudapp")
DOCKER_HOST: str = env.str("DOCKER_HOST", default="unix:///var/run/docker.sock")
ENDPOINT_HOST: str = env.str("ENDPOINT_HOST", default="127.0.0.1")
CONTAINER_RUNTIME: str = env.str("CONTAINER_RUNTIME", default="runc")
ENDPOINT_KIND: str = env.str("ENDPOINT_KIND", default="unix")
START_SLOTS: int = env.int("START_SLOTS", default=0)
START_TIMEOUT_SECONDS: float = env.float("START_TIMEOUT_SECONDS", default=60.0)
# A new plugin set that does not answer for so long is rolled back. Less than WAKE_HOLD_SECONDS, so
# that nobody who asks meanwhile gets more than a slow answer.
SWITCH_SECONDS: float = env.float("SWITCH_SECONDS", default=12.0)
# Of one workspace: builds take turns, and nobody may have all of them.
CHANGES_PER_HOUR: int = env.int("CHANGES_PER_HOUR", default=20)
# How long an operator's approval of a plugin is good; 0: for ever.
APPROVAL_DAYS: int = env.int("APPROVAL_DAYS", default=365)
STOP_TIMEOUT_SECONDS: int = env.int("STOP_TIMEOUT_SECONDS", default=30)
LEASE_SECONDS: float = env.float("LEASE_SECONDS", default=30.0)
DELETE_GRACE_SECONDS: int = env.int("DELETE_GRACE_SECONDS", default=7 * 86400)
ORPHAN_GRACE_SECONDS: int = env.int("ORPHAN_GRACE_SECONDS", default=3600)
WAKE_HOLD_SECONDS: float = env.float("WAKE_HOLD_SECONDS", default=20.0)

# --- webhooks ----------------------------------------------------------------------------------

# Networks beside the public internet that customers may have something sent to.
WEBHOOK_ALLOWED_NETWORKS = [
    ip_network(network) for network in env.list("WEBHOOK_ALLOWED_NETWORKS", default=[])
]

# --- the router: nginx, and what it asks --------------------------------------------------------

# How many requests of one web process may wait for instances; the others answer meanwhile.
WAKE_HOLDS: int = env.int("WAKE_HOLDS", default=8)
WEB_LISTEN: str = env.str("WEB_LISTEN", default=f"unix:{RUN_DIR / 'web.sock'}")
# Requests of the API that wait have a process with many threads, so that no page waits for one.
WAITING_LISTEN: str = env.str("WAITING_LISTEN", default=f"unix:{RUN_DIR / 'waiting.sock'}")
# What brings Lua to Debian's nginx; OpenResty has it built in.
ROUTER_MODULES: list[str] = env.list(
    "ROUTER_MODULES",
    default=["modules/ndk_http_module.so", "modules/ngx_http_lua_module.so"],
)
# nginx's workers need no rights of ours; the group gets them past the sockets' directory.
ROUTER_USER: str = env.str("ROUTER_USER", default=unprivileged_user())
ROUTER_GROUP: str = env.str("ROUTER_GROUP", default=group_of(ROUTER_USER))
ROUTER_CERTIFICATE: str = env.str("ROUTER_CERTIFICATE", default="")
ROUTER_CERTIFICATE_KEY: str = env.str("ROUTER_CERTIFICATE_KEY", default="")
ROUTER_APPS_CERTIFICATE: str = env.str("ROUTER_APPS_CERTIFICATE", default=ROUTER_CERTIFICATE)
ROUTER_APPS_CERTIFICATE_KEY: str = env.str(
    "ROUTER_APPS_CERTIFICATE_KEY", default=ROUTER_CERTIFICATE_KEY
)
ROUTER_LISTEN: list[str] = env.list(
    "ROUTER_LISTEN",
    default=listen_addresses(CLOUD_URL, only_loopback=LOCAL, tls=bool(ROUTER_CERTIFICATE)),
)
ROUTER_REDIRECT_LISTEN: list[str] = env.list("ROUTER_REDIRECT_LISTEN", default=["80", "[::]:80"])
ROUTER_TRUSTED_PROXIES: list[str] = env.list("ROUTER_TRUSTED_PROXIES", default=[])
ROUTER_ACCESS_LOG: str = env.str("ROUTER_ACCESS_LOG", default="/dev/stdout")

# --- who is this? ------------------------------------------------------------------------------

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/workspaces/"

ALLAUTH_TRUSTED_CLIENT_IP_HEADER = "X-Real-IP"
ACCOUNT_ADAPTER = "accounts.adapters.AccountAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_USER_MODEL_EMAIL_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_FORMS = {
    "signup": "accounts.forms.SignupForm",
    "change_password": "accounts.forms.ChangePasswordForm",
    "reset_password": "accounts.forms.ResetPasswordForm",
    "reset_password_from_key": "accounts.forms.ResetPasswordKeyForm",
}
# Nobody learns from our answers who has an account here. "strict" also lets several people claim
# the same address until one of them has verified it: see accounts/addresses.py.
ACCOUNT_PREVENT_ENUMERATION = "strict"
# How often in how long, for one client address (ip), one email address (key) or one user.
ACCOUNT_RATE_LIMITS = {
    "login": "30/m/ip",
    "login_failed": "10/m/ip,5/5m/key",
    "signup": "20/m/ip",
    "confirm_email": "3/3m/key",
    "reset_password": "20/m/ip,5/m/key",
    "reset_password_from_key": "20/m/ip",
    "reauthenticate": "10/m/user",
    "change_password": "5/m/user",
    "manage_email": "10/m/user",
}
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION = True
ACCOUNT_LOGOUT_REDIRECT_URL = "/"
ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE = False
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_MAX_EMAIL_ADDRESSES = 5
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_DEFAULT_HTTP_PROTOCOL = SCHEME

SOCIALACCOUNT_ADAPTER = "accounts.adapters.SocialAccountAdapter"
SOCIALACCOUNT_FORMS = {"signup": "accounts.forms.GoogleSignupForm"}
SOCIALACCOUNT_LOGIN_ON_GET = False
SOCIALACCOUNT_EMAIL_AUTHENTICATION = False
SOCIALACCOUNT_STORE_TOKENS = False
GOOGLE_CLIENT_ID: str = env.str("GOOGLE_CLIENT_ID", default="")
GOOGLE_CLIENT_SECRET: str = env.str("GOOGLE_CLIENT_SECRET", default="").strip()
# Another OpenID Connect provider may stand in for Google; its discovery document says where.
GOOGLE_ISSUER_URL: str = env.str("GOOGLE_ISSUER_URL", default="https://accounts.google.com").rstrip(
    "/"
)
GOOGLE_ORIGIN: str = "{0.scheme}://{0.netloc}".format(urlsplit(GOOGLE_ISSUER_URL))
SOCIALACCOUNT_PROVIDERS: dict[str, dict[str, Any]] = {
    "google": {
        "provider_class": "accounts.google.provider.GoogleProvider",
        "SCOPE": ["openid", "profile", "email"],
        "OAUTH_PKCE_ENABLED": True,
        "APPS": [{"client_id": GOOGLE_CLIENT_ID, "secret": GOOGLE_CLIENT_SECRET}]
        if GOOGLE_CLIENT_ID
        else [],
    }
}

MFA_ADAPTER = "accounts.adapters.MFAAdapter"
MFA_FORMS = {"add_webauthn": "accounts.forms.AddKeyForm"}
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "cloudapp"
USERSESSIONS_ADAPTER = "accounts.adapters.SessionsAdapter"
USERSESSIONS_TRACK_ACTIVITY = True  # by accounts.middleware

# --- cookies, headers, files, mail, logs ---------------------------------------------------------

# The session in Postgres: ending it closes the doors of the workspaces too.
SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_COOKIE_SECURE: bool = env.bool("SESSION_COOKIE_SECURE", default=SECURE)
CSRF_COOKIE_SECURE: bool = env.bool("CSRF_COOKIE_SECURE", default=SECURE)
# __Host- cookies cannot be set from, or sent to, any other host.
SESSION_COOKIE_NAME = "__Host-session" if SESSION_COOKIE_SECURE else "cloudapp_session"
CSRF_COOKIE_NAME = "__Host-csrf" if CSRF_COOKIE_SECURE else "cloudapp_csrf"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = False  # the router redirects, before Django is asked
SILENCED_SYSTEM_CHECKS = ["security.W008"]  # it would have Django redirect
SECURE_HSTS_SECONDS: int = env.int("SECURE_HSTS_SECONDS", default=31536000 if SECURE else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE
SECURE_HSTS_PRELOAD = SECURE
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        # Signing in at a workspace and at Google ends in a redirect to another host.
        "form-action": [SELF, f"{SCHEME}://*.{APPS_DOMAIN}", GOOGLE_ORIGIN],
    }
}

STATIC_URL = "/static/"
STATIC_ROOT = Path(env.str("STATIC_ROOT", default=str(BASE_DIR / "staticfiles")))
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = DEBUG

DEFAULT_FROM_EMAIL: str = env.str("DEFAULT_FROM_EMAIL", default=f"cloudapp <no-reply@{CLOUD_HOST}>")
SERVER_EMAIL = DEFAULT_FROM_EMAIL
MAIL_DIR: str = env.str("MAIL_DIR", default="")
if MAIL_DIR:
    EMAIL_BACKEND = "cloudapp.mail.FileAndConsoleBackend"
    EMAIL_FILE_PATH = MAIL_DIR
else:
    vars().update(env.email_url("EMAIL_URL", default="consolemail://"))
# A mail server that says nothing must not keep a worker, or somebody who signs up, for ever.
EMAIL_TIMEOUT = 30

# What Prometheus shows to read /metrics; without it there is none.
METRICS_TOKEN: str = env.str("METRICS_TOKEN", default="").strip()

# json for programs, text for people.
LOG_FORMAT: str = env.str("LOG_FORMAT", default="text" if LOCAL or DEBUG else "json")
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {"()": "cloudapp.logs.JsonFormatter"},
        "text": {
            "()": "cloudapp.logs.TextFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s: %(message)s",
        },
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", default="INFO")},
    "loggers": {
        "django.server": {"level": "WARNING"},
        "celery": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        # A line for each request and each task: for following one, not for watching.
        "cloudapp.requests": {"level": "INFO" if LOG_FORMAT == "json" else "WARNING"},
        "cloudapp.tasks": {"level": "INFO" if LOG_FORMAT == "json" else "WARNING"},
    },
}

refuse_unsafe(globals())
