"""What HTTP costs, and whether a change of release is felt: `dualview serve` on one core, the callers on another.

    python -m benchmarks.serve_load [--items 100000] [--dim 384] [--seconds 20] [--long 120] FOLDER

FOLDER is made, with a store of so many items and a vector each, or taken as an earlier call left it. Four figures:

1. `Retriever.similar` in this process, one thread.
2. A route that does nothing (/health), and /v1/similar/ITEM, asked by one caller and by 32.
3. Of the second, what is left when the time of the first is taken off, over `Retriever.similar`.
4. Two minutes of mixed questions, during which two releases are published and taken over: latencies and errors.

All are given by the clock and by CPU time of the serving process. On a machine that does other work only the second
says something. Written to benchmarks/out/serve_load.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import million
from benchmarks.harness import save
from benchmarks.synthetic import fill
from dualview import Retriever, Store, console

TOML = """
[features.vector]
kind = "imported"
inputs = ["title"]
encoder = "imported"
"""
CALLERS = 32
PLAIN = ("--port", "0", "--json", "--workers", "1", "--access-log", "off")
TICK = os.sysconf("SC_CLK_TCK")
Path_ = Callable[[int], str]


@dataclass
class Load:
    """What callers saw. latencies: seconds. cpu: seconds of the serving process."""

    seconds: float = 0.0
    cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    releases: Counter[str] = field(default_factory=Counter)

    @property
    def errors(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != "200")

    def row(self, what: str) -> dict[str, object]:
        count = len(self.latencies)
        ms = np.percentile(self.latencies, [50, 99, 100]) * 1000
        told: dict[str, object] = {
            "what": what,
            "requests": count,
            "per_second": count / self.seconds,
            "per_cpu_second": count / self.cpu,
            "p50_ms": ms[0],
            "p99_ms": ms[1],
            "max_ms": ms[2],
            "errors": self.errors,
            "releases": dict(self.releases),
        }
        console.say(
            f"{what}: {count / self.seconds:,.0f}/s, {count / self.cpu:,.0f} a CPU second, p50 {ms[0]:.1f} ms, "
            f"p99 {ms[1]:.1f} ms, max {ms[2]:.0f} ms, {self.errors} errors of {count:,} {dict(self.releases)}"
        )
        return told


def made(folder: Path, items: int, dim: int) -> Store:
    if (folder / "store.json").exists():
        return Store.open(folder)
    store = Store.create(folder, TOML)
    vectors = np.concatenate([values for values, _ in million.draw(items, dim)])
    fill(store, "vector", vectors)
    store.publish()
    return store


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


@contextmanager
def serving(store: Path, core: int, *options: str) -> Iterator[tuple[int, int]]:
    """`dualview serve` on one core; its process id and port."""
    started = subprocess.Popen(
        [sys.executable, "-m", "dualview", "serve", str(store), *PLAIN, *options],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        assert started.stdout is not None
        said = ""
        while (line := started.stdout.readline()) not in ("}\n", ""):
            said += line
        told = json.loads(said + line)
        yield started.pid, int(told["url"].rpartition(":")[2])
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(60)


async def load(pid: int, port: int, callers: int, seconds: float, path: Path_) -> Load:
    """Callers that ask one after the other, each over a connection of its own, for so long."""
    found = Load()
    cpu, began = cpu_seconds(pid), time.perf_counter()
    until = began + seconds
    await asyncio.gather(*(_caller(port, number, until, path, found) for number in range(callers)))
    found.seconds, found.cpu = time.perf_counter() - began, cpu_seconds(pid) - cpu
    return found


async def _caller(port: int, number: int, until: float, path: Path_, found: Load) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asked = number * 1_000_003
    try:
        while time.perf_counter() < until:
            asked += 1
            start = time.perf_counter()
            writer.write(f"{path(asked)}Host: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            begin = lower.index(b"content-length:") + 15
            body = await reader.readexactly(int(lower[begin : lower.index(b"\r", begin)]))
            found.latencies.append(time.perf_counter() - start)
            found.statuses[head[9:12].decode()] += 1
            if body.startswith(b'{"release":"'):
                found.releases[body[12:16].decode()] += 1
    except (OSError, asyncio.IncompleteReadError) as error:
        found.statuses[type(error).__name__] += 1
    finally:
        writer.close()


def similar(items: int) -> Path_:
    rows = np.random.default_rng(3).integers(0, items, 10_007).tolist()
    return lambda n: f"GET /v1/similar/item{rows[n % len(rows)]:08d} HTTP/1.1\r\n"


def mixed(items: int) -> Path_:
    """Half of the questions are for what is similar, the others for pages, searches and the catalogue."""
    one = similar(items)
    others = ("/v1/items/item{:08d}", "/v1/items?limit=20&offset={}", "/v1/items?q=item+{}", "/v1/releases")
    return lambda n: one(n) if n % 2 else f"GET {others[n // 2 % 4].format(n * 7919 % items)} HTTP/1.1\r\n"


def in_process(store: Path, items: int, seconds: float) -> dict[str, object]:
    """`Retriever.similar`, one thread of this process, on the core that will serve."""
    import faiss

    faiss.omp_set_num_threads(1)
    asked = Retriever.open(store)
    rows = np.random.default_rng(3).integers(0, items, 10_007).tolist()
    asked.similar("item00000000", k=10)
    count, cpu, began = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() < began + seconds:
        asked.similar(f"item{rows[count % len(rows)]:08d}", k=10)
        count += 1
    wall, used = time.perf_counter() - began, time.process_time() - cpu
    console.say(f"Retriever.similar: {count / wall:,.0f}/s, {count / used:,.0f} a CPU second")
    return {
        "what": "in process",
        "requests": count,
        "per_second": count / wall,
        "per_cpu_second": count / used,
    }


def share(served: dict[str, object], noop: dict[str, object], own: dict[str, object]) -> float:
    """Searches a CPU second behind HTTP, with what HTTP costs taken off, over those without HTTP."""
    cost = 1 / float(str(served["per_cpu_second"])) - 1 / float(str(noop["per_cpu_second"]))
    return 1 / cost / float(str(own["per_cpu_second"]))


PUBLISH = """
import sys, pyarrow as pa
from dualview import Store
store = Store.open(sys.argv[1])
store.ingest(pa.table({"item_id": ["item00000000"], "title": [f"Item 0, told again for {sys.argv[2]}"]}))
print(store.publish(allow_stale=True).name)
"""


async def with_swaps(store: Path, pid: int, port: int, seconds: float, items: int) -> Load:
    """Mixed questions while two releases are published, each after a third of the time."""

    async def publish(number: int) -> None:
        await asyncio.sleep(seconds * number / 3)
        command = (sys.executable, "-c", PUBLISH, str(store), str(time.time()))
        made = await asyncio.create_subprocess_exec(*command)
        if await made.wait():
            raise SystemExit("publishing failed")

    found, *_ = await asyncio.gather(load(pid, port, CALLERS, seconds, mixed(items)), publish(1), publish(2))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--long", type=float, default=120)
    given = parser.parse_args()
    store = made(given.folder, given.items, given.dim).root
    items = Store.open(store).release().n_items
    own_core, other = (sorted(os.sched_getaffinity(0)) * 2)[:2]
    os.sched_setaffinity(0, {own_core})
    rows = [in_process(store, items, given.seconds)]
    os.sched_setaffinity(0, {other})
    for batch in ("1", "32"):
        with serving(store, own_core, "--batch", batch, "--reload-every", "0") as (pid, port):
            asyncio.run(load(pid, port, 4, 2, similar(items)))  # what is loaded late is loaded
            for callers in (1, CALLERS):
                names = (f"/health, {callers} callers", f"similar, {callers} callers, batches of {batch}")
                asked = (lambda n: "GET /health HTTP/1.1\r\n", similar(items))
                noop, served = (
                    asyncio.run(load(pid, port, callers, given.seconds, path)).row(name)
                    for name, path in zip(names, asked, strict=True)
                )
                served["share"] = share(served, noop, rows[0])
                console.say(f"  without HTTP's own cost, {served['share']:.2f} of the Retriever")
                rows += [noop, served]
    if given.long:
        with serving(store, own_core, "--reload-every", "1") as (pid, port):
            found = asyncio.run(with_swaps(store, pid, port, given.long, items))
        rows.append(found.row(f"mixed, {CALLERS} callers, {given.long:.0f} s, two swaps"))
    console.say(f"written to {save('serve_load', rows)}")


if __name__ == "__main__":
    main()
