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
    if name not in sys.modules and importlib.util.find_spec(name) is not None:
        sys.modules[name] = _OnFirstUse(name)


class _OnFirstUse(ModuleType):
    """Stands in for a module until somebody asks it for something.

    importlib's own LazyLoader would not do: a plain `import` asks a module that is there already
    for its __spec__, and that alone makes it load. This has a __spec__, and it is None.
    """

    def __getattr__(self, name: str) -> Any:
        module = self.__name__
        if sys.modules.get(module) is self:
            del sys.modules[module]
        return getattr(importlib.import_module(module), name)
