"""Listen to the engine: what happens to a container behind our back is mended at once."""

import contextlib
import logging
import threading

from celery import current_app
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import Error, connection

from deploy import lifecycle
from deploy.engines import get_engine
from deploy.engines.base import EngineError

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
# A start is only ever ours; one from outside is found by the sweep.
TELLING = frozenset({"die", "oom", "destroy", "pause", "unpause"})


def watch(stop: threading.Event) -> None:
    """Poke instances as their containers change, until `stop` is set.

    Survives the engine, the database and the broker. Whoever sets `stop` in a signal's handler
    raises SystemExit as well, for this waits for news; where a library makes something else of
    that, it ends all the same.
    """
    while not stop.is_set():
        try:
            _listen(stop)
        except EngineError as error:
            logger.warning("the engine went away, trying again: %s", error)
        except Error as error:
            logger.warning("the database went away, trying again: %s", error)
        finally:
            connection.close()
        stop.wait(RETRY_SECONDS)


def _listen(stop: threading.Event) -> None:
    told = get_engine().events()
    logger.info("listening to the engine")
    # For whatever happened while nobody listened. Only now: nothing may fall in between.
    _ask_for_a_sweep()
    if stop.is_set():
        return
    for event in told:
        if event.action in TELLING:
            # A label that somebody else wrote may hold anything.
            with contextlib.suppress(ValidationError):
                lifecycle.poke(event.instance_id)
            connection.close()  # the pool knows better than we how it is by the next event
        if stop.is_set():
            return


def _ask_for_a_sweep() -> None:
    try:
        current_app.send_task("deploy.tasks.sweep", expires=settings.SWEEP_SECONDS)
    except Exception as error:  # whatever the broker's client raises: beat asks again soon
        logger.warning("no worker could be asked for a sweep: %s", error)
