"""Each Triton kernel of the tracker compiles for GPUs, as it is launched; the interpreter says nothing of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from rts_batch.config import MODELS
from tests.support.offline import ARCHITECTURES, check_all, compiled_only, kernels_of, modules_of
from tests.support.slots import slot_and_branches


@pytest.mark.long
@pytest.mark.parametrize("network", MODELS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_as_it_is_launched(
    network: str, architecture: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with compiled_only(architecture, tmp_path, monkeypatch) as compiled:
        from rts_batch.tracking.gpu import kernels
        from rts_batch.tracking.gpu.kernels.steps import KernelSteps

        slot, _ = slot_and_branches(*MODELS[network])
        rounds = KernelSteps.rounds(slot.network)
        rounds.before()
        rounds.after()
    assert set(compiled) == kernels_of(*modules_of(kernels))
    check_all(compiled, architecture)
