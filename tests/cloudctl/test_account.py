"""Signing in: where the token is kept, what wins, and where the token never goes."""

import json
import stat
from pathlib import Path

import pytest

from cloudapp.local.product import Product
from cloudctl.config import checked_url
from cloudctl.errors import WrongUsage
from tests.cloudctl.conftest import Ctl
from tests.cloudctl.proxy import Proxy


@pytest.fixture
def new(tmp_path: Path) -> Ctl:
    """The command, not signed in."""
    return Ctl(tmp_path / "config")


def test_login_keeps_the_token_for_its_owner_only(new: Ctl, product: Product, token: str) -> None:
    assert new("list").code == 3
    said = new.ok("login", "--url", f"{product.base_url}/", stdin=f"{token}\n")
    assert "Signed in" in said.out
    assert token not in said.out + said.err
    assert stat.S_IMODE(new.config.stat().st_mode) == 0o600
    assert json.loads(new.config.read_text()) == {"url": product.base_url, "token": token}
    new.ok("list")
    assert "read, lifecycle" in new.ok("whoami").out

    assert "Signed out" in new.ok("logout").out
    assert not new.config.exists()
    assert new("whoami").code == 3


def test_login_asks_and_shows_no_token(new: Ctl, product: Product, token: str) -> None:
    code, shown = new.on_terminal("login", typed=[product.base_url, token])
    assert code == 0, shown
    assert f"{product.base_url}/account/tokens/" in shown
    assert token not in shown


def test_a_token_that_is_no_good_is_not_kept(new: Ctl, product: Product, token: str) -> None:
    wrong = token[:-1] + ("a" if token[-1] != "a" else "b")
    for text in (wrong, "päßwort", ""):
        ran = new("login", "--url", product.base_url, stdin=text)
        assert ran.code == 3, text
        assert not text or text not in ran.err
    assert not new.config.exists()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://cloud.example.com",
        "cloud.example.com",
        "https://ada:secret@cloud.example.com",
        "https://cloud.example.com/other",
        "https://cloud.example.com?x=1",
        "https://",
        "https://cloud..example.com",
        "https://cloud.example.com:http",
        "file:///etc/passwd",
    ],
)
def test_only_addresses_of_servers_are_taken(url: str) -> None:
    with pytest.raises(WrongUsage):
        checked_url(url)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://Cloud.example.com/", "https://cloud.example.com"),
        (" http://localhost:8000/api/v1 ", "http://localhost:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_is_kept_in_one_form(given: str, kept: str) -> None:
    assert checked_url(given) == kept


def test_the_environment_wins(new: Ctl, product: Product, token: str) -> None:
    new.ok("login", "--url", product.base_url, stdin=token)
    new.environment["CLOUDCTL_TOKEN"] = "cloudapp_nothing"
    ran = new("list")
    assert ran.code == 3
    assert "cloudapp_nothing" not in ran.err


def test_a_stored_token_goes_to_its_own_server_only(new: Ctl, product: Product, token: str) -> None:
    new.ok("login", "--url", product.base_url, stdin=token)
    with Proxy(product.base_url) as other:
        new.environment["CLOUDCTL_URL"] = other.url
        ran = new("list")
        assert ran.code == 3
        assert "no token for" in ran.err
        assert not other.seen


def test_a_broken_file_is_told(new: Ctl) -> None:
    new.config.parent.mkdir(parents=True)
    new.config.write_text("{")
    ran = new("list")
    assert ran.code == 3
    assert "cloudctl login" in ran.err
