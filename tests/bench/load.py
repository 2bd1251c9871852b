"""Requests per second, measured by h2load (HTTP/1.1), on a unix socket or an address."""

import re
import subprocess
from collections.abc import Mapping

CONNECTIONS = 8
RATE = re.compile(r"finished in [\d.]+\w+, ([\d.]+) req/s")
OUTCOME = re.compile(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx")


def requests_per_second(
    path: str, count: int, headers: Mapping[str, str], *, endpoint: str, host: str = "localhost"
) -> float:
    """Ask `count` times; return the rate. Raises RuntimeError unless all answers were 200."""
    command = ["h2load", "--h1", f"-c{CONNECTIONS}", "-t1", f"-n{count}"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    if endpoint.startswith("unix:"):
        command.append(f"--base-uri={endpoint}")
    else:
        command.append(f"--connect-to={endpoint}")
    command.append(f"http://{host}{path}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    rate, outcome = RATE.search(done.stdout), OUTCOME.search(done.stdout)
    if not rate or not outcome or int(outcome[1]) != count:
        raise RuntimeError(f"h2load {path} at {endpoint}:\n{done.stdout}\n{done.stderr}")
    return float(rate[1])
