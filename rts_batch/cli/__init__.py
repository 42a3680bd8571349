"""The command line.

Where PYTHONPATH has an empty entry, Python looks for modules in the current folder first, where a user's `random.py`
may lie: that is put right before anything is imported. See `rts_batch.io.processes`.
"""

import os
import sys

if "" in os.environ.get("PYTHONPATH", "x").split(os.pathsep):
    _named = [folder for folder in os.environ["PYTHONPATH"].split(os.pathsep) if folder]
    if os.getcwd() not in map(os.path.abspath, _named) and os.getcwd() in sys.path:
        sys.path.remove(os.getcwd())
    os.environ["PYTHONPATH"] = os.pathsep.join(_named)
