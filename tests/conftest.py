"""Shared fixtures. Data that may not be committed is read in place and its tests skip, with a reason, without it."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from tests.support.object_store import s3, s3_server  # noqa: F401 - fixtures

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("RTS_BATCH_SHARED", REPOSITORY.parent / "shared"))


# How long an example takes says more of the machine's other work than of the code.
hypothesis.settings.register_profile("rts-batch", deadline=None)
hypothesis.settings.load_profile("rts-batch")


def shared_folder(name: str) -> Path:
    """Returns `<shared>/<name>` or skips the calling test."""
    folder = SHARED / name
    if not folder.exists():
        pytest.skip(f"{folder} is absent (set RTS_BATCH_SHARED to the folder that holds {name!r})")
    return folder


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
