"""Where a video is read from: a local path, a copy on local disk, or a store by ranges."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

from rts_batch.errors import StorageError
from rts_batch.io.storage import files, trouble, uris
from rts_batch.io.storage.download import RESERVE_BYTES, knows_ranges
from rts_batch.io.storage.ranges import RangedObject
from rts_batch.io.storage.retries import retried
from rts_batch.io.video.limits import DecoderName, SpoolLimits
from rts_batch.io.video.members import is_archive


def bring(
    uri: str,
    folder: str | Path,
    limits: SpoolLimits = SpoolLimits(),  # noqa: B008 - frozen
    *,
    decoder: DecoderName = "auto",
) -> Path | RangedObject:
    """Bring a video, or a folder of images, near enough to be decoded.

    What is local stays where it is. An object is copied into `folder` if it is small enough and the disk has room;
    otherwise it is left where it is and read by ranges, which PyAV can do and decord cannot. Folders and archives of
    images, and everything where `decoder` is decord, are always copied.

    Raises:
        StorageError: the video does not exist, or has to be copied and is too large for that.
    """
    if uris.local_path(uri) is not None:
        return files.fetch(uri, folder)
    filesystem, remote = files.open_filesystem(uri)
    with trouble.translated("look up", uri):
        filesystem.invalidate_cache()
        info = retried(lambda: filesystem.info(remote))
        size = filesystem.du(remote) if info["type"] == "directory" else info.get("size")
    most = limits.most_of_one
    room = limits.largest if most is None else min(limits.largest, most)
    if size is None:  # a web server that does not say
        return files.fetch(uri, folder, info=info)
    if _can_be_streamed(uri, info, decoder):
        too_large = size > room or size + RESERVE_BYTES > _free(folder)
        with trouble.translated("read", uri):
            if too_large and knows_ranges(filesystem, remote):
                return RangedObject(uri)
    elif most is not None and size > most:
        raise StorageError(
            f"{uris.safe_uri(uri)} has {size >> 20} MiB and has to lie on disk, where a video may take {most >> 20} "
            f"MiB; give a larger --spool-quota, which {limits.videos} videos share"
        )
    return files.fetch(uri, folder, info=info)


def _can_be_streamed(uri: str, info: dict[str, object], decoder: DecoderName) -> bool:
    is_file = info["type"] != "directory" and bool(info["size"])
    return is_file and decoder != "decord" and not is_archive(urlsplit(uri).path)


def _free(folder: str | Path) -> int:
    """Bytes of disk that are free where `folder` is or will be."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
