"""The process that runs user code: one WebAssembly interpreter after the other, and nothing else.

Started by path (sandbox.py), so that it imports neither Datasette nor this package. It is a process
of its own because not every escape attempt ends inside WebAssembly: with a raised recursion limit,
or with thousands of nested brackets, wasmtime aborts the whole process. Then this one dies.

It reads frames from what was its standard input and answers on what was its standard output. A
frame is four bytes, big-endian, the length; then JSON in UTF-8.

    first                                      -> ["ready", null], or ["failed", text] and the end
    {"open": job, "source", "keep", "columns", "row_ms", "memory", "largest"}
        -> one frame, as guest.py's _open answers
    {"run": job, "rows": [payload, …]}         payload: JSON of [value, row]
        -> for each row one frame, as guest.py's _row answers, as soon as it is known
    anything wrong with the request itself     -> the process ends
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

# Two jobs may alternate without losing the state that their rows share; a third replaces the older.
OPEN_JOBS = 2
# Files in the sandbox are refused; pyeryx still offers it a directory in memory, this small.
SCRATCH_BYTES = 64 * 1024
# What this process may allocate besides the memory of the interpreters, such as copies of results.
BUFFERS = 160 * 2**20
# Rows of plain code run several in a call while the call stays this short. Such rows can be run
# again alone without anybody noticing, so a limit that a call hits is always that of one row.
GROUP_SECONDS = 0.02
LARGEST_GROUP = 16
# pyeryx starts a thread for each call with a time limit, and the thread outlives it by up to 10 ms.
TICK_SECONDS = 0.010
TICKERS = 24
DESTROYED = "The code destroyed the interpreter that ran it."
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38


def main(runtime: Path) -> None:
    """Serve until the other side closes its end."""
    parent = os.getppid()
    requests, answers = _private_pipes()
    _give_up_rights(parent)
    try:
        import eryx  # noqa: PLC0415

        worker = Worker(eryx, eryx.SandboxFactory.load(runtime), answers)
        worker.warm_up()
    except Exception as error:
        write_frame(answers, json.dumps(["failed", f"{type(error).__name__}: {error}"[:1000]]))
        return
    write_frame(answers, json.dumps(["ready", None]))
    while (request := read_frame(requests)) is not None:
        worker.handle(json.loads(request))


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Move the pipes away from descriptors 0 to 2, which WebAssembly code may write to."""
    pipes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return pipes


def _give_up_rights(parent: int) -> None:
    """A second wall, should the first one have a hole: no files to write, no core, no new rights.

    And when memory gets short, the kernel should take this process, not Datasette.
    """
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 64)):
        resource.setrlimit(limit, (value, value))
    os.nice(10)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if sys.platform == "linux":
        process = ctypes.CDLL(None)
        process.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        process.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            raise SystemExit("whoever started this is gone")


def read_frame(pipe: BinaryIO) -> bytes | None:
    """One frame, or None at the end."""
    head = pipe.read(4)
    return pipe.read(int.from_bytes(head)) if len(head) == 4 else None


def write_frame(pipe: BinaryIO, line: str) -> None:
    """Send one frame now."""
    data = line.encode("utf-8", "replace")
    pipe.write(len(data).to_bytes(4) + data)
    pipe.flush()


class Job:
    """The code of one run, and the interpreter that its rows share if they share one."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.source: str = request["source"]
        self.keep: bool = request["keep"]
        self.columns: bool = request["columns"]
        self.row_ms: int = request["row_ms"]
        self.memory: int = request["memory"]
        self.largest: int = request["largest"]
        self.alone = False
        self.session: Any = None
        self.group = 1  # rows in one call


class Worker:
    """Answers requests. User code only ever runs inside `_execute`."""

    def __init__(self, eryx: Any, factory: Any, answers: BinaryIO) -> None:
        self._eryx = eryx
        self._factory = factory
        self._answers = answers
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._recent: deque[float] = deque()
        self._baseline = 0

    def warm_up(self) -> None:
        """Make the memory image that all interpreters start from; after that, no file is written.

        The image is a file in memory, so the limit on files can only come now.
        """
        self._factory.create_session().execute("pass")
        self._baseline = _data_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    def handle(self, request: dict[str, Any]) -> None:
        """Raises KeyError for a request that makes no sense, which ends the process."""
        if "open" in request:
            write_frame(self._answers, self._open(request["open"], Job(request)))
            return
        job = self._jobs[request["run"]]
        self._jobs.move_to_end(request["run"])
        rows: list[str] = request["rows"]
        while rows:
            group, rows = rows[: job.group], rows[job.group :]
            for line in self._group(job, group):
                write_frame(self._answers, line)

    def _group(self, job: Job, payloads: list[str]) -> Iterator[str]:
        """The answers for some rows, together if that goes well, else one by one."""
        if len(payloads) > 1 and job.session is not None:
            began = time.monotonic()
            answers = self._execute(job, job.session, f"result = _rows({payloads!r})")
            if isinstance(answers, list) and not any("MemoryError" in line for line in answers):
                long = time.monotonic() - began > GROUP_SECONDS
                job.group = 1 if long else min(2 * job.group, LARGEST_GROUP)
                yield from answers
                return
        job.group = 1
        for payload in payloads:
            began = time.monotonic()
            yield self._row(job, payload)
        plain = not job.alone and not job.keep
        if plain and time.monotonic() - began < GROUP_SECONDS:
            job.group = 2

    def _open(self, number: int, job: Job) -> str:
        self._jobs.pop(number, None)  # its interpreter goes
        while len(self._jobs) >= OPEN_JOBS:
            self._jobs.popitem(last=False)
        _limit_memory(self._baseline, job.memory)
        line = self._start(job)
        answer = json.loads(line)
        if answer[0] == "opened":
            job.alone = not job.keep and answer[1] is not True
            if job.alone:
                job.session = None
            self._jobs[number] = job
        return line

    def _start(self, job: Job) -> str:
        """A new interpreter for a job, with its code compiled."""
        job.session = self._new_session(job)
        arguments = (job.source, job.keep, job.columns, job.largest)
        return self._one(job, job.session, f"result = _open{arguments!r}")

    def _row(self, job: Job, payload: str) -> str:
        if job.alone:
            arguments = (job.source, job.columns, job.largest, payload)
            session = self._new_session(job)
            return self._one(job, session, f"result = _alone{arguments!r}")
        if job.session is None:
            line = self._start(job)
            if job.session is None or json.loads(line)[0] != "opened":
                return line
        line = self._one(job, job.session, f"result = _row({payload!r})")
        if "MemoryError" in line and not job.keep:
            job.session = None  # what it took is not given back
        return line

    def _new_session(self, job: Job) -> Any:
        limits = self._eryx.ResourceLimits(
            execution_timeout_ms=job.row_ms,
            max_memory_bytes=job.memory,
            max_vfs_bytes=SCRATCH_BYTES,
            max_callback_invocations=0,
        )
        return self._factory.create_session(resource_limits=limits)

    def _one(self, job: Job, session: Any, code: str) -> str:
        answer = self._execute(job, session, code)
        return answer if isinstance(answer, str) else _error(DESTROYED)

    def _execute(self, job: Job, session: Any, code: str) -> str | list[str]:
        """Run code; whatever happens is an answer. An interpreter that was cut off is dropped."""
        tickers = self._pace()
        # Each of those threads moves the clock of everybody once more before it ends.
        session.execution_timeout_ms = job.row_ms + int(tickers * TICK_SECONDS * 1000)
        try:
            found = session.execute(code).result
            if isinstance(found, str):
                return found
            if isinstance(found, list) and all(isinstance(line, str) for line in found):
                return found
            why = DESTROYED
        except self._eryx.TimeoutError:
            why = f"Took longer than {job.row_ms / 1000:g} s."
        except self._eryx.EryxError as error:
            why = _ended(str(error), job.memory)
        job.session = None
        return _error(why)

    def _pace(self) -> int:
        """Wait while too many of pyeryx's clock threads are alive; return how many may be."""
        while True:
            now = time.monotonic()
            while self._recent and now - self._recent[0] > 1.5 * TICK_SECONDS:
                self._recent.popleft()
            if len(self._recent) < TICKERS:
                self._recent.append(now)
                return len(self._recent)
            time.sleep(TICK_SECONDS / 10)


def _data_bytes() -> int:
    """What RLIMIT_DATA counts now; most of it is reserved and never used."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[5]) * resource.getpagesize()


def _limit_memory(baseline: int, memory: int) -> None:
    """Bound what the process holds outside of WebAssembly too, such as pyeryx's own buffers."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = baseline + (OPEN_JOBS + 1) * memory + BUFFERS
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _error(text: str) -> str:
    return json.dumps(["error", text])


def _ended(error: str, memory: int) -> str:
    """Why an interpreter ended, from what pyeryx says."""
    if "alloc" in error or "oom" in error or "emory" in error:
        return f"Used more than {memory // 2**20} MB of memory."
    if "exit" in error.lower():
        return "The code ended the interpreter that ran it."
    return (
        "The interpreter stopped: " + (error.strip().splitlines() or ["no reason given"])[-1][:300]
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
