"""Concurrent clients made by h2load (Debian and Ubuntu: nghttp2-client), the load generator of nghttp2.

It asks a gRPC server (HTTP/2) and an HTTP/1.1 one alike, and costs little: what a client takes of the cores that the
server runs on is no longer there to be measured.
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Load(NamedTuple):
    """Latencies in s and answers per s, both without the warm-up.

    With it: how many answers there were, and the processor time in s of the clients themselves.
    """

    times: list[float]
    rate: float
    answers: float
    client_seconds: float


def _said(pattern: str, text: str) -> tuple[float, ...]:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"h2load said: {text}")
    return tuple(float(number) for number in found.groups())


def load(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    clients: int,
    seconds: float,
    answer_bytes: int,
    http1: bool = False,
) -> Load:
    """POST `body` to `url` over `clients` connections, each again as soon as it has its answer.

    Args:
        url: where.
        body: what each sends.
        headers: with these headers.
        clients: connections, one request at a time on each.
        seconds: length of the measurement, after a warm-up of a third of it.
        answer_bytes: the smallest body of a good answer; a gRPC error has status 200 too, but no body.
        http1: HTTP/1.1 instead of HTTP/2.

    Raises:
        SystemExit: h2load is not installed.
        RuntimeError: an answer was an error.
    """
    program = shutil.which("h2load")
    if program is None:
        raise SystemExit("This benchmark needs h2load: install the package nghttp2-client (Debian, Ubuntu).")
    with tempfile.TemporaryDirectory() as folder:
        content, log = Path(folder) / "body", Path(folder) / "log"
        content.write_bytes(body)
        command = [program, *(("--h1",) if http1 else ()), f"--log-file={log}", f"--data={content}"]
        command += [f"--clients={clients}", "--max-concurrent-streams=1"]
        command += [f"--duration={seconds * 1e3:.0f}ms", f"--warm-up-time={seconds / 3 * 1e3:.0f}ms"]
        command += [f"--header={name}: {value}" for name, value in headers.items()]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = subprocess.run([*command, url], stdout=subprocess.PIPE, text=True, check=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times = [int(line.split("\t")[2]) / 1e6 for line in log.read_text().splitlines()]
    (rate,) = _said(r"([\d.]+) req/s", said)
    succeeded, failed, errored = _said(r"(\d+) succeeded, (\d+) failed, (\d+) errored", said)
    (received,) = _said(r"\((\d+)\) data", said)
    if not succeeded or failed or errored or received < 0.95 * succeeded * answer_bytes:
        raise RuntimeError(f"Some answers were errors. h2load said: {said}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Load(times, rate, rate * seconds * 4 / 3, spent)
