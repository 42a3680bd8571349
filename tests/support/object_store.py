"""An object store over loopback, as fixtures for every test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import fsspec
import pytest

from tests.support import weed

__all__ = ["KEEPS_FOLDERS", "s3", "s3_server"]

KEEPS_FOLDERS = os.environ.get("RTS_BATCH_TEST_S3") == "seaweedfs"  # `make test-slow`
"""Whether the store's keys are a tree of folders: it cleans them (`//`, `..`, backslashes), and empty folders stay."""


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    if KEEPS_FOLDERS:
        with weed.serving() as address:
            yield address
        return
    from moto.server import ThreadedMotoServer  # a second, which few test modules have need of

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server,
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    fsspec.filesystem("s3").mkdir(bucket)
    return f"s3://{bucket}"
