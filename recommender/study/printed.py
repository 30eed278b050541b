"""Findings as text: the columns of a table, a row as it is printed, REPORT.md and the two CSV files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from recommender.study.arms import Table
from recommender.study.findings import LEVEL, Findings
from recommender.study.rows import ITEMS, LENGTHS, MAIN

Row = Mapping[str, Any]
NONE = "–"


def columns(findings: Findings, table: Table | None = None) -> list[tuple[str, str, str]]:
    """(key, header, heading over it) of each column; with a table, histories have their lengths in the header."""
    lengths: dict[str, str] = {}
    if table is not None:
        found = findings.histories.get(table.title, ())
        lengths = {
            key: name.removeprefix("users:history ") for key, name in zip(LENGTHS, found, strict=False)
        }
    against = f"against {findings.study.reference}"
    part = findings.part
    return [
        ("tower", "tower", ""),
        ("seeds", "seeds", ""),
        (MAIN, MAIN, part),
        ("HR@10", "HR@10", part),
        ("gain", "gain", against),
        ("interval", "95 % interval", against),
        ("p_holm", "p (Holm)", against),
        ("seeds_apart", "seeds apart", against),
        *((key, key, f"{MAIN} by target item") for key in ITEMS),
        *(
            (key, f"{key} {lengths.get(key, '')}".strip().replace("-", "–"), f"{MAIN} by history")
            for key in LENGTHS
        ),
        *([(f"valid {MAIN}", MAIN, "valid")] if part == "test" else []),
        ("parameters", "parameters", "cost"),
        ("epoch_seconds", "s an epoch", "cost"),
        ("seconds_to_best", "s to best", "cost"),
    ]


def printed(row: Row) -> dict[str, str]:
    """A row of findings as it is shown, by the keys of `columns`."""
    text = {key: number(row[key]) for key in (*ITEMS, *LENGTHS)}
    text |= {key: number(row[key]) for key in ("HR@10", f"valid {MAIN}")}
    deviation = row[f"{MAIN} std"]
    text[MAIN] = number(row[MAIN]) + ("" if deviation is None else f" ± {number(deviation)}")
    text["tower"] = row["tower"]
    text["seeds"] = NONE if row["floor"] else f"{row['seeds']}/{row['seeds_planned']}"
    text["gain"] = share(row["gain"])
    ends = share(row["gain_low"]).removesuffix(" %"), share(row["gain_high"])
    text["interval"] = " to ".join(ends) if known(row["gain_low"]) else NONE
    text["p_holm"] = probability(row["p_holm"])
    text["seeds_apart"] = NONE if row["seeds_apart"] is None else "yes" if row["seeds_apart"] else "no"
    compared = row["seeds_compared"]
    if compared is not None and not compared == row["seeds"] == row["seeds_planned"]:
        text["seeds_apart"] += f" (of {compared})"
    text["parameters"] = NONE if row["parameters"] is None else f"{round(row['parameters']):,}"
    for key in ("epoch_seconds", "seconds_to_best"):
        text[key] = seconds(row[key])
    return text


def known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def number(value: float | None) -> str:
    """.1777, as the house writes what lies within 0..1."""
    return f"{value:.4f}".replace("0.", ".", 1) if value is not None and math.isfinite(value) else NONE


def share(value: float | None) -> str:
    return f"{100 * value:+.1f} %".replace("-", "−") if value is not None and math.isfinite(value) else NONE


def probability(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return NONE
    text = "< .001" if value < 0.001 else f"{value:.3f}".replace("0.", ".", 1)
    return text + (" *" if value < LEVEL else "")


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def best_tower(rows: Sequence[Row]) -> str | None:
    """The tower of a table with the highest mean; None where there are fewer than two to choose among."""
    scored = [row for row in rows if not row["floor"] and row[MAIN] is not None]
    return max(scored, key=lambda row: float(row[MAIN]))["tower"] if len(scored) > 1 else None


WINS = (
    ("tower", "tower"),
    ("compared", "compared"),
    ("above", "above"),
    ("significantly_above", "significantly"),
    ("seeds_apart_above", "and seeds apart"),
    ("significantly_below", "significantly below"),
    ("median_gain", "median gain"),
    ("best", "best tower"),
    ("significantly_best", "significantly best"),
)


def printed_wins(row: Row, reference: str) -> dict[str, str]:
    text = {key: str(row[key]) for key, _ in WINS}
    text["median_gain"] = share(row["median_gain"])
    for key in ("best", "significantly_best"):
        text[key] = f"{row[key]} of {row['tables']}"
    if row["tower"] == reference:
        text |= {key: NONE for key in text if key not in ("tower", "best", "significantly_best")}
    return text


def headline(findings: Findings) -> str:
    """One sentence: what the tower with most significant wins did, or how the reference stands above all."""
    reference = next((row for row in findings.wins if row["tower"] == findings.study.reference), None)
    others = [row for row in findings.wins if row["tower"] != findings.study.reference and row["compared"]]
    if not others:
        return "Nothing can be compared yet."
    if reference is not None and not any(row["above"] for row in others):
        made = sum(row["compared"] for row in others)
        below = sum(row["significantly_below"] for row in others)
        return (
            f"No tower is above {reference['tower']}: of {made} comparisons {below} are significantly below it, and it "
            f"is the best tower in {reference['best']} of {reference['tables']} tables, significantly in "
            f"{reference['significantly_best']}."
        )
    first = max(others, key=lambda row: (row["significantly_above"], row["above"], row["median_gain"] or 0.0))
    return (
        f"{first['tower']} is above {findings.study.reference} in {first['above']} of {first['compared']} tables, "
        f"significantly in {first['significantly_above']}, and the best tower in {first['best']} of {first['tables']}."
    )


def meanings(findings: Findings) -> list[tuple[str, str]]:
    """(term, what it means) for what the tables hold."""
    reference = findings.study.reference
    compared = sorted({row["seeds_compared"] for row in findings.rows if (row["seeds_compared"] or 0) > 1})
    chance = " or ".join(
        f"{100 * 2 / math.comb(2 * n, n):.0f} % of cases with {n} seeds each" for n in compared
    )
    return [
        (
            f"{MAIN}, HR@10",
            "mean over seeds (± standard deviation over seeds), on "
            + ("test." if findings.part == "test" else "validation; test is not opened."),
        ),
        (
            "gain, interval",
            f"of mean {MAIN} over that of {reference}; 95 % percentile bootstrap over users, of these trained models.",
        ),
        (
            "p (Holm)",
            "paired randomisation test over users (10,000 sign flips, so at least 1/10,001 before correction; "
            "each user's values averaged over seeds first). "
            f"{findings.family}. A star is p < .05. The test speaks of these trained models, not of other seeds. "
            "The t-test's p is beside it in comparisons.csv.",
        ),
        (
            "seeds apart",
            f"every seed is above, or every one below, every seed of {reference}; (of n): only the n seeds that "
            "both have were compared"
            + (f". Alike models are apart by chance in {chance}." if chance else "; one seed tells nothing."),
        ),
        (
            "head, tail, cold",
            "users whose target is among the fifth of the items seen most in training, another item, or one never seen "
            "there.",
        ),
        (
            "short, mid, long",
            "users by the length of their history, in thirds; the header has the lengths.",
        ),
        (
            "best tower",
            "highest mean in a table. Significantly: above each other tower of it (largest of the one-by-one p-values, "
            "an intersection-union test), Holm over all towers of all tables.",
        ),
        ("cost", "mean over seeds; seconds to best are those until the epoch that validation chose."),
    ]


def markdown(findings: Findings, pictures: Sequence[tuple[str, str, str]]) -> str:
    """REPORT.md. pictures: (path beside the report, title, caption)."""
    lines = [f"# {_plain(findings.study.name)}", "", _plain(headline(findings)), ""]
    lines += [f"- {_plain(note)}" for note in findings.notes] + ([""] if findings.notes else [])
    lines += ["## How often each tower wins", "", _plain(findings.family) + ".", ""]
    lines += _grid(
        [header for _, header in WINS],
        [[printed_wins(row, findings.study.reference)[key] for key, _ in WINS] for row in findings.wins],
    )
    for path, title, caption in pictures:
        lines += [f"## {title}", "", caption, "", f"![{title}]({path})", ""]
    for table in findings.tables:
        rows, shown = findings.of(table), columns(findings, table)
        best = best_tower(rows)
        lines += [f"## {_plain(table.title)}", ""]
        body = []
        for row in rows:
            text = printed(row)
            if row["tower"] == best:
                text[MAIN] = f"**{text[MAIN]}**"
            body.append([text[key] for key, _, _ in shown])
        lines += _grid([_header(header, over) for _, header, over in shown], body)
        if table.protocol:
            lines += [_plain(f"Protocol: {table.protocol}."), ""]
    lines += ["## What the columns mean", ""]
    lines += [f"- **{_plain(term)}**: {_plain(sentence)}" for term, sentence in meanings(findings)]
    return "\n".join(lines) + "\n"


def _header(header: str, over: str) -> str:
    return f"{over} {header}" if over in ("valid", "test") else header


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [_line(header), "|---|" + "---:|" * (len(header) - 1), *(_line(row) for row in rows)]
    return [*lines, ""]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(cell) for cell in cells) + " |"


def _plain(text: str) -> str:
    """Names cannot break a table or bring markup: bars, angle brackets and line ends are escaped."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def tidy(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Long CSV; None and NaN are empty fields."""
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = [row.get(name) for name in names]
        writer.writerow(
            ["" if v is None or (isinstance(v, float) and not math.isfinite(v)) else v for v in values]
        )
    return held.getvalue()


MEASURED = ("data", "backbone", "table", "tower", "seed", "part", "group", "users", "metric", "value")
COMPARISONS = (
    "data", "backbone", "table", "tower", "against", "part", "metric", "users", "mean", "reference", "difference",
    "low", "high", "gain", "gain_low", "gain_high", "p", "p_t", "p_holm", "family", "seeds", "seeds_apart",
)  # fmt: skip
