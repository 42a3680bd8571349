"""The house rules that a newcomer relies on: which room imports which, who owns what, how long things may grow.

The rules stand here; `tests/support/house.py` looks for what breaks them.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import rts_batch.errors
from tests.support import house
from tests.support.house import Module
from tests.support.places import REPOSITORY

FLOORS = (
    ("errors", "late", "version", "words"),
    ("config", "masks"),
    ("io", "model"),
    ("manifest", "tracking", "weights"),
    ("runs",),
    ("worker", "training", "export", "review", "evaluation"),
    ("actors",),
    ("api",),
    ("__init__",),
    ("doctor",),
    ("cli",),
    ("__main__",),
)
"""From the ground up. A room imports from lower floors and from itself, nothing else."""

LIBRARIES = {
    "ray": ("actors",),
    "typer": ("cli",),
    "fsspec": ("io.storage",),
    "s3fs": ("io.storage",),
    "av": ("io.video", "review.overlay_video"),
    "decord": ("io.video",),
    "safetensors": ("weights",),
    "gdown": ("weights.fetching",),
    "trax": ("evaluation.vot_tracker",),
    "starlette": ("review.server",),
    "uvicorn": ("review.server",),
    "triton": ("tracking.gpu.kernels", "model.fast.kernels"),
    "pyarrow.dataset": (),  # reads with Arrow's threads, which now and then abort the interpreter
}
"""Who may import a library, where few should."""

NAMES = {
    "ParquetWriter": ("io.results", "training"),
}
"""Who may use a name of a library."""

RUN_FOLDER = ("runs.paths",)
"""Who spells the names in a run's folder."""

NOT_A_MODULES_TEST = ("house", "parity", "whole", "support")
"""Test folders that mirror no folder of the package: the repository's rules, published results, the real command."""

LONG_FUNCTIONS = {
    # A command's parameters are its options.
    "rts_batch.cli.submit.submit: lines",
    "rts_batch.cli.submit.submit: parameters",
    "rts_batch.cli.submit.plan: parameters",
    "rts_batch.cli.resume.resume: parameters",
    "rts_batch.cli.review.review: parameters",
    "rts_batch.cli.export.export: lines",
    "rts_batch.cli.export.export: parameters",
    "rts_batch.cli.importing.from_coco: parameters",
    "rts_batch.cli.importing.from_detections: parameters",
    "rts_batch.cli.importing.from_labelme: parameters",
    "rts_batch.cli.importing.from_yolo: parameters",
    # What a recipe may say of a kind of data are the parameters of its builder.
    "rts_batch.training.recipe._lasot_clips: parameters",
    # A Triton kernel takes a pointer for each tensor, and can call no helper that returns early.
    "rts_batch.model.fast.kernels.bicubic.draw: parameters",
    "rts_batch.model.fast.kernels.bicubic.resize: parameters",
    "rts_batch.model.fast.kernels.bilinear._resized: parameters",
    "rts_batch.model.fast.kernels.bilinear.attend: parameters",
    "rts_batch.model.fast.kernels.bilinear.join: parameters",
    "rts_batch.model.fast.kernels.crops.normalise: parameters",
    "rts_batch.model.fast.kernels.descent.descend: parameters",
    "rts_batch.model.fast.kernels.descent.gather: parameters",
    "rts_batch.model.fast.kernels.descent.gradient: parameters",
    "rts_batch.model.fast.kernels.descent.residuals: parameters",
    "rts_batch.model.fast.kernels.hinge.columns: parameters",
    "rts_batch.model.fast.kernels.hinge.correlate: parameters",
    "rts_batch.model.fast.kernels.hinge.gather: parameters",
    "rts_batch.model.fast.kernels.hinge.residuals: parameters",
    "rts_batch.model.fast.kernels.pointwise.finish: parameters",
    "rts_batch.model.fast.kernels.products._shifted: parameters",
    "rts_batch.model.fast.kernels.products.columns: parameters",
    "rts_batch.model.fast.kernels.products.correlate: parameters",
    "rts_batch.tracking.gpu.kernels.common.keep: parameters",
    "rts_batch.tracking.gpu.kernels.common.weigh: parameters",
    "rts_batch.tracking.gpu.kernels.judge.judge: lines",
    "rts_batch.tracking.gpu.kernels.judge.judge: parameters",
    "rts_batch.tracking.gpu.kernels.judge.paste: lines",
    "rts_batch.tracking.gpu.kernels.likeness.average: parameters",
    "rts_batch.tracking.gpu.kernels.likeness.liken: parameters",
    "rts_batch.tracking.gpu.kernels.measure.combine: lines",
    "rts_batch.tracking.gpu.kernels.measure.combine: parameters",
    "rts_batch.tracking.gpu.kernels.search.search: lines",
    "rts_batch.tracking.gpu.kernels.search.search: parameters",
}
"""Exceptions that stay, each with its reason."""

MODULES = house.read_modules()
TESTS = house.read_modules(REPOSITORY / "tests")
BENCHMARKS = house.read_modules(REPOSITORY / "benchmarks")
TEST_FILES = [
    path.relative_to(REPOSITORY / "tests").as_posix() for path in sorted((REPOSITORY / "tests").rglob("test_*.py"))
]


def test_imports_go_down() -> None:
    assert house.upward_imports(MODULES, FLOORS) == []


def test_no_circles() -> None:
    assert house.circles(MODULES) == []


def test_libraries_have_owners() -> None:
    assert [*house.foreign_libraries(MODULES, LIBRARIES), *house.foreign_names(MODULES, NAMES)] == []


def test_one_module_knows_a_run_folders_names() -> None:
    assert house.run_folder_names(MODULES, RUN_FOLDER) == []


def test_modules_are_short() -> None:
    assert house.long_modules(MODULES) == []


def test_functions_are_short() -> None:
    """An exception that is none any more is to be taken from the list."""
    assert set(house.long_functions(MODULES)) == LONG_FUNCTIONS


def test_docstrings_say_what_to_do() -> None:
    assert house.told_docstrings(MODULES) == []


def test_types_are_checked_for_the_oldest_python() -> None:
    """What a newer one knows more is met by users only, as `int.from_bytes` without an order of bytes was."""
    project = (REPOSITORY / "pyproject.toml").read_text()
    (oldest,) = re.findall(r'^requires-python = ">=(.+)"$', project, re.MULTILINE)
    assert f'\npython_version = "{oldest}"' in project
    assert f'\ntarget-version = "py{oldest.replace(".", "")}"' in project


def test_a_test_lies_where_its_module_does() -> None:
    assert house.lost_tests(TEST_FILES, MODULES, NOT_A_MODULES_TEST) == []


def test_every_folder_has_tests() -> None:
    assert house.untested_folders(TEST_FILES, MODULES) == []


TESTS_OF_BENCHMARKS = {"tests.whole.test_gpu_session"}
"""What measures on machines that are rarely at hand has tests of its own."""


def test_tests_and_benchmarks_share_helpers_only() -> None:
    """What two of them need is in `tests/support`; what the tests of a folder need, in fixtures of its conftest."""
    found = [
        f"{module.name}: imports {imported}"
        for module in [*TESTS, *BENCHMARKS]
        for imported in module.imports
        if module.name not in TESTS_OF_BENCHMARKS
        if (house.within(imported, ["tests"]) and not house.within(imported, ["tests.support"]))
        or (house.within(imported, ["benchmarks"]) and house.within(module.name, ["tests"]))
    ]
    assert found == []


def test_every_exception_is_public_and_has_an_exit_code() -> None:
    classes = {
        name: value
        for name, value in vars(rts_batch.errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert sorted(classes) == sorted(rts_batch.errors.__all__)
    for value in classes.values():
        assert issubclass(value, rts_batch.errors.RtsBatchError)
        assert value.exit_code in {1, 2, 10, 11, 12, 13}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "benchmarks").glob("*.py")), ids=lambda p: p.stem)
def test_benchmarks_find_what_they_import(path: Path) -> None:
    """No test runs them, so one that names what has moved would only be noticed by its user."""
    importlib.import_module(f"benchmarks.{path.stem}")


# The checks themselves, on sources that break a rule.


def with_line(name: str, line: str) -> Module:
    """One of the package's modules with a line added at its end, or a new module of that line."""
    source = "".join(module.source for module in MODULES if module.name == name)
    return Module(name, f"{source}\n{line}\n")


@pytest.mark.parametrize(
    "line",
    [
        "import ray",
        "from ray.exceptions import RayError",
        "def later():\n    import ray.util",
        "if TYPE_CHECKING:\n    import ray",
        "importlib.import_module('ray')",
    ],
)
def test_ray_in_the_worker_is_found(line: str) -> None:
    found = house.foreign_libraries([with_line("rts_batch.worker.lane", line)], LIBRARIES)
    assert found == ["rts_batch.worker.lane: imports ray"]
    assert house.foreign_libraries([with_line("rts_batch.actors.ray_cluster", line)], LIBRARIES) == []


@pytest.mark.parametrize(
    ("name", "line", "found"),
    [
        ("rts_batch.io.video.probe", "from rts_batch.actors import pool", "imports rts_batch.actors.pool"),
        ("rts_batch.io.video.probe", "def f():\n    import rts_batch.actors", "imports rts_batch.actors"),
        ("rts_batch.io.video.probe", "if TYPE_CHECKING:\n    import rts_batch", "imports rts_batch"),
        ("rts_batch.io.video.probe", "from rts_batch import read_masks", "imports rts_batch"),
        ("rts_batch.model.sta", "from rts_batch.io.video import probe", "imports rts_batch.io.video.probe"),
        ("rts_batch.loose", "from rts_batch.io.video import probe", "imports rts_batch.io.video.probe"),
    ],
)
def test_an_import_that_goes_up_is_found(name: str, line: str, found: str) -> None:
    assert f"{name}: {found}" in house.upward_imports([*MODULES, with_line(name, line)], FLOORS)


def test_a_room_without_a_floor_is_found() -> None:
    assert house.upward_imports([Module("rts_batch.loose", "")], FLOORS) == ["rts_batch.loose: no floor is given"]


def test_every_circle_is_found() -> None:
    pairs = [("a", "b"), ("b", "a"), ("c", "d"), ("d", "e"), ("e", "c"), ("f", "a")]
    modules = [
        Module(f"rts_batch.{name}", f"if TYPE_CHECKING:\n    from rts_batch.{other} import x") for name, other in pairs
    ]
    assert sorted(house.circles(modules)) == [
        "rts_batch.a, rts_batch.b: circle",
        "rts_batch.c, rts_batch.d, rts_batch.e: circle",
    ]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("x = 'masks/'", "spells 'masks/'"),
        ("x = f'masks/{key}.parquet'", "spells 'masks/'"),
        ("x = f'{folder}/run.json'", "spells '/run.json'"),
        ("x = storage.join(uri, 'masks', key)", "joins 'masks'"),
        ("x = folder / 'videos'", "joins 'videos'"),
        ("FOLDER: Final = 'failed'", "joins 'failed'"),
    ],
)
def test_a_run_folders_name_elsewhere_is_found(line: str, found: str) -> None:
    for name in ("rts_batch.runs.status", "rts_batch.review.report", "rts_batch.io.results.file"):
        assert house.run_folder_names([with_line(name, line)], RUN_FOLDER) == [f"{name}: {found}"]
    assert not house.run_folder_names([with_line("rts_batch.runs.paths", line)], RUN_FOLDER)


def test_prose_may_name_what_is_in_a_run_folder() -> None:
    source = '"""masks/"""\nraise E("it has no run.json: it is no run\'s folder")\ny = {"videos": 3}'
    assert house.run_folder_names([Module("rts_batch.review.report", source)], RUN_FOLDER) == []


def test_a_second_writer_of_masks_is_found() -> None:
    for line in ("pq.ParquetWriter(path)", "from pyarrow.parquet import ParquetWriter"):
        assert "rts_batch.export.run: uses ParquetWriter" in house.foreign_names(
            [Module("rts_batch.export.run", line)], NAMES
        )


def test_what_has_grown_is_found() -> None:
    body = "    x = 1\n" * 51
    source = (
        f"def long():\n{body}\ndef documented():\n    '''{body}'''\nclass C:\n"
        "    def wide(self, a, b, c, d, *, e, f, g, h, i): ...\n"
        "    def fits(self, a, b, c, d, e, f, g, h): ...\n" + "\n" * 200
    )
    module = Module("rts_batch.x", source)
    assert house.long_functions([module]) == ["rts_batch.x.long: lines", "rts_batch.x.wide: parameters"]
    assert house.long_modules([module, Module("rts_batch.y", "\n" * 300)]) == ["rts_batch.x"]


def test_a_docstring_that_tells_is_found() -> None:
    source = 'def f():\n    "Returns it."\ndef g():\n    "Return it."\ndef h():\n    "The mask."\ndef i(): ...'
    assert house.told_docstrings([Module("rts_batch.x", source)]) == ["rts_batch.x.f: Returns"]


def test_a_lost_test_is_found() -> None:
    tests = [
        "io/video/test_probe.py",
        "io/video/test_trouble.py",
        "test_masks.py",
        "test_nothing.py",
        "whole/test_x.py",
    ]
    assert house.lost_tests(tests, MODULES, NOT_A_MODULES_TEST) == ["io/video/test_trouble.py", "test_nothing.py"]
    assert "io/results" in house.untested_folders(tests, MODULES)
    assert "io/video" not in house.untested_folders(tests, MODULES)


def test_a_files_tests_run_in_one_process(request: pytest.FixtureRequest) -> None:
    """Else its fixtures are made in every process, and more than two Rays run at the same time."""
    if not request.config.getoption("loadgroup", default=False):
        pytest.skip("the tests are not shared out by groups")
    assert request.node.nodeid.endswith("@tests/house/test_architecture.py")
