"""Tracks a whole benchmark on the Ray cluster that this script runs on, and scores it.

::

    ray job submit --working-dir . -- python jobs/evaluate.py davis2017 /data/DAVIS --out /results/d17 --device cuda

Writes `<out>/manifest.csv`, the run `<out>/run`, `<out>/scores.md` and, for boxes, `<out>/plots/`; prints the scores as
JSON. The benchmark's folder must be where every node finds it under the same path. Options that are not named here
go to `rts-batch submit`; the same command again goes on. For the benchmarks whose annotations a server keeps
(`trackingnet`, `youtubevos2019`), `--archive FILE` writes what that server takes instead of scores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from rts_batch.io import processes

WITHOUT_PLOTS = ("got10k", "davis2016", "davis2017", "youtubevos2019")


def main() -> int:
    parser = argparse.ArgumentParser(description="Track a benchmark on this Ray cluster, and score it.")
    parser.add_argument("benchmark")
    parser.add_argument("root", help="the folder that the benchmark is unpacked in")
    parser.add_argument("--out", required=True, help="a folder for manifest, run and scores; path or URI")
    parser.add_argument("--init", choices=("mask", "box"), help="what the tracker is given")
    parser.add_argument("--archive", help="write the archive for the benchmark's server instead of scores")
    options, for_submit = parser.parse_known_args()
    out = options.out.rstrip("/")
    manifest, run = f"{out}/manifest.csv", f"{out}/run"

    init = ["--init", options.init] if options.init else []
    steps = [
        ["evaluate", "prepare", options.benchmark, options.root, "--output", manifest, *init],
        ["submit", manifest, "--out", run, "--address", "auto", *for_submit],
    ]
    score = ["evaluate", "score", options.benchmark, options.root, run, "--json"]
    if options.archive:
        steps.append([*score, "--archive", options.archive])
    else:
        plots = [] if options.benchmark in WITHOUT_PLOTS else ["--plots", f"{out}/plots"]
        steps.append([*score, "--markdown", f"{out}/scores.md", *plots])
    for step in steps:
        print("rts-batch", *step, file=sys.stderr, flush=True)
        command = processes.python("rts_batch.cli", *step)
        code = subprocess.run(command, check=False, env=processes.environment()).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
