"""The Python of docs/exchange.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from dualview import Store

GUIDE = Path(__file__).parents[2] / "docs" / "exchange.md"


def test_the_python_of_the_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ids = [f"p{n}" for n in range(5)]
    Store.create("shop", "").ingest(pa.table({"item_id": ids, "title": ids}))
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    scope: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), scope)
    said = capsys.readouterr().out.splitlines()
    assert said[:4] == ["3 2 0", "p1", "[(5,)]", "p1"]
    assert "ViT-B-32" in said[4]
