"""SeaweedFS, a real object store, for `make test-slow`: its PyPI package is one program beside Python's."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

PROGRAM = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Runs a server on loopback, for anyone's credentials, and yields the address of its S3 interface."""
    assert PROGRAM is not None
    master, volume, filer, s3 = _free_ports(4)
    with tempfile.TemporaryDirectory(prefix="weed-") as folder, open(Path(folder) / "log", "wb") as log:
        process = subprocess.Popen(
            [
                *(PROGRAM, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}"),
                *("-filer", "-s3", "-volume.max=200", "-master.volumeSizeLimitMB=2000", "-master.telemetry=false"),
            ],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
        )
        try:
            address = f"http://127.0.0.1:{s3}"
            _wait_for(address, process, Path(folder) / "log")
            yield address
        finally:
            process.kill()
            process.wait()


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        with contextlib.suppress(OSError):
            try:
                urllib.request.urlopen(f"{address}/", timeout=2).close()
                return
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    return
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    """Ports whose neighbours 10,000 above are free as well: there the program talks to itself."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            with contextlib.suppress(OSError, OverflowError):
                low, high = held.enter_context(socket.socket()), held.enter_context(socket.socket())
                low.bind(("127.0.0.1", 0))
                port = low.getsockname()[1]
                while port + 10_000 > 65_535:
                    port -= 7_000
                    low = held.enter_context(socket.socket())
                    low.bind(("127.0.0.1", port))
                high.bind(("127.0.0.1", port + 10_000))
                found.append(port)
    return found
