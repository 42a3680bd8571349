"""A folder of files that appears whole or not at all."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rts_batch.errors import StorageError, UsageError
from rts_batch.io.storage import files, uris


@contextlib.contextmanager
def staged_folder(uri: str) -> Iterator[Path]:
    """Give an empty local folder to write to; leaving the block without an error puts it at `uri`.

    Locally it is a hidden neighbour that is renamed, so files are never copied. The folder in which the process runs is
    filled instead, whose caller would otherwise stand in one that is gone, and so is a mounted one, a container's say,
    which cannot be replaced: there it lies inside. For an object store it is a temporary folder whose files are then
    uploaded one by one: the local disk holds them all for a while.

    Raises:
        UsageError: `uri` exists and is not an empty folder.
        StorageError: the folder cannot be written.
    """
    target = uris.local_path(uri)
    if target is None:
        if files.list_names(uri) or files.list_folders(uri):
            raise UsageError(f"{uris.safe_uri(uri)} holds files already; give a new folder")
        with tempfile.TemporaryDirectory(prefix="rts-batch-") as scratch:
            yield Path(scratch)
            for path in sorted(path for path in Path(scratch).rglob("*") if path.is_file()):
                files.put_file(path, uris.join(uri, path.relative_to(scratch).as_posix()))
        return
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists already; give a new folder")
    target = target.resolve()  # `.` has no name, and a link stays one
    place = target if target.is_mount() else target.parent
    stage = place / f".{target.name}.{secrets.token_hex(4)}{files.TEMPORARY_SUFFIX}"
    try:
        stage.mkdir(parents=True)
        yield stage
        if target in (place, Path.cwd()):
            for path in list(stage.iterdir()):
                path.replace(target / path.name)
        else:
            stage.replace(target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error}", transient=True) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
