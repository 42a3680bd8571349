"""Reading Parquet without Arrow's threads, which may not hold anything of Python's when it ends."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rts_batch.io.storage.parquet import read_parquet
from tests.support.places import REPOSITORY
from tests.support.training_layouts import write_run

TABLE = pa.table({"name": ["a", "b"], "size": [1, 2]}).replace_schema_metadata({"key": "value"})

THREADS = """
import os, sys
import pyarrow.parquet as pq
from rts_batch.io.storage.parquet import read_parquet
def threads():
    return len(os.listdir("/proc/self/task"))
before = threads()
{read}
print(threads() - before)
"""


def written() -> bytes:
    sink = io.BytesIO()
    pq.write_table(TABLE, sink)
    return sink.getvalue()


def test_a_file_and_its_bytes_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(written())
    for source in (written(), str(tmp_path / "a.parquet")):
        assert read_parquet(source).equals(TABLE, check_metadata=True)
        assert read_parquet(source, columns=["size"]).to_pydict() == {"size": [1, 2]}


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(pa.ArrowInvalid, match="no column 'weight'"):
        read_parquet(written(), columns=["size", "weight"])
    with pytest.raises(pa.ArrowInvalid):
        read_parquet(b"no Parquet")
    with pytest.raises(OSError, match=r"b\.parquet"):
        read_parquet(str(tmp_path / "b.parquet"))


def threads_begun(read: str, *arguments: str) -> int:
    """How many more threads a process has after reading than before."""
    command = [sys.executable, "-c", THREADS.format(read=read), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
@pytest.mark.long
def test_nothing_of_python_is_left_with_other_threads(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(written())
    assert threads_begun("read_parquet(open(sys.argv[1], 'rb').read())", str(tmp_path / "a.parquet")) == 0
    # So a thread would be seen:
    assert threads_begun("pq.read_table(sys.argv[1])", str(tmp_path / "a.parquet")) > 0


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
@pytest.mark.parametrize(
    "read",
    [
        "list(Predictions(sys.argv[1]).masks('a', 1, start=0, wanted=[3]))",
        "run = RunMasks(sys.argv[1]); run.visible(0); run.masks(0, [3])",
        "read_masks(sys.argv[1]).table(object_ids=[1])",
    ],
)
@pytest.mark.long
def test_scoring_training_and_tables_read_masks_in_the_same_way(tmp_path: Path, read: str) -> None:
    folder = write_run(tmp_path / "run")
    imports = (
        "from rts_batch import read_masks; "
        "from rts_batch.evaluation.predictions import Predictions; "
        "from rts_batch.training.clips.datasets import RunMasks"
    )
    assert threads_begun(f"{imports}; before = threads(); {read}", str(folder)) == 0
