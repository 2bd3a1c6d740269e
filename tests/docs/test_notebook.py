"""The notebook in docs/ is committed without outputs, and runs from the first cell to the report."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "from-bars-to-report.ipynb"


def test_notebook_is_committed_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert [c.cell_type for c in cells].count("code") >= 8
    assert not [c for c in cells if c.cell_type == "code" and (c.outputs or c.execution_count)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_notebook_runs_to_the_report(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("BARCAST_NOTEBOOK_EPOCHS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=500, kernel_name="python3").execute(cwd=str(tmp_path))
    said = "".join(
        o.get("text", "")
        for c in notebook.cells
        if c.cell_type == "code"
        for o in c.outputs
        if o.output_type == "stream"
    )
    assert "12,154 bars of AAPL, FB, GOOG, IBM, MSFT" in said
    assert "always answering the commonest class would have been right" in said
    assert any(word in said for word in ("PROMOTE\n", "KEEP\n", "HOLD\n"))
    (page,) = tmp_path.glob("barcast-notebook-*/report.html")
    html = page.read_text()
    assert "From the notebook" in html
    assert html.count("<svg") == 6
    assert (page.parent / "report.md").read_text().startswith("# From the notebook")
