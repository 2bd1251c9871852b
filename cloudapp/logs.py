"""How lines of logs look: JSON for programs, text for people, secrets in neither.

Each JSON line is an object with `time`, `level`, `logger`, `message`, what deploy.trace knows
(`request_id`, `workspace`, `task`, `task_id`, `instance`), and with an error its `traceback`.
"""

import json
import logging
import re
from datetime import UTC, datetime

from deploy import trace

# Defence in depth: nothing here should ever be given to a log, and libraries log what they like.
_SECRETS = re.compile(
    r"cloudapp_[0-9A-Za-z]{46}"  # api_tokens.PATTERN; no models are there yet
    r"|whsec_[A-Za-z0-9+/=]{8,}"
    r"|(?<=/account/confirm-email/)[^/\s\"']+"
    r"|(?<=/account/password/reset/key/)[^/\s\"']+"
    r"|(?<=/invitations/)[^/\s\"']{16,}"
    r"|(?<=[?&]code=)[^&\s\"']+"
    r"|(?<=://)[^/\s:@\"']*:[^/\s@\"']+(?=@)"
    r"|(?i:(?<=bearer )|(?<=cookie: )|(?<=password=)|(?<=secret=))[^\s,;\"']+"
)


def clean(text: str) -> str:
    """Return a text without what looks like one of our secrets."""
    return _SECRETS.sub("[removed]", text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": clean(record.getMessage()),
            **trace.fields(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["traceback"] = clean(self.formatException(record.exc_info))
        return json.dumps(told, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """What people read at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        request_id = trace.request_id()
        return clean(super().format(record)) + (f" [{request_id}]" if request_id else "")
