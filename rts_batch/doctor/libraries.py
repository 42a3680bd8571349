"""The libraries that runs need: whether each imports here, which it is, what it finds."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from rts_batch.doctor.finding import Finding
from rts_batch.io import processes

REQUIRED: Final = ("numpy", "torch", "ray", "av", "cv2", "pyarrow", "pycocotools", "fsspec", "safetensors")
OPTIONAL: Final = {
    "decord": "PyAV decodes every video instead, mostly slower",
    "openvino": "PyTorch runs the network on CPUs instead, slower",
}
"""What becomes of a run without them."""

SECONDS: Final = 120.0
"""After so long a library counts as hung."""

NVIDIA_DRIVER: Final = Path("/proc/driver/nvidia/version")
INSTALL: Final = "install rts-batch again in a fresh environment: pip install rts-batch"


def examine_libraries() -> Iterator[Finding]:
    """Import each library in a process of its own, a few at the same time, and yield what came of it."""
    names = [*REQUIRED, *(name for name in OPTIONAL if importlib.util.find_spec(name) is not None)]
    with ThreadPoolExecutor(2) as pool:
        for name, found in zip(names, pool.map(_ask, names), strict=True):
            if isinstance(found, str):
                yield _broken(name, found)
            else:
                yield from DESCRIBED.get(name, _plain)(name, found)
    for name in OPTIONAL.keys() - set(names):
        yield Finding("ok", name, f"not installed: {OPTIONAL[name]}")


def _ask(name: str) -> dict[str, Any] | str:
    """Return what `probe` says of a library, or why it says nothing."""
    command = processes.python("rts_batch.doctor.probe", name)
    environment = {**processes.environment(), "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        outcome = subprocess.run(command, env=environment, capture_output=True, timeout=SECONDS, check=False)
        if outcome.returncode == 0:
            found: dict[str, Any] = json.loads(outcome.stdout)
            return found
    except subprocess.TimeoutExpired:
        return f"it is not imported within {SECONDS:.0f} s"
    except (OSError, ValueError) as error:
        return str(error)
    if outcome.returncode < 0:
        return f"importing it ends the process with {signal.Signals(-outcome.returncode).name}"
    said = outcome.stderr.decode(errors="replace").strip().splitlines()
    return said[-1] if said else f"importing it ends the process with exit code {outcome.returncode}"


def _broken(name: str, why: str) -> Finding:
    if name in OPTIONAL:
        return Finding("warn", name, why, f"pip uninstall {name}, or mend it: {OPTIONAL[name]}")
    return Finding("fail", name, why, INSTALL)


def _plain(name: str, found: Mapping[str, Any]) -> Iterator[Finding]:
    yield Finding("ok", name, found["version"])


def _torch(name: str, found: Mapping[str, Any]) -> Iterator[Finding]:
    build = f"for CUDA {found['cuda']}" if found["cuda"] else "for CPUs"
    yield Finding("ok", name, f"{found['version']}, built {build}")
    for number, gpu in enumerate(found["gpus"]):
        text = f"{gpu['name']}, {gpu['bytes'] / 2**30:.0f} GiB, compute capability {gpu['capability']}"
        yield Finding("ok", f"GPU {number}", text)
    if found["gpus"]:
        return
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not NVIDIA_DRIVER.exists():
        yield Finding("ok", "GPU", "none: runs take the CPU")
    elif hidden is not None and hidden.strip() in ("", "-1"):
        yield Finding("warn", "GPU", "hidden by CUDA_VISIBLE_DEVICES", "unset CUDA_VISIBLE_DEVICES")
    elif found["cuda"] is None:
        advice = "install PyTorch's build for CUDA, as https://pytorch.org says"
        yield Finding("warn", "GPU", "there is an NVIDIA driver, and this PyTorch is built for CPUs", advice)
    else:
        advice = f"see that nvidia-smi names CUDA {found['cuda']} or newer; in a container, start it with --gpus all"
        yield Finding("warn", "GPU", "there is an NVIDIA driver, and PyTorch finds no device", advice)


def _av(name: str, found: Mapping[str, Any]) -> Iterator[Finding]:
    text = f"{found['version']} with FFmpeg {found['ffmpeg']}"
    if missing := found["missing_decoders"]:
        advice = "take PyAV's own wheel, which brings FFmpeg along: pip install --force-reinstall --only-binary=av av"
        yield Finding("warn", name, f"{text}, which cannot decode {', '.join(missing)}", advice)
    elif not found["writes_h264"]:
        advice = "take PyAV's own wheel; only `rts-batch review --overlay` needs it"
        yield Finding("warn", name, f"{text}, which cannot write H.264", advice)
    else:
        yield Finding("ok", name, text)


def _decord(name: str, found: Mapping[str, Any]) -> Iterator[Finding]:
    ffmpeg = f" with libavcodec {found['libavcodec']}" if found["libavcodec"] else ""
    yield Finding("ok", name, f"{found['version']}{ffmpeg}")


DESCRIBED: Final[Mapping[str, Callable[[str, Mapping[str, Any]], Iterator[Finding]]]] = {
    "torch": _torch,
    "av": _av,
    "decord": _decord,
}
