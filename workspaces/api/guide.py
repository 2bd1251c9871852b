"""How the API works, in words: read at /api/v1/docs, and in docs/api.md, which is made from it.

Paragraphs are plain text with `code` in backticks; a bullet is a line that begins with "- ".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings

from accounts import rates
from accounts.api_tokens import WORDS
from workspaces.api.door import MAX_KEY
from workspaces.services import KEYS_KEPT_PER_USER


@dataclass(frozen=True)
class Section:
    """A part of the guide; `anchor` is where links lead."""

    anchor: str
    title: str
    text: str


_SCOPES = "\n".join(f"- `{scope}`: {words}." for scope, words in WORDS.items())

SECTIONS: Sequence[Section] = (
    Section(
        "authentication",
        "Authentication",
        f"""
Every request carries a token: `Authorization: Bearer cloudapp_…`. Make your first one in the
browser, at `/account/tokens/`. A token can make others with `POST /tokens`, which can do no more
and live no longer than it does. Keep it as you keep a password: whoever has it can do what it can.

A token has scopes. It may end at a date, and it may be for one workspace only. It never can do more
than its user: roles in a workspace count as they do in the browser.

{_SCOPES}

What a token may not see does not exist for it: the answer is `not_found`, the same as for a slug
that nobody has.
""",
    ),
    Section(
        "errors",
        "Errors",
        """
Whatever goes wrong is answered with a problem document (RFC 9457, `application/problem+json`).
Scripts rely on `code`, which never changes its meaning; `detail` says for people what is wrong and
what to do. `type` is the address of the code's explanation. With `invalid`, `errors` names the
fields at fault, the first 20 of them. `request_id` is what the logs call this request, as in the
header `X-Request-ID` of every answer: tell it to the operators when something is wrong on our side.

A name in a body that we do not know is a mistake too, and refused: so a typing error is found at
once.
""",
    ),
    Section(
        "idempotency",
        "Asking twice",
        f"""
Send `Idempotency-Key` with a `POST`: any text of your own, at most {MAX_KEY} printable ASCII
characters, a new one for each new request. When the connection breaks, send the very same request
again: within 24 hours it gets the first answer, with `Idempotent-Replayed: true`, and nothing is
done twice. One that is still under way is waited for. The same key with another request is refused
with `key_reused`. An invalid request leaves no key behind: mend it and send it with the same one.
Of one person's keys the newest {KEYS_KEPT_PER_USER} are kept.
Answers are kept encrypted, as some hold a secret that is shown once.

`GET`, `PUT`, `PATCH` and `DELETE` can be sent again without one.
""",
    ),
    Section(
        "changes-by-others",
        "Changes by others",
        """
A workspace's answer has an `ETag`: the version of what can be set about it. Send it back in
`If-Match` with a change, and it is made only if nobody changed the workspace since you looked;
otherwise the answer is `changed_meanwhile`, and nothing happened.
""",
    ),
    Section(
        "waiting",
        "Waiting",
        """
What takes time is answered with 202 at once and goes on by itself.
`GET /workspaces/{slug}/wait?status=running` answers the moment it is so, and not at a timer's next
tick. `running` means that the workspace answers requests, not merely that it was started.

After `timeout` seconds (60 unless you say otherwise, 300 at most) the answer is `timeout`: ask
again to wait on. What cannot come true by itself is said at once, with `never` and what would make
it come true.
""",
    ),
    Section(
        "streaming",
        "Streaming",
        """
With `Accept: text/event-stream`, events and logs are streams of server-sent events. Each event of
a workspace has an `id`. When the connection breaks, send the last one that you have seen as
`Last-Event-ID`: the stream goes on behind it, and nothing in between is lost. A stream of the log
begins anew, with as many of its last lines as `tail` says.

At least every 15 seconds there is a comment, so silence longer than that means that the connection
is gone. When you may not see the workspace any more, the stream ends with an event named `end`,
whose data is a problem document.
""",
    ),
    Section(
        "pagination",
        "Pagination",
        """
Lists come in parts of `limit` items, newest first. `next` is the `cursor` of the part that follows,
and null at the end. A cursor names the last thing that you saw: what is added or removed meanwhile
makes you skip nothing and see nothing twice. Take it as it is; what is in it may change.
""",
    ),
    Section(
        "rates",
        "Rates",
        f"""
A token may ask {settings.API_REQUESTS_PER_MINUTE} times a minute, all at once or spread out, and
all tokens of a person together {rates.OF_A_PERSON} times as often. Every answer tells what is left
of the one that is used up more: `RateLimit: "requests";r=598;t=1`, where `r` is how many could
follow at once and `t` in how many seconds all are back. Beyond that the answer is
`too_many_requests` with `Retry-After`.

A person may have {settings.API_HOLDS_PER_USER} requests wait or stream at a time; beyond that the
answer is `too_many_waiting`.

New workspaces ({settings.CREATIONS_PER_HOUR} an hour) and changes of the plugins
({settings.CHANGES_PER_HOUR} an hour for each workspace) have rates of their own, as each costs
everybody a little. These are this installation's numbers; operators can set others.
""",
    ),
)
