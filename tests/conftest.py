"""Shared fixtures. Data that may not be committed is read in place and its tests skip, with a reason, without it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

from tests.support.cluster import cluster, pytest_runtest_teardown, pytest_sessionfinish  # noqa: F401 - hooks, too
from tests.support.object_store import s3, s3_server  # noqa: F401 - fixtures
from tests.support.places import shared_folder

PARALLEL = "PYTEST_XDIST_WORKER" in os.environ
if PARALLEL:  # read when PyTorch is imported: the processes share the cores already
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Ray's workers give way to everything else by default, and would starve beside the tests that run at the same time.
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # as the package does for a local Ray of its own

hypothesis.settings.register_profile("rts-batch", deadline=None)  # a test fails for what it finds, not for its seconds
hypothesis.settings.load_profile("rts-batch")


@pytest.fixture(scope="session")
def parity_folder() -> Path:
    return shared_folder("parity")


@pytest.fixture(scope="session")
def davis_folder() -> Path:
    return shared_folder("data/davis-dev")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in this hook too, and would find none yet
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves tests marked `gpu` out where there is none, and says which tests several processes may share out."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    if PARALLEL:
        together = Counter(_group(item) for item in items)
        items.sort(key=lambda item: (_turn(item), -together[_group(item)]))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _group(item: pytest.Item) -> str:
    """Name the tests that one process runs one after the other."""
    if item.get_closest_marker("ray"):
        # At most two Ray clusters at the same time, as each takes all cores: the longest module's, and all others'.
        return f"ray {item.path.name == 'test_submit.py'}"
    if "parity" in item.path.parts:
        return f"{item.path.name} {'fast' in item.name}"  # the plain network, or the workers', made once
    return str(item.path.relative_to(item.config.rootpath))  # whose fixtures are made once


def _turn(item: pytest.Item) -> int:
    """Say when it is begun: the longest groups first, so that no process is left alone with them at the end.

    Of groups of one kind the one with the most tests is taken for the longest.
    """
    turns = (
        item.path.name == "test_submit.py" and item.get_closest_marker("ray"),
        item.get_closest_marker("ray"),
        item.get_closest_marker("training"),
        "parity" in item.path.parts,
        item.get_closest_marker("networks") or item.get_closest_marker("long"),
        True,
    )
    return [bool(turn) for turn in turns].index(True)
