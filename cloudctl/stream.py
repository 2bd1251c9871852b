"""Streams of events (SSE), taken up again where they break, with nothing missed or doubled."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudctl.errors import Failure, Refused, Unreachable
from cloudctl.patience import WAITING_PATIENCE, Patience

if TYPE_CHECKING:
    from cloudctl.api import Api

# The server says that it is there every 15 s.
SILENCE_SECONDS = 40.0


@dataclass(frozen=True)
class Message:
    """One message: `id` and `kind` are empty where the server gave none."""

    data: str
    id: str = ""
    kind: str = ""


def lines_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """Cut bytes into lines. Only at line ends of SSE: text may hold what Unicode calls one."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode(errors="replace")


def messages_of(lines: Iterable[str]) -> Iterator[Message]:
    """Read messages; comments are left out, and what was cut off at the end."""
    data: list[str] = []
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if data:
                yield Message("\n".join(data), fields.get("id", ""), fields.get("event", ""))
            data, fields = [], {}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        else:
            fields[name] = value


def follow(
    api: "Api",
    path: str,
    params: Mapping[str, Any] | None = None,
    *,
    last_id: str = "",
    again: Mapping[str, Any] | None = None,
) -> Iterator[Message]:
    """Return what a stream says, from behind the message `last_id`, until it is left.

    `again` is what to ask for once something was seen and it broke, where that is not `params`.
    Raises Refused when the server ends it, and Unreachable when it does not come back.
    """
    patience = Patience(WAITING_PATIENCE)
    while True:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        broken = "it ends its answers"
        try:
            with api.stream(path, params or {}, headers, SILENCE_SECONDS) as chunks:
                for message in messages_of(lines_of(chunks)):
                    if message.kind == "end":
                        raise _ended(message.data)
                    last_id, params = message.id or last_id, again or params
                    patience.refresh()
                    yield message
        except Unreachable as error:
            broken = error.detail
        except Refused as refusal:
            if refusal.code not in ("too_many_requests", "too_many_waiting"):
                raise
            broken = refusal.detail
        if not patience.wait():
            raise Unreachable(f"{api.url} cannot be reached any more: {broken}.")


def _ended(data: str) -> Failure:
    """Return why a server ended a stream: `data` is the problem that it sent."""
    try:
        found = json.loads(data)
    except json.JSONDecodeError:
        found = {}
    return Refused(found if isinstance(found, dict) else {})
