"""Measures what a GPU does for the tracker, in parts, also on a machine that no package index can be reached from.

    python3 -m benchmarks.gpu --fetch-wheels .whl                      # beforehand, where there is an index
    python3 -m benchmarks.gpu --wheels .whl --out build/gpu            # on the machine with the GPU, from the checkout
    python3 -m benchmarks.gpu --device cpu --small --network rts-mini --out build/dry --wheels .whl   # a dry run

This file needs nothing but Python, and the parts what an image with PyTorch has (PyTorch, Triton and a C compiler for
it, NumPy, OpenCV, PyArrow, pytest) and a few small wheels. Each part is a process of its own that is ended
after nine minutes, and writes its result after each step. The same command again goes on: parts that are complete are
left out, and so are steps that were taken. With --seconds the whole ends by then, as a machine may be lent for no
longer, and says what is left (exit code 3). With --before the same is measured with the code of another checkout, right
after this one's.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

HERE = Path(__file__).resolve().parents[2]

WHEELS: Mapping[str, str] = {
    "av": "av",
    "pycocotools": "pycocotools",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "annotated_types": "annotated-types",
    "typing_inspection": "typing-inspection",
    "typing_extensions": "typing-extensions",
    "hypothesis": "hypothesis",
    "sortedcontainers": "sortedcontainers",
    "fsspec": "fsspec",
    "safetensors": "safetensors",
    "PIL": "pillow",
}
"""What an image with PyTorch may lack: modules, and the packages that bring them."""

EXPECTED = ("torch", "numpy", "cv2", "pyarrow", "pytest")
"""What it must have: large, or made for its driver."""

OUT_OF_TIME = 3
LEAST_SECONDS = 45
"""That must be left for a part to be begun."""


@dataclass(frozen=True)
class Part:
    """`arguments` follow `python3`; `{name}` stands for an option of this command."""

    name: str
    about: str
    arguments: Sequence[str]
    again_before: bool = False
    """Whether the code before can be measured in the same way."""
    needs: str | None = None
    """The option without which it is left out."""
    notes: bool = True
    """Whether it writes its steps itself."""


MEASURED = ("--device", "{device}", "--network", "{network}", "{small}", "--out", "{out}")
PARTS: Sequence[Part] = (
    Part(
        "tests",
        "the tests of the GPU's trackers",
        ("-m", "pytest", "-q", "-ra", "-p", "no:cacheprovider", "-m", "gpu", "tests/tracking/gpu", "tests/model/fast"),
        notes=False,
    ),
    Part(
        "network",
        "the network by places of a batch, with its kernels; the stages of a target",
        ("-m", "benchmarks.gpu.network", "--profiles", "{profiles}", "--places", "{places}", *MEASURED),
    ),
    Part(
        "rates",
        "frames in memory: lanes from threads, while the models learn and after; several targets",
        (
            *("-m", "benchmarks.gpu.rates", "--profiles", "{profiles}", "--lanes", "{lanes}"),
            *("--targets", "{targets}", *MEASURED),
        ),
        again_before=True,
    ),
    Part(
        "whole",
        "480p clips decoded, tracked, encoded and written by a worker's lanes",
        ("-m", "benchmarks.gpu.whole", "--profiles", "{profiles}", "--lanes", "{lanes}", "{video}", *MEASURED),
        again_before=True,
    ),
    Part(
        "plain",
        "the tracker as the paper has it, which rates are compared with",
        ("-m", "benchmarks.gpu.rates", "--profiles", "plain", "--lanes", "1", "--targets", *MEASURED),
    ),
    Part(
        "gates",
        "the profiles' masks against those of exact, on clips of DAVIS",
        ("-m", "benchmarks.gpu.gates", "--davis", "{davis}", "--device", "{device}", "{small}", "--out", "{out}"),
        needs="davis",
    ),
    Part(
        "long",
        "memory over 10,000 frames",
        ("-m", "benchmarks.gpu.long", "--profiles", "{profiles}", "--frames", "{long}", *MEASURED),
    ),
)  # fmt: skip


def main() -> int:
    given = options()
    if given.fetch_wheels:
        return fetch_wheels(given.fetch_wheels, given.for_python)
    if given.list:
        print("\n".join(f"{part.name:14}{part.about}" for part in parts_of(given)))
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the part in hand ends too
    environment = install(given.wheels, given.out / "site")
    end = time.monotonic() + given.seconds if given.seconds else None
    failed, left = [], []
    for part in parts_of(given):
        if (done := said_of(given.out, part)).get("complete"):
            print(f"== {part.name}: complete", flush=True)
            continue
        seconds = given.part_seconds if end is None else min(given.part_seconds, end - time.monotonic())
        if seconds < min(LEAST_SECONDS, given.part_seconds):
            left.append(part.name)
            continue
        more = " (goes on)" if done else ""
        print(f"== {part.name}: {part.about}; at most {seconds:.0f} s{more}", flush=True)
        ended = run(part, given, environment, seconds)
        if ended != 0:
            (left if ended is None else failed).append(part.name)
    if left:
        print(f"left: {' '.join(left)}; the same command again goes on", flush=True)
    if failed:
        print(f"failed: {' '.join(failed)}; see {given.out}/NAME.log", flush=True)
    return 1 if failed else OUT_OF_TIME if left else 0


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("build/gpu"), help="a folder: a JSON file and a log of each part"
    )
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], help="only these; default: all")
    parser.add_argument("--list", action="store_true", help="say what the parts are")
    parser.add_argument("--wheels", type=Path, help="a folder with wheels of what is not installed")
    parser.add_argument("--fetch-wheels", type=Path, metavar="FOLDER", help="fill such a folder, by this Python's pip")
    parser.add_argument("--for-python", metavar="3.N", help="the other machine's Python, where it is another one")
    parser.add_argument("--before", type=Path, help="another checkout, to be measured in turn")
    parser.add_argument("--seconds", type=float, help="begin nothing that cannot end by then")
    parser.add_argument("--part-seconds", type=float, default=540, help="that a part may take")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--network", default="rts50")
    parser.add_argument("--profiles", nargs="+", default=["bf16", "tf32", "exact"])
    parser.add_argument("--places", nargs="+", default=["1", "4", "8", "16"])
    parser.add_argument("--lanes", nargs="+", default=["1", "4", "16"])
    parser.add_argument("--targets", nargs="+", default=["2", "4", "8"])
    parser.add_argument("--video", type=Path, help="the 480p clip of `whole`; default: one is made")
    parser.add_argument("--davis", type=Path, help="DAVIS, for the gates; they are left out without it")
    parser.add_argument("--long", default="10000", metavar="FRAMES")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that all of it runs")
    return parser.parse_args()


def parts_of(given: argparse.Namespace) -> Iterable[Part]:
    """Yield the parts that are wanted, each followed by the same of the code before."""
    for part in PARTS:
        if given.parts and part.name not in given.parts:
            continue
        if part.needs and not getattr(given, part.needs):
            print(f"== {part.name}: left out without --{part.needs}", flush=True)
            continue
        yield part
        if part.again_before and given.before:
            yield Part(f"{part.name}-before", f"{part.about}, by {given.before}", part.arguments)


def run(part: Part, given: argparse.Namespace, environment: Mapping[str, str], seconds: float) -> int | None:
    """Run a part and return its exit code, or None where its time was over."""
    command = [sys.executable, *filled(part.arguments, given, given.out.resolve() / f"{part.name}.json")]
    code = before(given.before.resolve(), given.out) if part.name.endswith("-before") else HERE
    own = {
        **environment,
        "PYTHONPATH": os.pathsep.join([str(code), environment.get("PYTHONPATH", "")]).strip(os.pathsep),
    }
    with (given.out / f"{part.name}.log").open("a") as log:
        print("$", *command[1:], file=log, flush=True)
        ended = followed(command, code, own, log, seconds)
    if not part.notes and ended is not None:
        note = {
            "complete": ended == 0,
            "exit code": ended,
            "last": (given.out / f"{part.name}.log").read_text()[-2000:],
        }
        (given.out / f"{part.name}.json").write_text(json.dumps(note, indent=1) + "\n")
    return ended


def followed(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log: TextIO, seconds: float
) -> int | None:
    """Run a command and pass on what it says; end it, and all that it began, when its time is over."""
    over = threading.Event()

    def stop() -> None:
        over.set()
        os.killpg(process.pid, signal.SIGKILL)

    with later(signal.SIGTERM, signal.SIGINT) as taken_up:  # while nobody would take the process along
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            taken_up()
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                print(line, end="", file=log, flush=True)
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
    return None if over.is_set() else code


@contextmanager
def later(*signals: int) -> Iterator[Callable[[], None]]:
    """Keep signals back until the function that this yields is called, which hands on those that came."""
    came: list[int] = []
    usual = {number: signal.signal(number, lambda number, _: came.append(number)) for number in signals}

    def hand_on() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)

    yield hand_on


def filled(arguments: Sequence[str], given: argparse.Namespace, out: Path) -> list[str]:
    """Put the options in the places of their names."""
    values: dict[str, list[str]] = {
        "{out}": [str(out)],
        "{small}": ["--small"] if given.small else [],
        "{video}": ["--video", str(given.video.resolve())] if given.video else [],
    }
    for name in ("profiles", "places", "lanes", "targets"):
        values[f"{{{name}}}"] = getattr(given, name)
    for name in ("device", "network", "long"):
        values[f"{{{name}}}"] = [str(getattr(given, name))]
    values["{davis}"] = [str(given.davis.resolve())] if given.davis else []
    return [word for argument in arguments for word in values.get(argument, [argument])]


def said_of(out: Path, part: Part) -> dict[str, object]:
    """What a part has written so far."""
    try:
        found: dict[str, object] = json.loads((out / f"{part.name}.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def before(checkout: Path, out: Path) -> Path:
    """Return a folder in which another checkout's package lies among these benchmarks."""
    folder = out.resolve() / "before"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, where in (("rts_batch", checkout), ("benchmarks", HERE), ("tests", HERE)):
        (folder / name).symlink_to(where / name)
    return folder


def install(wheels: Path | None, site: Path) -> dict[str, str]:
    """Return the environment of the parts, in which all modules are found that they need.

    Those of `WHEELS` that are not installed are put into `site`, from a folder and from nowhere else.
    """
    if unmet := [module for module in EXPECTED if importlib.util.find_spec(module) is None]:
        raise SystemExit(f"{sys.executable} lacks {', '.join(unmet)}: measure in an image that has PyTorch and these")
    missing = [module for module in WHEELS if importlib.util.find_spec(module) is None]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    if not missing:
        return environment
    if wheels is None:
        raise SystemExit(
            f"not installed: {', '.join(missing)}; give their wheels' folder with --wheels (--fetch-wheels)"
        )
    chosen = [wheel_of(wheels, package) for package in WHEELS.values()]
    lacking = [package for package, wheel in zip(WHEELS.values(), chosen, strict=True) if wheel is None]
    if needed := [package for package in lacking if package in {WHEELS[module] for module in missing}]:
        raise SystemExit(f"{wheels} has no wheel of {', '.join(needed)}; fill it with --fetch-wheels {wheels}")
    if not (site / "complete").exists():
        shutil.rmtree(site, ignore_errors=True)
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-index",
            "--no-deps",
        ]
        subprocess.run([*pip, "--no-cache-dir", "--target", str(site), *map(str, filter(None, chosen))], check=True)
        (site / "complete").touch()
    print(f"installed from {wheels}: {', '.join(missing)}", flush=True)
    return {**environment, "PYTHONPATH": str(site.resolve())}


def wheel_of(folder: Path, package: str) -> Path | None:
    """The newest wheel of a package in a folder, by its name."""
    begin = package.replace("-", "_").lower() + "-"
    return max((path for path in folder.glob("*.whl") if path.name.lower().startswith(begin)), default=None)


def fetch_wheels(folder: Path, python: str | None) -> int:
    """Fill a folder with the wheels of `WHEELS`, in the versions that the tests pass with."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary",
        ":all:",
    ]
    version = ["--python-version", python] if python else []
    constraints = ["-c", str(HERE / "constraints.txt")]
    return subprocess.run(
        [*pip, *version, *constraints, "--dest", str(folder), *WHEELS.values()], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
