"""`make bench`: every comparison, printed as a table and written to benchmarks/out/*.json.

Exit code 2 when a promised ratio was not reached.
"""

from __future__ import annotations

import json
import sys

from benchmarks import (
    describe_speed,
    index_speed,
    msr_ranker,
    msr_sft,
    search_speed,
    store_speed,
    text_speed,
    train_speed,
)
from benchmarks.harness import OUT
from dualview import console


def main() -> None:
    sys.argv = sys.argv[:1]
    modules = (store_speed, search_speed, index_speed, text_speed, describe_speed, train_speed)
    for module in (*modules, msr_ranker, msr_sft):
        console.say(f"{module.__name__} ...")
        module.main()
    rows = [row for path in sorted(OUT.glob("*_speed.json")) for row in json.loads(path.read_text())["rows"]]
    console.table(
        "Medians of interleaved runs; ratio above 1: ours is faster",
        ["what", "ours", "peer", "unit", "ratio", "least", "greatest", "promised"],
        [
            [r["what"], round(r["ours"]), round(r["peer"]), r["unit"], r["ratio"], *r["spread"], r["target"]]
            for r in rows
        ],
    )
    if not all(row["reached"] for row in rows):
        sys.exit(2)


if __name__ == "__main__":
    main()
