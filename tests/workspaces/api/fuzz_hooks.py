"""What Schemathesis must know about the API that no OpenAPI document can say.

It loads this file in a process of its own (see test_schemathesis.py). Nothing here leaves an
operation or a check out: waits are made short, the token that asks is not revoked, and the few
answers are named that are right although a check expects another one.
"""

import json
import os
import re
from itertools import count

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.core.transport import Response
from schemathesis.generation.case import Case
from schemathesis.hooks import HookContext
from schemathesis.openapi.checks import RejectedPositiveData, UseAfterFree

LONGEST_WAIT = 0.05
OWN_TOKEN = os.environ["FUZZ_OWN_TOKEN"]
ANOTHER_TOKEN = os.environ["FUZZ_ANOTHER_TOKEN"]
EXAMPLE_KEY = "2f1b7c1e-6a0d-4c0e-9b1f-5d3e8a7c6b21"
DELETED_LATER = re.compile(r"DELETE /api/v1/workspaces/[^/]+")
STREAM = "text/event-stream"
_numbers = count()
# Values that name something: a schema cannot say which things there are.
NAMES = {
    *("query.cursor", "body.plan", "body.workspace", "body.slug", "body.url", "body.email"),
    *("body.version", "body.release", "body.source", "body.target", "body.needs", "body.secrets"),
}


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, object]) -> None:
    """Wait for hundredths of a second, stream now and then, and do not revoke our own token."""
    if STREAM in _kinds_of_answer(case) and case.meta and case.meta.generation.mode.is_positive:
        _ask_for_a_stream(case)
    if any(parameter.name == "timeout" for parameter in case.operation.query):
        query = dict(case.query or {})
        if _is_long(query.get("timeout", 60)):
            case.query = {**query, "timeout": LONGEST_WAIT}
    key = (case.headers or {}).get("Idempotency-Key")
    if key == EXAMPLE_KEY:  # the same one for every request would only ever be `key_reused`
        case.headers["Idempotency-Key"] = f"{key}-{next(_numbers)}"
    if str((case.path_parameters or {}).get("token_id", "")) == OWN_TOKEN:
        case.path_parameters = {**case.path_parameters, "token_id": int(ANOTHER_TOKEN)}


def _kinds_of_answer(case: Case) -> set[str]:
    return set(case.operation.definition.raw["responses"].get("200", {}).get("content", {}))


def _ask_for_a_stream(case: Case) -> None:
    """Every fourth time; of what has happened already, so that there is something to read."""
    if next(_numbers) % 4 == 0:
        case.headers["Accept"] = STREAM
        case.path_parameters = {**case.path_parameters, "slug": "trees"}
        case.headers.pop("Last-Event-ID", None)
        case.query = {"after": 0}


def _is_long(timeout: object) -> bool:
    """Whether it is a time that the API takes, and more than we want to wait."""
    try:
        return LONGEST_WAIT < float(str(timeout)) <= 300
    except ValueError:
        return False


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
    """Keep each failure but those that are no mistakes."""
    if isinstance(failure, RejectedPositiveData):
        return not _names_what_is_not_there(response)
    if isinstance(failure, UseAfterFree):
        # A workspace is deleted days after it was asked for (202); until then it can be seen.
        return not DELETED_LATER.fullmatch(failure.free)
    return True


def _names_what_is_not_there(response: Response) -> bool:
    if response.status_code != 422:
        return False
    fields = {error["field"] for error in json.loads(response.content).get("errors", [])}
    return bool(fields) and fields <= NAMES
