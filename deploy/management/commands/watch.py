"""`manage.py watch`: the watcher process."""

import signal
import sys
import threading
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand

from deploy import watcher


class Command(BaseCommand):
    """Listen to the container engine and have changes looked at."""

    help = "Listen to the container engine and have changes looked at, until told to stop."

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()

        def leave(number: int, frame: FrameType | None) -> None:
            stop.set()
            sys.exit(0)

        signal.signal(signal.SIGTERM, leave)
        try:
            watcher.watch(stop)
        except KeyboardInterrupt:
            return
