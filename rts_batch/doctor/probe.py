"""`python -m rts_batch.doctor.probe NAME` imports a library and prints what it is as a JSON object.

In a process of its own, because a library that does not fit its machine may end the one that imports it.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Mapping
from importlib import import_module, metadata
from typing import Any, Final

DECODERS: Final = ("h264", "hevc", "vp9", "av1", "mpeg4")


def probe(name: str) -> dict[str, Any]:
    """Return `version` of a library, and what more there is to say of it."""
    library = import_module(name)
    version = getattr(library, "__version__", None) or metadata.version(name)
    return {"version": str(version), **DETAILS.get(name, lambda library: {})(library)}


def _torch(torch: Any) -> dict[str, Any]:
    gpus = []
    for number in range(torch.cuda.device_count()) if torch.cuda.is_available() else ():
        about = torch.cuda.get_device_properties(number)
        torch.zeros(1, device=f"cuda:{number}").add_(1).cpu()  # a driver that is too old fails here
        gpus.append({"name": about.name, "bytes": about.total_memory, "capability": f"{about.major}.{about.minor}"})
    return {"cuda": torch.version.cuda, "gpus": gpus}


def _av(av: Any) -> dict[str, Any]:
    codecs = {name: _is_codec(av, name, "r") for name in DECODERS}
    missing = [name for name, is_there in codecs.items() if not is_there]
    writes = _is_codec(av, "libx264", "w")
    return {"ffmpeg": av.ffmpeg_version_info, "missing_decoders": missing, "writes_h264": writes}


def _is_codec(av: Any, name: str, mode: str) -> bool:
    try:
        av.Codec(name, mode)
    except ValueError:  # av.codec.UnknownCodecError
        return False
    return True


def _decord(decord: Any) -> dict[str, Any]:
    """The wheel's FFmpeg has no version that can be asked for, but its libraries have one in their names."""
    files = metadata.files("decord") or []
    codec = next((file.name for file in files if file.name.startswith("libavcodec")), None)
    return {"libavcodec": codec and codec.partition(".so.")[2]}


DETAILS: Final[Mapping[str, Callable[[Any], dict[str, Any]]]] = {"torch": _torch, "av": _av, "decord": _decord}


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):  # a library may greet
        found = probe(sys.argv[1])
    print(json.dumps(found))
