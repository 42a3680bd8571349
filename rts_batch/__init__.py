"""rts-batch: masks of one object through thousands of videos, with the RTS tracker on Ray."""

import os
import sys

# `python -m rts_batch.…` looks in the current folder first, where a user's `random.py` may lie: see `io/processes.py`.
_is_ours = any(word.removeprefix("-m").startswith("rts_batch.") for word in sys.orig_argv)
if sys.argv[:1] == ["-m"] and _is_ours and sys.path[:1] == [os.getcwd()] and not getattr(sys.flags, "safe_path", False):
    del sys.path[0]

from typing import TYPE_CHECKING  # noqa: E402

from rts_batch.late import late_names  # noqa: E402
from rts_batch.version import __version__ as __version__  # noqa: E402

if TYPE_CHECKING:
    from rts_batch.api.submitting import submit as submit
    from rts_batch.api.tracking import load as load
    from rts_batch.api.tracking import track as track
    from rts_batch.runs.reading import read_masks as read_masks
    from rts_batch.runs.settings import RunSettings as RunSettings
    from rts_batch.runs.settings import Scope as Scope
    from rts_batch.runs.settings import Shard as Shard

__all__ = ["RunSettings", "Scope", "Shard", "__version__", "load", "read_masks", "submit", "track"]

# The command line shall wait neither for torch nor for pyarrow.
__getattr__ = late_names(
    __name__,
    {
        "RunSettings": "rts_batch.runs.settings",
        "Scope": "rts_batch.runs.settings",
        "Shard": "rts_batch.runs.settings",
        "load": "rts_batch.api.tracking",
        "read_masks": "rts_batch.runs.reading",
        "submit": "rts_batch.api.submitting",
        "track": "rts_batch.api.tracking",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
