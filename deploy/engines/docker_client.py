"""What everything that speaks to Docker shares: the client, its errors in our words, hardening.

Only `deploy/engines/docker*.py` import the docker SDK.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import docker
from docker.errors import APIError, DockerException
from docker.types import LogConfig, Ulimit
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from deploy.engines.base import EngineError, EngineRefused

USER = "10001:10001"
TIMEOUT_SECONDS = 60

# Whatever the client and what lies under it raise when the engine is away.
AWAY = (DockerException, RequestException, HTTPError, OSError)

P = ParamSpec("P")
R = TypeVar("R")


def client(url: str, timeout: int = TIMEOUT_SECONDS) -> docker.APIClient:
    """Return a client; it connects when it is first used, and threads may share it.

    The low-level client, for it says exactly what goes over the wire.
    """
    return docker.APIClient(url, version="auto", timeout=timeout, max_pool_size=64)


def translated(method: Callable[P, R]) -> Callable[P, R]:
    """Turn whatever the client raises into our errors: refused, or unknown."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except APIError as error:
            kind = EngineRefused if error.is_client_error() else EngineError
            raise kind(str(error.explanation or error)) from error
        except AWAY as error:
            raise EngineError(f"{type(error).__name__}: {error}") from error

    return call


def hardening(memory_mb: int, cpus: float, pids: int, runtime: str) -> dict[str, Any]:
    """Return what every container gets, whatever it is for: arguments of create_host_config."""
    memory = memory_mb * 1024 * 1024
    return {
        "runtime": runtime,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": pids,
        "mem_limit": memory,
        "memswap_limit": memory,  # no swap: a limit that can be sidestepped is none
        "nano_cpus": int(cpus * 1_000_000_000),
        "shm_size": 1024 * 1024,
        "ipc_mode": "private",
        # A crash would have the host keep the dump, wherever it keeps its own.
        "ulimits": [Ulimit(name="core", soft=0, hard=0)],
        "restart_policy": {"Name": "no"},
        "log_config": LogConfig(type="json-file", config={"max-size": "1m", "max-file": "2"}),
    }
