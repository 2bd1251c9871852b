"""Addresses under /api/v1/: the endpoints, each behind the door, and what describes them."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import URLPattern, re_path
from django.views.decorators.csrf import csrf_exempt
from ninja.errors import AuthenticationError, HttpError, ValidationError

from workspaces.api import reference
from workspaces.api.audit_routes import router as audit
from workspaces.api.callers import CHALLENGE
from workspaces.api.catalogue_routes import router as catalogue
from workspaces.api.door import door
from workspaces.api.live_routes import router as live
from workspaces.api.operator_routes import router as operators
from workspaces.api.people_routes import router as people
from workspaces.api.problems import Problem, of_refusal, of_validation
from workspaces.api.release_routes import router as releases
from workspaces.api.schema import Api
from workspaces.api.setup_routes import router as setup
from workspaces.api.waiting import HasLeft
from workspaces.api.webhook_routes import router as webhooks
from workspaces.api.workspace_routes import router as workspaces
from workspaces.services import Refused

api = Api(
    title="cloudapp",
    version="1",
    urls_namespace="api",
    docs_url=None,
    openapi_url=None,
    description=(
        "Everything that you can do to a workspace on its page, from a script. "
        "Send `Authorization: Bearer <token>`; make tokens at /account/tokens/."
    ),
)
for router in (workspaces, live, setup, people, audit, webhooks, operators, releases, catalogue):
    api.add_router("", router)


# --- errors --------------------------------------------------------------------------------------


@api.exception_handler(Problem)
def _problem(request: HttpRequest, error: Problem) -> HttpResponse:
    return error.response(request.path)


@api.exception_handler(Refused)
def _refused(request: HttpRequest, error: Refused) -> HttpResponse:
    return of_refusal(error).response(request.path)


@api.exception_handler(ValidationError)
def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    return of_validation(error.errors).response(request.path)


@api.exception_handler(AuthenticationError)
def _unknown(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    return Problem("not_signed_in", headers=CHALLENGE).response(request.path)


@api.exception_handler(HttpError)
def _unreadable(request: HttpRequest, error: HttpError) -> HttpResponse:
    return Problem("bad_request", str(error)).response(request.path)


@api.exception_handler(HasLeft)
def _left(request: HttpRequest, error: HasLeft) -> HttpResponse:
    return Problem("timeout", "The connection was closed.").response(request.path)


@api.exception_handler(Exception)
def _for_the_door(request: HttpRequest, error: Exception) -> HttpResponse:
    """What nobody expected, the door answers: it takes back what was half done."""
    raise error


# --- addresses -----------------------------------------------------------------------------------


def openapi(request: HttpRequest) -> HttpResponseBase:
    """The document that describes all of this, for programs."""
    return JsonResponse(api.get_openapi_schema(), json_dumps_params={"ensure_ascii": False})


@csrf_exempt
def nothing(request: HttpRequest) -> HttpResponse:
    """Say that nothing is at this address, in the form of the API."""
    words = "There is nothing at this address. /api/v1/docs lists what there is."
    return Problem("not_found", words).response(request.path)


def _behind_the_door() -> list[URLPattern]:
    patterns = [pattern for pattern in api.urls[0] if isinstance(pattern, URLPattern)]
    return [
        URLPattern(pattern.pattern, door(pattern.callback), pattern.default_args, pattern.name)
        for pattern in patterns
        if pattern.name != "api-root"
    ]


urlpatterns = [
    re_path(r"^openapi\.json$", openapi, name="api_openapi"),
    re_path(r"^docs$", reference.page(api.get_openapi_schema), name="api_docs"),
    *_behind_the_door(),
    re_path(r"", nothing, name="api_nothing"),
]
