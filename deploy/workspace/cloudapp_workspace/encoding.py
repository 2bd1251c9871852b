"""Which encoding has an uploaded CSV? Ours comes before datasette-upload-csvs' own guess.

The plugin shows its first two megabytes to charset_normalizer. When that cut falls into the middle
of a character, valid UTF-8 is taken for windows-1250; and when the first two megabytes are plain
ASCII, it reads the rest as latin-1. Both turn people's names into rubbish without a word.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable
from functools import partial
from typing import Any


def install() -> None:
    """Make the plugin ask us, if this image has it."""
    plugin = sys.modules.get("datasette_upload_csvs")
    if plugin is not None:
        plugin.detect = partial(detect, plugin.detect)  # type: ignore[attr-defined]


def detect(guess: Callable[[bytes], Any], beginning: bytes) -> dict[str, Any]:
    """Tell the encoding of a file by its beginning, in charset_normalizer's shape.

    Text that is UTF-8 so far (all ASCII is) is UTF-8: if it turns out later not to be, the import
    stops and says so, which is better than wrong letters.
    """
    if beginning.startswith(codecs.BOM_UTF8):
        return {"encoding": "utf-8-sig"}
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        return dict(guess(beginning))
    return {"encoding": "utf-8"}
