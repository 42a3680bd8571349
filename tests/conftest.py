"""Shared fixtures. Data that may not be committed is read in place and its tests skip, with a reason, without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.object_store import s3, s3_server  # noqa: F401 - fixtures
from tests.support.places import shared_folder


@pytest.fixture(scope="session")
def parity_folder() -> Path:
    return shared_folder("parity")


@pytest.fixture(scope="session")
def davis_folder() -> Path:
    return shared_folder("data/davis-dev")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves tests marked `gpu` out where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
