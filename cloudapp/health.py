"""Is the product usable right now?"""

from django.db import DatabaseError
from django.http import HttpRequest, JsonResponse

from deploy.models import Image


def healthz(request: HttpRequest) -> JsonResponse:
    """Answer 200 once a person can use the product: the database and an image are there."""
    try:
        ready = Image.objects.filter(state=Image.State.READY).exists()
    except DatabaseError:
        return JsonResponse({"status": "down", "cause": "the database does not answer"}, status=503)
    if not ready:
        cause = "no workspace image is ready: run `manage.py build_image`"
        return JsonResponse({"status": "starting", "cause": cause}, status=503)
    return JsonResponse({"status": "ok"})
