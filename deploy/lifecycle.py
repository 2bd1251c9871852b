"""The only writer of an Instance's state.

Requests (`create`, `want_…`, `restart`, `change_spec`) come from anybody and raise the revision.
Reports (`Lease.…`) come from the worker that holds the lease, and write nothing when it no longer
does. Each write is one compare-and-swap with its event and its notification, in one transaction.
"""

import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q
from django.utils import timezone

from deploy import notify, wakeup
from deploy.engines.base import Observation
from deploy.models import Image, Instance, InstanceEvent
from deploy.states import DESIRED_AFTER, Desired, Observed, StopReason

FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 300.0


class NotAllowed(Exception):
    """The instance is in a state that this request may not follow. The text says why."""


class LeaseLost(Exception):
    """Another worker holds the instance now: stop, and write nothing."""
