"""Put off imports that Datasette makes at its start and that a workspace hardly ever uses.

Each costs more than everything in this package together; README.md, "Start-up time", has numbers.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

PINT = "datasette.vendored.pint"
# Imported as a whole module and used only for internal requests (1.0: httpx2), and for a debugger.
ON_FIRST_USE = ("httpx", "httpx2", "pdb")


def install() -> None:
    """Call before anything imports datasette."""
    stand_in = ModuleType(PINT)
    stand_in.UnitRegistry = _UnitRegistry  # type: ignore[attr-defined]
    sys.modules.setdefault(PINT, stand_in)
    for name in ON_FIRST_USE:
        _import_on_first_use(name)


class _UnitRegistry:
    """pint's registry of units, read when somebody uses a unit.

    Datasette makes one at import, which parses all of pint's unit definitions.
    """

    def __init__(self) -> None:
        self._real: Any = None

    def _registry(self) -> Any:
        if self._real is None:
            sys.modules.pop(PINT, None)
            self._real = importlib.import_module(PINT).UnitRegistry()
        return self._real

    def __call__(self, unit: str) -> Any:
        return self._registry()(unit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry(), name)


def _import_on_first_use(name: str) -> None:
    """The recipe of the importlib documentation; a missing module is left to fail as usual."""
    spec = importlib.util.find_spec(name)
    if name in sys.modules or spec is None or spec.loader is None:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
