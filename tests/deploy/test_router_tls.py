"""The router as in production: https with certificates, on two sites."""

import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloudapp.local.product import free_port
from tests.deploy.router_support import START_SECONDS, Stack

CLOUD = "cloud.example.org"
APPS = "apps.example.net"


def _certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """Make a self-signed certificate; return its path and its key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / f"{name.lstrip('*.')}.pem", directory / f"{name.lstrip('*.')}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


class Production(Stack):
    """nginx with certificates, and nobody behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.plain_port = free_port()
        cloud, cloud_key = _certificate(self.directory, CLOUD)
        apps, apps_key = _certificate(self.directory, f"*.{APPS}")
        del self.environment["LOCAL"]
        self.environment |= {
            "CLOUD_URL": f"https://{CLOUD}",
            "APPS_DOMAIN": APPS,
            "ROUTER_LISTEN": f"127.0.0.1:{self.port}",
            "ROUTER_REDIRECT_LISTEN": f"127.0.0.1:{self.plain_port}",
            "ROUTER_CERTIFICATE": str(cloud),
            "ROUTER_CERTIFICATE_KEY": str(cloud_key),
            "ROUTER_APPS_CERTIFICATE": str(apps),
            "ROUTER_APPS_CERTIFICATE_KEY": str(apps_key),
        }

    def start_web(self, program: str = "", **environment: str) -> None:
        """There is none."""

    def get(self, host: str, path: str = "/") -> httpx.Response:
        """Ask over https; the certificate must be the host's."""
        trusted = ssl.create_default_context()
        for name in (CLOUD, APPS):
            trusted.load_verify_locations(self.directory / f"{name}.pem")
        with httpx.Client(verify=trusted, timeout=START_SECONDS) as client:
            return client.get(
                f"https://127.0.0.1:{self.port}{path}",
                headers={"Host": host},
                extensions={"sni_hostname": host},
            )


@pytest.fixture(scope="module")
def production() -> Iterator[Production]:
    stack = Production()
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


@pytest.mark.parametrize("host", [CLOUD, f"cats.{APPS}"])
def test_each_site_has_its_certificate(host: str, production: Production) -> None:
    response = production.get(host)
    assert response.status_code == 503  # nobody is behind the router
    assert response.json()["status"] == "unavailable"


def test_a_name_of_nobodys_gets_no_certificate(production: Production) -> None:
    with pytest.raises(httpx.ConnectError, match=r"(?i)unrecognized.name"):
        production.get("evil.example")


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        (CLOUD, f"https://{CLOUD}/a?b=c"),
        (f"cats.{APPS}", f"https://cats.{APPS}/a?b=c"),
        ("evil.example", None),
    ],
)
def test_plain_http_is_led_to_https(host: str, answer: str | None, production: Production) -> None:
    url = f"http://127.0.0.1:{production.plain_port}/a?b=c"
    response = httpx.get(url, headers={"Host": host}, timeout=START_SECONDS)
    assert response.headers.get("Location") == answer
    assert response.status_code == (301 if answer else 404)


def test_cookies_are_for_one_host_only(production: Production) -> None:
    text = production.config.read_text()
    assert "__Host-cloudapp_workspace=(?<" in text
    assert "__Host-session" in text
    assert "max-age=31536000" in text


def test_a_certificate_without_its_key_is_told(production: Production, tmp_path: Path) -> None:
    environment = {**production.environment, "ROUTER_APPS_CERTIFICATE_KEY": ""}
    del environment["ROUTER_CERTIFICATE_KEY"]
    done = subprocess.run(
        [sys.executable, "manage.py", "render_router", "--output", str(tmp_path / "nginx.conf")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    assert "ROUTER_CERTIFICATE_KEY" in done.stderr
