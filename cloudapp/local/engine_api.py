"""The few calls to a container engine that setting up and cleaning up need.

The product itself talks to the engine through deploy/engines. This one is standard library only:
it asks whether an engine is there before anything is installed, and cleans up when the rest of
the product is already gone.
"""

import contextlib
import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from cloudapp.local.say import Failure

NAMESPACE_LABEL = "cloudapp.namespace"
DEFAULT_HOST = "unix:///var/run/docker.sock"


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _tls_context() -> ssl.SSLContext | None:
    """Return what DOCKER_TLS_VERIFY and DOCKER_CERT_PATH ask for, as the docker client does."""
    if not os.environ.get("DOCKER_TLS_VERIFY"):
        return None
    where = os.environ.get("DOCKER_CERT_PATH", os.path.expanduser("~/.docker"))
    context = ssl.create_default_context(cafile=os.path.join(where, "ca.pem"))
    context.load_cert_chain(os.path.join(where, "cert.pem"), os.path.join(where, "key.pem"))
    return context


class EngineApi:
    """An engine at a DOCKER_HOST (unix:// or tcp://)."""

    def __init__(self, host: str = DEFAULT_HOST) -> None:
        self.host = host
        self._parts = urlsplit(host)
        if self._parts.scheme not in ("unix", "tcp", "http", "https"):
            raise Failure(f"DOCKER_HOST is {host}: only unix:// and tcp:// addresses work here.")

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if self._parts.scheme == "unix":
            return _UnixConnection(self._parts.path, timeout)
        name, port = self._parts.hostname or "localhost", self._parts.port or 2375
        context = _tls_context()
        if context is None:
            return http.client.HTTPConnection(name, port, timeout=timeout)
        return http.client.HTTPSConnection(name, port, timeout=timeout, context=context)

    def call(self, method: str, path: str, timeout: float = 60) -> Any:
        """Return the engine's JSON answer, None when it has none.

        Raise OSError when nobody answers, Failure when the engine refuses.
        """
        with contextlib.closing(self._connect(timeout)) as connection:
            try:
                connection.request(method, path, headers={"Host": "docker"})
                answer = connection.getresponse()
                body = answer.read()
            except http.client.HTTPException as error:
                raise OSError(f"no proper answer from {self.host}: {error!r}") from error
        if answer.status >= 400:
            raise Failure(f"the engine refused {method} {path}: {body.decode(errors='replace')}")
        return json.loads(body) if body.strip() else None

    def version(self, timeout: float = 5) -> str | None:
        """Return the engine's version if it really answers, else None."""
        try:
            return str(self.call("GET", "/info", timeout)["ServerVersion"])
        except (OSError, Failure, KeyError, TypeError, ValueError):
            return None

    def _listed(self, kind: str, label: str) -> list[dict[str, Any]]:
        """Return what the engine has of one kind with this label."""
        filters = quote(json.dumps({"label": [label]}))
        everything = "&all=true" if kind == "containers" else ""
        path = "/containers/json" if kind == "containers" else f"/{kind}"
        found = self.call("GET", f"{path}?filters={filters}{everything}")
        return list((found["Volumes"] if kind == "volumes" else found) or [])

    def stop_containers(self, namespace: str, seconds: int = 10) -> int:
        """Stop the containers of one namespace, several at once; return how many there were."""
        found = [
            str(one["Id"])
            for one in self._listed("containers", f"{NAMESPACE_LABEL}={namespace}")
            if one["State"] in ("running", "paused", "restarting")
        ]
        self._each("POST", [f"/containers/{id}/stop?t={seconds}" for id in found], seconds + 30)
        return len(found)

    def remove_namespace(self, namespace: str) -> int:
        """Remove containers, volumes and networks of one namespace; return how many."""
        label = f"{NAMESPACE_LABEL}={namespace}"
        containers = [str(one["Id"]) for one in self._listed("containers", label)]
        self._each("DELETE", [f"/containers/{id}?force=true&v=true" for id in containers], 60)
        volumes = [str(one["Name"]) for one in self._listed("volumes", label)]
        self._each("DELETE", [f"/volumes/{quote(name)}?force=true" for name in volumes], 60)
        networks = [str(one["Id"]) for one in self._listed("networks", label)]
        self._each("DELETE", [f"/networks/{id}" for id in networks], 60)
        return len(containers) + len(volumes) + len(networks)

    def namespaces(self, prefix: str) -> dict[str, datetime]:
        """Return the namespaces that begin so, each with when its newest object was made."""
        newest: dict[str, datetime] = {}
        for kind in ("containers", "volumes", "networks"):
            for one in self._listed(kind, NAMESPACE_LABEL):
                namespace = str((one.get("Labels") or {}).get(NAMESPACE_LABEL, ""))
                if namespace.startswith(prefix):
                    made = _moment(one.get("Created") or one.get("CreatedAt"))
                    newest[namespace] = max(made, newest.get(namespace, made))
        return newest

    def _each(self, method: str, paths: Iterable[str], timeout: float) -> None:
        """Call each path; what has gone in the meantime is as good as done."""

        def call(path: str) -> None:
            with contextlib.suppress(Failure):
                self.call(method, path, timeout)

        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(call, paths))


def remove_namespaces(api: EngineApi, prefix: str) -> int:
    """Remove every namespace that begins so; return how many objects went."""
    return sum(api.remove_namespace(name) for name in api.namespaces(prefix))


def remove_leftovers(api: EngineApi, prefix: str, older_than: timedelta) -> int:
    """Remove namespaces of runs that must be dead by now; return how many objects went."""
    limit = datetime.now(UTC) - older_than
    found = api.namespaces(prefix)
    return sum(api.remove_namespace(name) for name, made in found.items() if made < limit)


def _moment(value: Any) -> datetime:
    """Read a time as the engine gives it: seconds, or text with nine digits of a second."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    text = str(value).replace("Z", "+00:00")
    if "." in text:
        head, tail = text.split(".", 1)
        digits = len(tail) - len(tail.lstrip("0123456789"))
        text = f"{head}.{tail[:digits][:6]:0<6}{tail[digits:]}"
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
