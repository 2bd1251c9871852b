#!/usr/bin/env python
"""Django's command-line utility for administrative tasks."""

import os
import sys

from django.core.management import execute_from_command_line

from accounts import origin
from accounts.origin import Origin, Via

# It only listens, and what follows is nobody's deed.
MACHINERY = "watch"

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cloudapp.settings")
    if sys.argv[1:] and sys.argv[1] != MACHINERY:
        origin.begin(Origin(Via.COMMAND, sys.argv[1]))
    execute_from_command_line(sys.argv)
