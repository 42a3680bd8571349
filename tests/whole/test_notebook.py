"""The notebook of `examples/`, run cell by cell in a kernel of its own."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.places import REPOSITORY

NOTEBOOK = REPOSITORY / "examples" / "first-video.ipynb"


@pytest.mark.ray
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert "24 frames; tracked" in said
    assert "1 of 1 videos, 24 frames, 0 failures" in said
    same = re.search(r"([\d.]+)% of the pixels", said)
    assert same is not None
    assert float(same[1]) > 99
    assert "1 of 1 were done before" in said
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_it_is_kept_without_what_it_printed() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if "outputs" in cell)
