"""Checkpoint files for the tests: as the published trainer writes them, and as an attacker might."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

RTS_OPTIONS: dict[str, Any] = {
    "filter_size": 3,
    "num_filters": 16,
    "optim_iter": 5,
    "optim_init_reg": 0.01,
    "label_encoder_dims": (16, 32, 64),
    "clf_filter_size": 4,
    "clf_hinge_threshold": 0.05,
    "clf_activation_leak": 0.1,
    "detach_length": float("inf"),
    "backbone_pretrained": True,
}
STA_OPTIONS: dict[str, Any] = {
    "filter_size": 3,
    "num_filters": 16,
    "optim_iter": 5,
    "label_encoder_dims": (16, 32, 64, 128),
    "use_bn_in_label_enc": False,
}


def save_official(
    path: Path,
    net: dict[str, torch.Tensor],
    *,
    options: dict[str, Any] | None = None,
    net_type: str = "RTSNet",
    package: str = "ltr.admin",
    legacy: bool = False,
    extra: dict[str, Any] | None = None,
) -> Path:
    """Writes a checkpoint with every top-level entry of the published trainer, its classes under their full names.

    The classes exist only while the file is written.
    """
    with _foreign_classes(package) as classes:
        constructor = classes["model_constructor.NetConstructor"]()
        constructor.fun_name = "steepest_descent_resnet50_with_clf_encoder"
        constructor.fun_module = "ltr.models.rts.rts_net"
        constructor.args = ()
        constructor.kwds = options or {}
        meter = classes["stats.AverageMeter"]()
        meter.history = [np.float64(0.5), torch.tensor(0.25)]
        settings = classes["settings.Settings"]()
        settings.env = classes["local.EnvironmentSettings"]()
        settings.device = torch.device("cpu")
        settings.size = torch.Size([480, 832])
        parameter = torch.nn.Parameter(torch.ones(3))
        adam = torch.optim.Adam([parameter])
        parameter.sum().backward()
        adam.step()
        entries = {
            "epoch": 200,
            "actor_type": "RTSActor",
            "net_type": net_type,
            "net": OrderedDict(net),
            "net_info": None,
            "constructor": constructor,
            "optimizer": adam.state_dict(),
            "stats": OrderedDict(train=OrderedDict(loss=meter)),
            "settings": settings,
            **(extra or {}),
        }
        torch.save(entries, path, _use_new_zipfile_serialization=not legacy)
    return path


class _foreign_classes:
    """Classes under the published package's names, importable inside the block only."""

    NAMES = (
        "model_constructor.NetConstructor",
        "settings.Settings",
        "local.EnvironmentSettings",
        "stats.AverageMeter",
    )

    def __init__(self, package: str) -> None:
        self.package = package

    def __enter__(self) -> dict[str, type]:
        parts = self.package.split(".")
        names = {".".join(parts[: count + 1]) for count in range(len(parts))}
        names |= {f"{self.package}.{name.split('.')[0]}" for name in self.NAMES}
        self.modules = {name: types.ModuleType(name) for name in names}
        classes = {}
        for full in self.NAMES:
            module, name = full.split(".")
            classes[full] = type(name, (), {"__module__": f"{self.package}.{module}"})
            setattr(self.modules[f"{self.package}.{module}"], name, classes[full])
        sys.modules.update(self.modules)
        return classes

    def __exit__(self, *exc_info: object) -> None:
        for name in self.modules:
            del sys.modules[name]


def net_instructions(net: dict[str, torch.Tensor]) -> tuple[bytes, dict[str, bytes]]:
    """Returns the pickle instructions that leave `net` on the stack, and the storages they refer to."""
    buffer = io.BytesIO()
    torch.save(net, buffer)
    with zipfile.ZipFile(buffer) as file:
        storages = {name.rsplit("/", 1)[1]: file.read(name) for name in file.namelist() if "/data/" in name}
        pickled = next(file.read(name) for name in file.namelist() if name.endswith("data.pkl"))
    return pickled.removeprefix(b"\x80\x02").removesuffix(b"."), storages


def text(value: str) -> bytes:
    """The instruction that pushes a text."""
    encoded = value.encode()
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


def write_zip(path: Path, pickled: bytes, storages: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        for key, data in storages.items():
            file.writestr(f"archive/data/{key}", data)
    return path


def write_with(path: Path, net: dict[str, torch.Tensor], **entries: bytes) -> Path:
    """Writes a zip checkpoint with `net` and, under each name, what the given instructions push."""
    net_part, storages = net_instructions(net)
    body = b"".join(text(name) + instructions + b"s" for name, instructions in entries.items())
    return write_zip(path, b"\x80\x02}" + body + text("net") + net_part + b"s.", storages)


def write_legacy(path: Path, pickled: bytes, storages: dict[str, tuple[int, bytes]]) -> Path:
    """Writes the older layout by hand; a storage is its announced number of values and its bytes."""
    parts = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    parts += [pickled, pickle.dumps(list(storages), 2)]
    parts += [numel.to_bytes(8, "little") + data for numel, data in storages.values()]
    path.write_bytes(b"".join(parts))
    return path
