"""The two file layouts of `torch.save`: a pickle that describes tensors, and the flat arrays (storages) beside it.

Both keep their bytes uncompressed, so nothing read here can be larger than the file.
"""

from __future__ import annotations

import abc
import io
import mmap
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from rts_batch.errors import WeightsError
from rts_batch.weights.inert_pickle import read_pickle
from rts_batch.weights.pickled import Name, PersistentId, as_mapping, brief

MAX_NUMEL: Final = 1 << 48
"""More than any file has; numbers beyond it could not even be printed."""

_LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C
_STORAGE_DTYPES: Final = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class Storage:
    """A flat array in the container; `start` is where a view of it begins, in elements."""

    key: str
    dtype: torch.dtype
    numel: int
    start: int = 0

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


def parse_storage(value: Any) -> Storage | None:
    """Read torch's persistent id `("storage", type, key, location, numel[, view])`; None where it is anything else.

    The location (a GPU, say) is ignored: everything is read to the CPU.
    """
    match value:
        case PersistentId(("storage", Name(module, name), str(key), _, int(numel), *view)):
            dtype = _STORAGE_DTYPES.get(name)
            if module not in ("torch", "torch.cuda") or dtype is None or not 0 <= numel < MAX_NUMEL:
                return None
            match view:
                case [] | [None]:
                    return Storage(key, dtype, numel)
                case [(_, int(start), int(_))] if 0 <= start <= numel:
                    return Storage(key, dtype, numel, start)
    return None


def open_container(path: Path) -> Container:
    """Open either layout; raise `WeightsError` naming the byte or entry at fault."""
    try:
        with path.open("rb") as file:
            head = file.read(2)
        return ZipContainer(path) if head == b"PK" else LegacyContainer(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from None


class Container(abc.ABC):
    """The two layouts behind one face: the pickled object as `root`, and the bytes of the storages it refers to."""

    root: Any

    def __init__(self, path: Path) -> None:
        self._path = path
        self._storages: dict[str, bytearray] = {}

    def storage_bytes(self, storage: Storage) -> bytearray:
        """Return a storage's `nbytes` bytes, read once; raise `WeightsError` where the file has not exactly those."""
        if storage.key not in self._storages:
            self._storages[storage.key] = bytearray(self._read_storage(storage.key))
        data = self._storages[storage.key]
        if len(data) != storage.nbytes:
            raise WeightsError(
                f"{self._path}: storage {brief(storage.key)} has {len(data)} bytes, its pickle says {storage.nbytes}"
            )
        return data

    @abc.abstractmethod
    def _read_storage(self, key: str) -> bytes: ...

    @abc.abstractmethod
    def close(self) -> None: ...


class ZipContainer(Container):
    """`<top>/data.pkl` and one entry `<top>/data/<key>` per storage, all stored without compression."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # damage in the directory has many names
            raise WeightsError(
                f"{path}: begins as a zip file, but its directory, before byte {path.stat().st_size}, is missing or "
                f"damaged ({str(error)[:200]}); the file is cut short: fetch it again"
            ) from None
        try:
            self._entries = {entry.filename: entry for entry in self._zip.infolist()}
            self._check_sizes()
            self._top = self._find_top()
            if self._read_optional("byteorder") not in (None, b"little"):
                raise WeightsError(f"{path}: written on a big-endian machine; save it again on a little-endian one")
            name = f"{self._top}data.pkl"
            self.root, _ = read_pickle(io.BytesIO(self._read(name)), f"{path}: entry {brief(name)}")
        except WeightsError:
            self._zip.close()
            raise

    def _check_sizes(self) -> None:
        """No entry may unpack to more than it takes up, so that what is read is never more than the file."""
        for entry in self._entries.values():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise WeightsError(
                    f"{self._path}: entry {brief(entry.filename)} is compressed; torch.save stores its entries plain"
                )
        total, size = sum(entry.file_size for entry in self._entries.values()), self._path.stat().st_size
        if total > size:
            raise WeightsError(f"{self._path}: its entries claim {total} bytes, the file has {size}")

    def _find_top(self) -> str:
        tops = [
            name.removesuffix("data.pkl")
            for name in self._entries
            if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(tops) != 1:
            raise WeightsError(
                f"{self._path}: a zip file with {len(tops)} entries <name>/data.pkl; expected one, as torch.save writes"
            )
        return tops[0]

    def _read(self, name: str) -> bytes:
        entry = self._entries.get(name)
        if entry is None:
            raise WeightsError(f"{self._path}: entry {brief(name)} is missing; the file is incomplete")
        try:
            return self._zip.read(entry)
        except Exception as error:  # damage anywhere in the entry: header, size, checksum
            raise WeightsError(
                f"{self._path}: entry {brief(name)} is damaged ({str(error)[:200]}); fetch the file again"
            ) from None

    def _read_optional(self, name: str) -> bytes | None:
        return self._read(self._top + name) if self._top + name in self._entries else None

    def _read_storage(self, key: str) -> bytes:
        return self._read(f"{self._top}data/{key}")

    def close(self) -> None:
        self._zip.close()


class LegacyContainer(Container):
    """Five pickles (magic number, protocol, machine, object, storage keys), then each storage: an int64, its values."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as file:
            try:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                raise WeightsError(f"{path}: the file is empty") from None
        try:
            self._read_all()
        except WeightsError:
            self._map.close()
            raise

    def _read_all(self) -> None:
        where = str(self._path)
        magic = self._read_one("magic number") if self._map[:1] == b"\x80" else None
        if magic != _LEGACY_MAGIC:
            raise WeightsError(
                f"{where}: byte 0 begins neither a zip file nor a pickle of torch.save; this is no checkpoint"
            )
        self._read_one("protocol version")
        machine = as_mapping(self._read_one("machine description")) or {}
        if machine.get("little_endian") is False:
            raise WeightsError(f"{where}: written on a big-endian machine; save it again on a little-endian one")
        self.root, ids = read_pickle(self._map, where)  # type: ignore[arg-type]
        keys = self._read_one("storage keys")
        if not isinstance(keys, list):
            raise WeightsError(f"{where}: the list of storages, before byte {self._map.tell()}, is damaged")
        self._extents = self._find_storages(keys, {s.key: s for s in map(parse_storage, ids) if s})

    def _read_one(self, what: str) -> Any:
        return read_pickle(self._map, f"{self._path}: {what}")[0]  # type: ignore[arg-type]

    def _find_storages(self, keys: list[Any], storages: Mapping[str, Storage]) -> dict[str, slice]:
        """Return the bytes that each storage's values take."""
        position, extents = self._map.tell(), {}
        for key in keys:
            storage = storages.get(key) if isinstance(key, str) else None
            if storage is None:
                raise WeightsError(
                    f"{self._path}: byte {position} begins a storage {brief(key)} that the pickle does not describe"
                )
            end = position + 8 + storage.nbytes
            if end > len(self._map):
                raise WeightsError(
                    f"{self._path}: the file ends at byte {len(self._map)}, but storage {brief(key)} takes bytes "
                    f"{position} to {end}; it is cut short: fetch it again"
                )
            numel = int.from_bytes(self._map[position : position + 8], "little", signed=True)
            if numel != storage.numel:
                raise WeightsError(
                    f"{self._path}: byte {position} says {numel} values, the pickle says {storage.numel}"
                )
            extents[key] = slice(position + 8, end)
            position = end
        return extents

    def _read_storage(self, key: str) -> bytes:
        if key not in self._extents:
            raise WeightsError(f"{self._path}: storage {brief(key)} is missing; the file is incomplete")
        return self._map[self._extents[key]]

    def close(self) -> None:
        self._map.close()
