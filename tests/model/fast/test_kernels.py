"""Which of the modules have Triton kernels: each has a test that compiles them all."""

from __future__ import annotations

import pytest
import torch

from tests.support.offline import kernels_of, modules_of

COMPILED_BY = {
    "bicubic": "test_projection",
    "bilinear": "test_joined",
    "crops": "test_joined",
    "descent": "test_tau",
    "energy": "test_joined",
    "hinge": "test_kappa",
    "pointwise": "test_epilogue",
    "products": "test_tau",
}


def test_every_kernel_is_compiled_by_a_test() -> None:
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    if triton.knobs.runtime.interpret:
        pytest.skip("TRITON_INTERPRET: nothing is compiled")
    from rts_batch.model.fast import kernels

    found = {module.__name__.rpartition(".")[2] for module in modules_of(kernels) if kernels_of(module)}
    assert found == COMPILED_BY.keys()


def test_kernels_that_write_nothing_are_not_taken_for_ones_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies in the memory that they should have written: a number that is none differs from nothing by more."""
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    if triton.knobs.runtime.interpret:
        pytest.skip("TRITON_INTERPRET: kernels are not what they are on a GPU")
    from rts_batch.model.fast import kernels

    tried = [module for module in modules_of(kernels) if hasattr(module, "try_launch")]
    assert len(tried) > 5
    monkeypatch.setattr(triton.JITFunction, "run", lambda *arguments, **options: None)
    torch.use_deterministic_algorithms(True)  # then new memory is filled with NaN
    try:
        for module in tried:
            with pytest.raises(RuntimeError, match="ran and"):
                module.try_launch(torch.device("cpu"))
    finally:
        torch.use_deterministic_algorithms(False)
