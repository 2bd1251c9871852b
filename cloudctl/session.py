"""What every command has: the API, once it is needed, and the output."""

import sys
from functools import cached_property
from typing import TYPE_CHECKING

from cloudctl import config
from cloudctl.output import Output

if TYPE_CHECKING:
    from cloudctl.api import Api


class Session:
    """One run of one command."""

    def __init__(self, as_json: bool) -> None:
        self.out = Output(as_json)

    @cached_property
    def api(self) -> "Api":
        """The API, as whoever is signed in. Raises NotSignedIn."""
        return self.api_of(config.load())

    def api_of(self, account: config.Account) -> "Api":
        """Return the API of somebody else."""
        # httpx takes longer to load than all the rest, and half of that is its own command line,
        # which it leaves out when it cannot be imported.
        sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
        from cloudctl.api import Api  # noqa: PLC0415

        return Api(account, self.out.note)
