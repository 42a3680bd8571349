"""Published checkpoints from their source into the cache, as one safe file that has been checked."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from rts_batch.errors import StorageError, WeightsError
from rts_batch.io.storage import files, uris
from rts_batch.weights.file import save_weights
from rts_batch.weights.publications import Publication, cached
from rts_batch.weights.registry import import_weights, load_weights

TRIES: Final = 4
SECONDS: Final = 60.0
"""Without a byte for so long, a connection counts as lost."""


class Source(Protocol):
    """Where checkpoints come from."""

    where: str
    """For messages and for the provenance in the file."""

    def fetch(self, publication: Publication, folder: Path) -> Mapping[str, Path]:
        """Bring the publication's files into an empty folder; return where each lies, by its published name.

        Raises:
            WeightsError: they cannot be had. The message says why.
        """
        ...


class GoogleDrive:
    """The authors' own folder, through gdown, which is an extra."""

    def __init__(self, publication: Publication, *, quiet: bool = False) -> None:
        self.where = publication.address
        self._quiet = quiet

    def fetch(self, publication: Publication, folder: Path) -> Mapping[str, Path]:
        try:
            import gdown
        except ImportError:
            raise WeightsError("Google Drive is read with gdown: pip install 'rts-batch[weights]'") from None
        options: dict[str, Any] = {"quiet": self._quiet, "use_cookies": False, "timeout": SECONDS}
        try:
            listed = gdown.download_folder(
                id=publication.drive_folder, skip_download=True, **{**options, "quiet": True}
            )
            ids = {Path(file.path).name: file.id for file in listed if not isinstance(file, str)}
            if missing := [name for name in publication.files if name not in ids]:
                raise WeightsError(
                    f"the folder has no {' and no '.join(missing)}; it has {', '.join(sorted(ids)) or 'none'}"
                )
            for name in publication.files:
                gdown.download(id=ids[name], output=str(folder / name), retries=TRIES - 1, **options)
        except WeightsError:
            raise
        except Exception as error:  # it reads web pages, which may be other ones than it expects
            raise WeightsError(f"{type(error).__name__}: {error}") from error
        return {name: folder / name for name in publication.files}


class Folder:
    """A folder that has the files under their published names: a path, or a URI of a store or of a web server."""

    def __init__(self, uri: str) -> None:
        self.where = uris.safe_uri(uri)
        self._uri = uri

    def fetch(self, publication: Publication, folder: Path) -> Mapping[str, Path]:
        try:
            return {name: files.fetch(uris.join(self._uri, name), folder) for name in publication.files}
        except StorageError as error:
            raise WeightsError(str(error)) from error


def get(publication: Publication, source: Source) -> Path:
    """Fetch, import and check a publication, and put it into the cache; return where it is.

    What is in the cache already is replaced in one step, and stays where anything fails.

    Raises:
        WeightsError: the files cannot be had, or are not what they are called.
    """
    target = cached(publication.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{publication.name}-", dir=target.parent) as folder:
            return _get(publication, source, Path(folder), target)
    except OSError as error:
        raise WeightsError(
            f"{target}: cannot be written ({error.strerror or error}); RTS_BATCH_CACHE names another folder"
        ) from None


def _get(publication: Publication, source: Source, folder: Path, target: Path) -> Path:
    try:
        found = source.fetch(publication, folder)
        weights = import_weights(found[publication.tracker], sta=found[publication.sta], licence=publication.licence)
    except WeightsError as error:
        raise WeightsError(
            f"{publication.name} cannot be had from {source.where}: {error}\n"
            f"Fetch {' and '.join(publication.files)} from {publication.address} with a browser, then: "
            f"rts-batch weights get {publication.name} --from FOLDER"
        ) from error
    made = folder / target.name
    save_weights(weights, made)
    if load_weights(made).fingerprint != weights.fingerprint:
        raise WeightsError(f"{target}: what was written is not what was fetched; is the disk sound?")
    made.replace(target)
    return target
