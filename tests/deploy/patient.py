"""The web process, for tests of what it waits for: nobody is given up because a machine is busy."""

from cloudapp.wsgi import application
from workspaces import gateway

__all__ = ["application"]

gateway.NOTICE_SECONDS = 60.0
