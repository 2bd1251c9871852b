"""A small OpenID Connect provider that signs real ID tokens, and can get each thing wrong.

Standard library, PyJWT and cryptography. It checks what a client must send (PKCE, the registered
redirect address, the client's secret, a code used once), so a client that forgets one fails here.
"""

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID = "cloudapp-test"
CLIENT_SECRET = "a secret between the two"


def new_key() -> rsa.RSAPrivateKey:
    """Return a key to sign with."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Person:
    """Who is signed in at the provider."""

    sub: str
    email: str
    email_verified: Any = True
    name: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Code:
    """What an authorization code stands for."""

    person: Person
    redirect_uri: str
    challenge: str
    nonce: str


class Provider:
    """The provider at `issuer`, until `close()`. Set `person` and `fault` as a test needs."""

    def __init__(self) -> None:
        self.key, self.wrong_key = new_key(), new_key()
        self.person = Person("1", "nobody@example.com")
        # "" or one of: issuer audience party nonce no_nonce state expired signature unsigned
        # hmac unknown_key no_token token_error denied
        self.fault = ""
        self.redirect_uri = ""
        self.requests: list[dict[str, str]] = []
        self.codes: dict[str, Code] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    # --- what it answers ---------------------------------------------------------------------

    def discovery(self) -> dict[str, str]:
        """The document at /.well-known/openid-configuration."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/certs",
        }

    def certs(self) -> dict[str, Any]:
        """The public key, as a JSON Web Key set."""
        jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**jwk, "kid": "one", "use": "sig", "alg": "RS256"}]}

    def authorize(self, query: dict[str, str]) -> str:
        """Return where to send the browser back to; ValueError says what the client forgot."""
        self.requests.append(query)
        expected = {
            "client_id": CLIENT_ID,
            "redirect_uri": self.redirect_uri,
            "response_type": "code",
            "code_challenge_method": "S256",
        }
        for name, value in expected.items():
            if query.get(name) != value:
                raise ValueError(f"{name} is {query.get(name)!r}, not {value!r}")
        for name in ("state", "nonce", "code_challenge"):
            if len(query.get(name, "")) < 16:
                raise ValueError(f"{name} is missing or short")
        state = "x" * 16 if self.fault == "state" else query["state"]
        if self.fault == "denied":
            return f"{self.redirect_uri}?{urlencode({'error': 'access_denied', 'state': state})}"
        code = secrets.token_urlsafe()
        self.codes[code] = Code(
            self.person, query["redirect_uri"], query["code_challenge"], query["nonce"]
        )
        return f"{self.redirect_uri}?{urlencode({'code': code, 'state': state})}"

    def token(self, form: dict[str, str]) -> dict[str, Any]:
        """Change a code for tokens; ValueError says why not."""
        code = self.codes.pop(form.get("code", ""), None)
        if code is None or self.fault == "token_error":
            raise ValueError("the code is unknown or used")
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            raise ValueError("the client is unknown")
        if form.get("redirect_uri") != code.redirect_uri:
            raise ValueError("the redirect address is another")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != code.challenge:
            raise ValueError("the code verifier does not fit")
        answer = {"access_token": secrets.token_urlsafe(), "token_type": "Bearer"}
        if self.fault != "no_token":
            answer["id_token"] = self.id_token(code)
        return answer

    def id_token(self, code: Code) -> str:
        """A signed ID token, with the one fault that is asked for."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "azp": CLIENT_ID,
            "sub": code.person.sub,
            "iat": now,
            "exp": now + 300,
            "nonce": code.nonce,
            "email": code.person.email,
            "email_verified": code.person.email_verified,
            "name": code.person.name,
            **code.person.extra,
        }
        match self.fault:
            case "issuer":
                claims["iss"] = "https://accounts.example.com"
            case "audience":
                claims["aud"] = "another-client"
            case "party":
                claims.update(aud=[CLIENT_ID, "another-client"], azp="another-client")
            case "nonce":
                claims["nonce"] = secrets.token_urlsafe(32)
            case "no_nonce":
                del claims["nonce"]
            case "expired":
                claims.update(iat=now - 900, exp=now - 600)
        return self._sign(claims)

    def _sign(self, claims: dict[str, Any]) -> str:
        headers = {"kid": "two" if self.fault == "unknown_key" else "one"}
        if self.fault == "unsigned":
            return jwt.encode(claims, None, algorithm="none", headers=headers)
        if self.fault == "hmac":
            return jwt.encode(claims, CLIENT_SECRET * 2, algorithm="HS256", headers=headers)
        key = self.wrong_key if self.fault == "signature" else self.key
        return jwt.encode(claims, key, algorithm="RS256", headers=headers)


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == "/.well-known/openid-configuration":
                self.answer_json(200, provider.discovery())
            elif url.path == "/certs":
                self.answer_json(200, provider.certs())
            elif url.path == "/authorize":
                self.authorize(_flat(url.query))
            else:
                self.answer(404, "text/plain", "not here")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            try:
                self.answer_json(200, provider.token(_flat(body)))
            except ValueError as error:
                self.answer_json(400, {"error": "invalid_grant", "error_description": str(error)})

        def authorize(self, query: dict[str, str]) -> None:
            try:
                back = provider.authorize(query)
            except ValueError as error:
                self.answer(400, "text/plain", str(error))
                return
            link = f'<a href="{html.escape(back)}">Continue as {provider.person.email}</a>'
            self.answer(200, "text/html", f"<!doctype html><title>Provider</title>{link}")

        def answer_json(self, status: int, found: dict[str, Any]) -> None:
            self.answer(status, "application/json", json.dumps(found))

        def answer(self, status: int, kind: str, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler


def _flat(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}
