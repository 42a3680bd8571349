"""What is told of an attempt that failed."""

from __future__ import annotations

import pytest
import torch

from rts_batch.worker import report
from rts_batch.worker.messages import OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("error", "lack"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (ValueError("STATUS_ALLOC_FAILED"), False),
    ],
)
def test_a_lack_of_memory_is_known_whoever_says_it(error: Exception, lack: bool) -> None:
    assert (report._name(error) in OUT_OF_MEMORY) is lack
