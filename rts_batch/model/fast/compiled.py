"""Parts of a network compiled by OpenVINO: the same function on a CPU in less time than PyTorch's layers take.

The compiler joins convolutions with what follows them, lays weights and maps out in blocks and picks a kernel for each
shape; its threads sleep while they wait. It is used where its wheel is installed and the weights are on the CPU;
elsewhere the packed layers do the work (`packed.py`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rts_batch.model.fast import kept

Precision = Literal["f32", "bf16"]
"""What the compiled convolutions compute in; inputs and outputs are float32 always."""


def is_available() -> bool:
    """Whether OpenVINO is installed; `RTS_BATCH_CPU_ENGINE=packed` does without."""
    return os.environ.get("RTS_BATCH_CPU_ENGINE") != "packed" and importlib.util.find_spec("openvino") is not None


def engine_name() -> str:
    """What runs networks on this machine's CPU, with its version."""
    return f"openvino {importlib.metadata.version('openvino')}" if is_available() else "pytorch"


@dataclass(frozen=True)
class Engine:
    """How compiled parts run, and where they are kept between processes.

    Args:
        threads: that compute, of all streams together; None takes PyTorch's number.
        streams: requests that run at the same time, one for each lane that asks.
        fingerprint: of the weights; compiled parts are kept for the next process only where it is known.
        cache: folder to keep them in; None takes the user's own (`kept.user_folder`).
    """

    threads: int | None = None
    streams: int = 1
    fingerprint: str | None = None
    cache: Path | None = None

    def properties(self, precision: Precision) -> dict[str, Any]:
        """OpenVINO's settings for a part."""
        return {
            "PERFORMANCE_HINT": "LATENCY" if self.streams == 1 else "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": self.threads or torch.get_num_threads(),
            "NUM_STREAMS": self.streams,
            "ENABLE_CPU_PINNING": False,  # other workers have the same cores
        }

    def kept_part(self, name: str, precision: Precision, shapes: tuple[torch.Size, ...]) -> Path | None:
        """Return where a part compiled for these shapes is kept, whether it is there or not; None for nowhere."""
        folder = self.cache or kept.user_folder()
        if self.fingerprint is None or folder is None:
            return None
        import openvino

        facts = (openvino.__version__, _code(), _processor(), self.fingerprint, name, [list(each) for each in shapes])
        key = json.dumps([*facts, self.properties(precision)], sort_keys=True)
        return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.blob"


class Compiled(nn.Module):
    """A module of tensors to a tuple of tensors, compiled for each shape of its inputs when that first comes.

    Identical to the module up to rounding. Samples of a batch run one by one, so that no sample's result depends on
    its companions; every input has the batch's size. Safe to call from several threads.

    Args:
        name: of the part, unique within the network.
        module: takes tensors `[B, …] float32` and returns a tuple of such.
        engine: how it runs.
        precision: of the convolutions.
    """

    def __init__(self, name: str, module: nn.Module, engine: Engine, *, precision: Precision = "f32") -> None:
        super().__init__()
        self.name = name
        # In a tuple, so that no weights of it count as this module's: they are inside the compiled model already.
        self._plain = (module,)
        self._precision = precision
        self._engine = engine
        self._models: dict[tuple[torch.Size, ...], Any] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled:
        return Compiled(self.name, self._plain[0], self._engine, precision=self._precision)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        samples = zip(*(each.split(1) for each in inputs), strict=True)
        results = [self._run(sample) for sample in samples]
        return results[0] if len(results) == 1 else tuple(torch.cat(each) for each in zip(*results, strict=True))

    def _run(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        import openvino

        shapes = tuple(each.shape for each in inputs)
        request, sizes = self._request(shapes)
        held = [each.detach().contiguous() for each in inputs]  # OpenVINO reads them where they are
        for index, each in enumerate(held):
            request.set_input_tensor(index, openvino.Tensor(each.numpy(), shared_memory=True))
        # New memory for every result: the caller keeps it for as long as it likes.
        results = tuple(torch.empty(size) for size in sizes)
        for index, each in enumerate(results):
            request.set_output_tensor(index, openvino.Tensor(each.numpy(), shared_memory=True))
        request.infer()
        return results

    def _request(self, shapes: tuple[torch.Size, ...]) -> tuple[Any, list[tuple[int, ...]]]:
        """Return this thread's request for inputs of these shapes, and its outputs', which it is slow to tell."""
        requests: dict[tuple[torch.Size, ...], tuple[Any, list[tuple[int, ...]]]]
        requests = self._local.__dict__.setdefault("requests", {})
        if shapes not in requests:
            model = self._model(shapes)
            requests[shapes] = model.create_infer_request(), [tuple(port.shape) for port in model.outputs]
        return requests[shapes]

    def _model(self, shapes: tuple[torch.Size, ...]) -> Any:
        with self._lock:
            if shapes not in self._models:
                self._models[shapes] = self._compile(shapes)
            return self._models[shapes]

    def _compile(self, shapes: tuple[torch.Size, ...]) -> Any:
        part = self._engine.kept_part(self.name, self._precision, shapes)
        if part is None:
            return self._made(shapes)
        known = self._imported(part)
        if known is None:
            with kept.turn(part):
                known = self._imported(part)  # made by another process meanwhile
                if known is None:
                    known = self._made(shapes)
                    kept.write(known.export_model(), part)
        return known

    def _made(self, shapes: tuple[torch.Size, ...]) -> Any:
        return _core().compile_model(self._converted(shapes), "CPU", self._engine.properties(self._precision))

    def _imported(self, part: Path) -> Any | None:
        content = kept.read(part)
        if content is None:
            return None
        try:
            return _core().import_model(content, "CPU", self._engine.properties(self._precision))
        except RuntimeError:  # damaged, or of a processor that only looks the same
            part.unlink(missing_ok=True)
            return None

    def _converted(self, shapes: tuple[torch.Size, ...]) -> Any:
        """The part as OpenVINO's graph; without `openvino.convert_model`, which reports to its makers."""
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        example = tuple(torch.zeros(shape) for shape in shapes)
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # every shape becomes a constant, as it is meant to
            decoder = TorchScriptPythonDecoder(
                self._plain[0],
                example_input=example,
                trace_kwargs={"check_trace": False},  # by tracing it again, which takes most of the time
            )
            frontend = FrontEndManager().load_by_framework("pytorch")
            model = frontend.convert(frontend.load(decoder))
        model.reshape({port: list(shape) for port, shape in zip(model.inputs, shapes, strict=True)})
        return model


@cache
def _code() -> str:
    """What of this package a compiled part depends on: the sources of its networks."""
    sources = sorted(Path(__file__).parent.parent.rglob("*.py"))
    return hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()


@cache
def _processor() -> str:
    """What of this processor a compiled part depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    return hashlib.sha256("\n".join(sorted({line for line in lines if line.startswith(wanted)})).encode()).hexdigest()


@cache
def _core() -> Any:
    import openvino

    logging.getLogger("openvino").setLevel(logging.ERROR)
    return openvino.Core()


class Part(nn.Module):
    """A function of modules as a module, for the compiler."""

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], *modules: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.function = function

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.function(*inputs)
