"""Draws docs/speed-gpu.svg from the committed results: frames a second by lanes and profile.

python -m benchmarks.plot_speed
"""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
OUT = Path(__file__).parent.parent / "docs" / "speed-gpu.svg"


def main() -> None:
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("gpu", "gpu-mini"), strict=True):
        content = json.loads((RESULTS / f"{name}.json").read_text())
        for result in content["results"]:
            if "lanes" in result:
                lanes = {int(count): rate for count, rate in result["lanes"].items()}
                axes.plot(list(lanes), list(lanes.values()), marker="o", label=result["name"])
            else:
                axes.axhline(result["frames/s"], color="grey", linestyle=":", label=f"{result['name']} tracker")
        axes.set_title(content["what"].split(" in memory")[0], fontsize=9)
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
        axes.set_xlabel("lanes")
        axes.set_ylabel("frames/s of all lanes")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(OUT, metadata={"Date": None})


if __name__ == "__main__":
    main()
