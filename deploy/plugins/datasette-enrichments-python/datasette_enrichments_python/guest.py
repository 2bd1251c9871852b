"""What waits inside the WebAssembly interpreter. Baked into its snapshot; never runs in Datasette.

The worker calls `_open` once per interpreter and `_row` once per row, or `_alone` for both at once.
Each leaves a line of JSON in `result`:

    ["opened", plain]            the code compiles; plain: see _Plain
    ["value", value]             what transform returned, ready for SQLite
    ["columns", {name: value}]   the same for a dictionary that goes into several columns
    ["error", text]              the user's mistake, with the line in the user's code

`_rows` answers a list of such lines for rows that share an interpreter anyway.

This is convenience, not the wall: user code may break everything in here, for itself only. The wall
is WebAssembly, and whoever reads these lines checks them (values.py).
"""

import ast
import base64
import gc
import importlib
import json
import math
import random
import sys
import traceback
from typing import Any


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Ready in the snapshot, so that nobody's row waits for them.
_READY = _words(
    "bisect calendar collections copy csv datetime decimal difflib enum fractions functools "
    "hashlib heapq html html.parser io ipaddress itertools operator re statistics string struct "
    "textwrap time unicodedata urllib.parse uuid zlib"
)
for _name in sorted(_READY):
    importlib.import_module(_name)

_FILE = "<your code>"
_SHOWN_CHARACTERS = 2000
_NO_FUNCTION = "There is no function transform. Write: def transform(value, row): ..."


class _Nowhere:
    """Where print goes: what a row prints must not fill the memory of everybody."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


class _State:
    source = ""
    code: Any = None
    space: dict[str, Any] | None = None  # the module that rows share, when they are to share one
    columns = False
    largest = 0
    nowhere = _Nowhere()


def _open(source: str, keep: bool, columns: bool, largest: int) -> str:
    """Compile the code; run it once when rows are to share one module."""
    _State.source, _State.columns, _State.largest = source, columns, largest
    _State.space = None
    random.seed()  # or else every interpreter repeats what was baked
    try:
        tree = ast.parse(source, _FILE)
        _State.code = compile(tree, _FILE, "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return _line(["error", _told(error)])
    if not any("transform" in _bound(node) for node in ast.walk(tree)):
        return _line(["error", _NO_FUNCTION])
    plain = not keep and _Plain(tree).proven()
    if keep:
        try:
            _State.space = _module()
        except BaseException as error:
            return _line(["error", _told(error)])
    return _line(["opened", plain])


def _alone(source: str, columns: bool, largest: int, payload: str) -> str:
    """One row in an interpreter of its own."""
    _State.source, _State.columns, _State.largest = source, columns, largest
    random.seed()
    try:
        _State.code = compile(source, _FILE, "exec")
    except BaseException as error:
        return _line(["error", _told(error)])
    return _row(payload)


def _rows(payloads: list[str]) -> list[str]:
    return [_row(payload) for payload in payloads]


def _row(payload: str) -> str:
    out, err = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = _State.nowhere
    try:
        value, row = json.loads(payload, object_hook=_bytes_in)
        space = _State.space
        if space is None:
            space = _module()
        return _answer(space["transform"](value, row))
    except BaseException as error:
        return _line(["error", _told(error)])
    finally:
        sys.stdout, sys.stderr = out, err


def _module() -> dict[str, Any]:
    """A module of the user's code, new and just run. Raises what the code raises, or NameError."""
    space = {"__name__": "transform"}
    exec(_State.code, space)  # noqa: S102
    if not callable(space.get("transform")):
        raise NameError(_NO_FUNCTION)
    return space


def _bytes_in(found: dict[str, Any]) -> Any:
    if found.get("$base64") is True and len(found) == 2 and "encoded" in found:
        return base64.b64decode(found["encoded"])
    return found


# --- what transform returned ---------------------------------------------------------------------


def _answer(returned: Any) -> str:
    if _State.columns and isinstance(returned, dict):
        line = _line(["columns", {str(name): _value(one) for name, one in returned.items()}])
    else:
        line = _line(["value", _value(returned)])
    if len(line) > _State.largest:
        raise ValueError(f"The result is larger than {_State.largest:,} characters.")
    return line


def _value(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (str, bytes, bytearray)):
        if len(value) > _State.largest:
            raise ValueError(f"The result is larger than {_State.largest:,} characters.")
        if isinstance(value, str):
            return value
        return {"$base64": True, "encoded": base64.b64encode(value).decode()}
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    raise TypeError(
        f"transform returned a {type(value).__name__}; return a text, a number, True or False, "
        "None, bytes, a list or a dictionary."
    )


def _line(answer: list[Any]) -> str:
    return json.dumps(answer)


def _told(error: BaseException) -> str:
    """An error in words: what, and where in the user's code."""
    try:
        what = f"{type(error).__name__}: {error}".removesuffix(": ")
        if isinstance(error, MemoryError):
            what = "MemoryError: the row needs more memory than it may have"
        if isinstance(error, SyntaxError):
            what = f"{type(error).__name__}: {error.msg}"
            return f"Line {error.lineno}: {what}" if error.lineno else what
        lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == _FILE]
        if lines:
            return f"Line {lines[-1].lineno}: {what}"[:_SHOWN_CHARACTERS]
        return what[:_SHOWN_CHARACTERS]
    except BaseException:
        return f"{type(error).__name__} (it has no readable text)"


# --- code whose rows may share an interpreter ----------------------------------------------------


_BUILTINS = _words(
    "abs all any ascii bin bool bytearray bytes callable chr complex dict divmod enumerate filter "
    "float format frozenset hash hex int isinstance issubclass iter len list map max memoryview "
    "min next object oct ord pow print range repr reversed round set slice sorted str sum tuple "
    "zip ArithmeticError AssertionError AttributeError BaseException Exception IndexError KeyError "
    "LookupError NameError NotImplemented NotImplementedError OverflowError RuntimeError "
    "StopIteration TypeError UnicodeDecodeError UnicodeEncodeError UnicodeError ValueError "
    "ZeroDivisionError"
)
# By module: names that lead to nothing that could be changed. Functions without a memory of their
# own, classes that C made immutable, texts and numbers.
_NAMES = {
    "base64": "b16decode b16encode b32decode b32encode b64decode b64encode urlsafe_b64decode "
    "urlsafe_b64encode",
    "collections": "Counter OrderedDict defaultdict deque",
    "datetime": "UTC date datetime time timedelta timezone",
    "decimal": "Decimal",
    "difflib": "get_close_matches ndiff unified_diff",
    "functools": "cache cmp_to_key lru_cache partial reduce",
    "hashlib": "blake2b blake2s md5 sha1 sha224 sha256 sha384 sha3_256 sha3_512 sha512",
    "html": "escape unescape",
    "itertools": "accumulate batched chain combinations combinations_with_replacement compress "
    "count cycle dropwhile filterfalse groupby islice pairwise permutations product repeat starmap "
    "takewhile tee zip_longest",
    "json": "dumps loads",
    "math": " ".join(name for name in dir(math) if not name.startswith("_")),
    "operator": "add contains countOf eq floordiv ge gt itemgetter le lt mod mul ne neg sub "
    "truediv",
    "re": "A ASCII DOTALL I IGNORECASE M MULTILINE S U UNICODE VERBOSE X compile escape findall "
    "finditer fullmatch match search split sub subn",
    "statistics": "fmean geometric_mean harmonic_mean mean median median_high median_low mode "
    "multimode pstdev pvariance quantiles stdev variance",
    "string": "ascii_letters ascii_lowercase ascii_uppercase capwords digits hexdigits octdigits "
    "printable punctuation whitespace",
    "textwrap": "dedent fill indent shorten wrap",
    "unicodedata": "bidirectional category combining decimal digit east_asian_width is_normalized "
    "lookup mirrored name normalize numeric",
    "urllib.parse": "parse_qs parse_qsl quote quote_plus unquote unquote_plus urlencode urljoin "
    "urlparse urlsplit urlunparse urlunsplit",
    "zlib": "adler32 crc32",
}
_ALLOWED = {module: _words(names) for module, names in _NAMES.items()}
# The cache of a function from the library tells what other rows asked of it.
_FORBIDDEN_ATTRIBUTES = _words(
    "add_note cache_clear cache_info cache_parameters mro register with_traceback"
)
_FORBIDDEN_PREFIXES = ("_", "gi_", "cr_", "ag_", "tb_", "f_", "co_", "func_")
_FORBIDDEN_NODES = (
    ast.AsyncFor,
    ast.AsyncFunctionDef,
    ast.AsyncWith,
    ast.Await,
    ast.ClassDef,
    ast.Yield,
    ast.YieldFrom,
)


def _bound(node: ast.AST) -> tuple[str | None, ...]:
    """The names that a node of a syntax tree gives a meaning."""
    if isinstance(node, ast.Name):
        return () if isinstance(node.ctx, ast.Load) else (node.id,)
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return tuple(alias.asname or alias.name for alias in node.names)
    if isinstance(node, ast.arg):
        return (node.arg,)
    if isinstance(node, ast.MatchMapping):
        return (node.rest,)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler)):
        return (node.name,)
    return (node.name,) if isinstance(node, (ast.MatchAs, ast.MatchStar)) else ()


class _Plain(ast.NodeVisitor):
    """Proof that code can leave nothing behind in the interpreter that runs it.

    Its module is new for every row. So a row could only pass something on through what the
    interpreter itself keeps: modules, classes, open files. Code that reaches none of them is plain,
    and its rows share an interpreter; any other code gets a new interpreter for every row. Whatever
    is not known to be harmless is not plain, so a mistake here costs time, not isolation.
    """

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._plain = True
        self._modules: dict[
            str, frozenset[str]
        ] = {}  # name in the code -> what may be taken from it
        self._own: set[str | None] = set()  # names that the code itself gives a meaning

    def proven(self) -> bool:
        for node in ast.walk(self._tree):
            self._learn(node)
        # A module under a name that also means something else would escape the check below.
        if self._own & self._modules.keys():
            return False
        self.visit(self._tree)
        return self._plain

    def _learn(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            self._learn_import(node)
        else:
            self._own.update(_bound(node))
        if isinstance(node, ast.ImportFrom):
            self._learn_import_from(node)

    def _learn_import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name not in _ALLOWED or ("." in alias.name and not alias.asname):
                self._plain = False
            else:
                self._modules[alias.asname or alias.name] = _ALLOWED[alias.name]

    def _learn_import_from(self, node: ast.ImportFrom) -> None:
        allowed = _ALLOWED.get(node.module or "", frozenset())
        for alias in node.names:
            if node.level or alias.name not in allowed:
                self._plain = False

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, _FORBIDDEN_NODES):
            self._plain = False
        if self._plain:
            super().visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        # A module used as itself is one that could be changed; only module.name is let through.
        known = node.id in self._own or node.id in _BUILTINS
        if node.id.startswith("__") or node.id in self._modules or not known:
            self._plain = False

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = node.attr
        hidden = name in _FORBIDDEN_ATTRIBUTES or name.startswith(_FORBIDDEN_PREFIXES)
        if hidden or not isinstance(node.ctx, ast.Load):
            self._plain = False
        elif isinstance(node.value, ast.Name) and node.value.id in self._modules:
            self._plain = name in self._modules[node.value.id]
        else:
            self.visit(node.value)

    def visit_MatchClass(self, node: ast.MatchClass) -> None:
        if any(name.startswith("_") for name in node.kwd_attrs):
            self._plain = False
        self.generic_visit(node)


# What is here now stays: it need not be looked at again by every collection.
gc.collect()
gc.freeze()
