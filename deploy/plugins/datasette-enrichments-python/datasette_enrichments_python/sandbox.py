"""Datasette's side of the worker process: start it, ask it, watch the clock, take it down.

    async with sandbox.turn():                       # one job at a time
        opened = await sandbox.open(7, code, limits) # Opened(plain=True) or Opened(error="…")
        async for line in sandbox.run(7, payloads): …

Nothing in here waits in the event loop's thread, and nothing heavy is imported: the worker is
another process, started when somebody needs it and gone a little later.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from datasette_enrichments_python import runtime
from datasette_enrichments_python.limits import Limits

WORKER = Path(__file__).with_name("worker.py")
START_SECONDS = 60.0
# The worker keeps the time of a row itself, in pyeryx's ticks, and these come late where others
# keep the processor busy. This much later it is ended from here, whatever it does.
GRACE_SECONDS = 2.0
IDLE_SECONDS = 3.0
STOPPED = (
    "The code broke the interpreter that ran it, by recursion without end or by nesting too deep."
)


class SandboxError(Exception):
    """The sandbox cannot be used; the text says why and what to do."""


@dataclass(frozen=True)
class Code:
    """What a user wrote and asked for."""

    source: str
    keep_state: bool = False
    columns: bool = False


@dataclass(frozen=True)
class Opened:
    """Whether code can run: `plain` (its rows share an interpreter), or what is wrong with it."""

    plain: bool = False
    error: str | None = None


class _Gone(Exception):
    """The worker ended or does not answer. The text says to users what their code did."""

    def __init__(self, words: str = STOPPED) -> None:
        super().__init__(words)


class Sandbox:
    """One worker process at most, shared by all jobs; they take turns, batch by batch."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._open: dict[int, tuple[Code, Limits]] = {}

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold this while asking. The worker goes when nobody has asked for IDLE_SECONDS."""
        async with self._lock:
            if self._idle:
                self._idle.cancel()
            try:
                yield
            except SandboxError:
                raise
            except BaseException:
                # Half an answer may be on its way: nobody could tell it from the next one.
                self.kill()
                raise
            finally:
                self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.kill)

    def kill(self) -> None:
        """Take the worker down at once. The next turn starts another."""
        process, self._process = self._process, None
        self._open.clear()
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def open(self, job: int, code: Code, limits: Limits) -> Opened:
        """Make a job's code ready. Raises SandboxError."""
        process = await self._running()
        try:
            await self._send(process, _opening(job, code, limits))
            answer = await self._answer(process, limits)
        except _Gone as gone:
            return Opened(error=str(gone))
        kind, what = _parsed(answer)
        if kind != "opened":
            return Opened(error=str(what))
        self._open[job] = code, limits
        return Opened(plain=what is True)

    async def run(
        self, job: int, code: Code, limits: Limits, payloads: list[str]
    ) -> AsyncIterator[str]:
        """For each payload (JSON of [value, row]) what the worker says. Raises SandboxError."""
        done = 0
        while done < len(payloads):
            if self._process is None or self._open.get(job) != (code, limits):
                opened = await self.open(job, code, limits)
                if opened.error is not None:
                    raise SandboxError(opened.error)
            process = await self._running()
            try:
                await self._send(process, {"run": job, "rows": payloads[done:]})
                while done < len(payloads):
                    line = await self._answer(process, limits)
                    done += 1
                    yield line
            except _Gone as gone:
                done += 1
                yield json.dumps(["error", str(gone)])

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self.kill()
            self._process = await self._start()
        return self._process

    async def _start(self) -> asyncio.subprocess.Process:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(None, runtime.find, self._directory)
        except runtime.RuntimeMissing as error:
            raise SandboxError(str(error)) from error
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-IB", str(WORKER), str(found)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            env=runtime.environment(found.parent),
            start_new_session=True,
        )
        try:
            kind, what = _parsed(await self._line(process, START_SECONDS))
        except (_Gone, TimeoutError):
            kind, what = "failed", "it ended or did not answer"
        if kind != "ready":
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise SandboxError(f"The sandbox does not start: {what}")
        return process

    async def _send(self, process: asyncio.subprocess.Process, request: dict[str, Any]) -> None:
        data = json.dumps(request).encode()
        pipe = cast(asyncio.StreamWriter, process.stdin)
        try:
            pipe.write(len(data).to_bytes(4, "big") + data)
            await pipe.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            self.kill()
            raise _Gone from error

    async def _answer(self, process: asyncio.subprocess.Process, limits: Limits) -> str:
        """The next frame about user code, whose own limit the worker may have missed."""
        try:
            return await self._line(process, limits.row_seconds + GRACE_SECONDS)
        except TimeoutError as error:
            raise _Gone(f"Took longer than {limits.row_seconds:g} s.") from error

    async def _line(self, process: asyncio.subprocess.Process, seconds: float) -> str:
        """The next frame, within this time; raises TimeoutError after it."""
        pipe = cast(asyncio.StreamReader, process.stdout)
        try:
            async with asyncio.timeout(seconds):
                head = await pipe.readexactly(4)
                data = await pipe.readexactly(int.from_bytes(head, "big"))
        except TimeoutError:
            self.kill()
            raise
        except (asyncio.IncompleteReadError, ConnectionResetError) as error:
            self.kill()
            raise _Gone from error
        return data.decode("utf-8", "replace")


def _opening(job: int, code: Code, limits: Limits) -> dict[str, Any]:
    return {
        "open": job,
        "source": code.source,
        "keep": code.keep_state,
        "columns": code.columns,
        "row_ms": round(limits.row_seconds * 1000),
        "memory": limits.memory_mb * 2**20,
        "largest": limits.max_result_characters,
    }


def _parsed(line: str) -> tuple[str, Any]:
    """What the worker said; it is not to be trusted, so anything odd is an error in words."""
    try:
        kind, what = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return "error", "The code destroyed the interpreter that ran it."
    return kind, what
