"""Triton kernels compiled for a GPU on a machine that has none: each launch ends where it would be given to the device.

What is compiled are the launches themselves, with the types, alignments and constants of their arguments, down to the
machine code of the `ptxas` that Triton brings.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ARCHITECTURES = (90, pytest.param(80, marks=pytest.mark.slow))
"""Compiled for the newer one every time."""
SHARED_BYTES = {80: 166_912, 90: 232_448}
"""Shared memory that a program may have, by the GPU's architecture."""


class _Device:
    """All that Triton asks of a driver until it loads a kernel."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return self._target.arch

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def compiled_only(architecture: int, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have launches compile for `sm_<architecture>` and run nothing; give the kernels by name, as often as launched."""
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    if triton.knobs.runtime.interpret:
        pytest.skip("TRITON_INTERPRET: nothing is compiled")
    try:
        assert triton.knobs.nvidia.ptxas.path
    except RuntimeError as error:
        pytest.skip(f"this Triton brings no ptxas: {error}")
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    compiled: dict[str, list[Any]] = {}
    run = triton.JITFunction.run

    def compile_only(self: Any, *arguments: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(self, *arguments, warmup=True, **options)
        compiled.setdefault(self.fn.__name__, []).append(kernel)
        return kernel

    with monkeypatch.context() as patched:
        patched.setenv("TRITON_CACHE_DIR", str(cache))
        patched.setattr(triton.JITFunction, "run", compile_only)
        patched.setattr(driver, "_active", _Device(GPUTarget("cuda", architecture, 32)))
        yield compiled


def check_all(compiled: Mapping[str, Iterable[Any]], architecture: int) -> None:
    """Hold every launch of the compiled kernels, by their names, to what a GPU can load."""
    for launches in compiled.values():
        for kernel in launches:
            assert kernel.asm["cubin"].startswith(b"\x7fELF")
            assert f".target sm_{architecture}" in kernel.asm["ptx"]
            assert kernel.metadata.shared <= SHARED_BYTES[architecture]


def kernels_of(*modules: ModuleType) -> set[str]:
    """Names of the kernels of modules: their jitted functions but for those that others call."""
    import triton

    functions, called = {}, set()
    for module in modules:
        for name, value in vars(module).items():
            if isinstance(value, triton.JITFunction):
                assert functions.setdefault(name, value) is value, f"two of the name {name}"
    for function in functions.values():
        calls = [node.func for node in ast.walk(function.parse()) if isinstance(node, ast.Call)]
        called |= {name.id for name in calls if isinstance(name, ast.Name)}
    return set(functions) - called


def modules_of(package: ModuleType) -> list[ModuleType]:
    """The modules of a package."""
    return [
        importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)
    ]
