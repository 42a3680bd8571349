"""Which of the modules have Triton kernels: each has a test that compiles them all."""

from __future__ import annotations

import pytest

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
