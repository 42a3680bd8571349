"""The whole exception tree of the package.

::

    RtsBatchError                    exit 1
    ├── UsageError                   exit 2    a command line that makes no sense
    ├── SettingsError                exit 10   a setting outside its range
    ├── ManifestError                exit 10   rows that are wrong; carries every problem found
    ├── RunFolderError               exit 11
    │   ├── RunBusyError             exit 11   another run holds the folder's lease
    │   ├── RunMismatchError         exit 11   the folder belongs to a run with other settings
    │   └── StaleError               exit 11   what was to be changed has changed meanwhile
    ├── WeightsError                 exit 12   a weights file that is wrong, damaged or hostile
    ├── ClusterError                 exit 13   Ray, the GPU or the driver
    ├── StorageError                 exit 1    bytes could not be read or written; `transient` says whether to try again
    ├── VideoError                   exit 1    the video cannot be read; permanent for this video
    │   └── PromptError              exit 1    the video can be read, its prompt does not fit it
    ├── CheckpointError              exit 1    a tracker state that cannot be put back
    ├── ResultsError                 exit 1    a results file that is not what it says
    └── TrainingError                exit 1    training data, a training checkpoint or a loss that cannot be used
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

__all__ = [
    "CheckpointError",
    "ClusterError",
    "ManifestError",
    "PromptError",
    "ResultsError",
    "RtsBatchError",
    "RunBusyError",
    "RunFolderError",
    "RunMismatchError",
    "SettingsError",
    "StaleError",
    "StorageError",
    "TrainingError",
    "UsageError",
    "VideoError",
    "WeightsError",
]

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_SOME_FAILED: Final = 3
EXIT_INTERRUPTED: Final = 130


class RtsBatchError(Exception):
    """Base of everything this package raises on purpose. The message names what, where and what to do."""

    exit_code: int = EXIT_FAILED


class UsageError(RtsBatchError):
    exit_code = EXIT_USAGE


class SettingsError(RtsBatchError):
    exit_code = 10


class ManifestError(RtsBatchError):
    """The manifest cannot be used. `problems` holds one line for every row that is wrong."""

    exit_code = 10

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        self.problems = tuple(problems)
        shown = [f"  {problem}" for problem in self.problems[:20]]
        if len(self.problems) > 20:
            shown.append(f"  … and {len(self.problems) - 20} more")
        super().__init__("\n".join([message, *shown]))


class RunFolderError(RtsBatchError):
    exit_code = 11


class RunBusyError(RunFolderError):
    pass


class RunMismatchError(RunFolderError):
    pass


class StaleError(RunFolderError):
    pass


class WeightsError(RtsBatchError):
    exit_code = 12


class ClusterError(RtsBatchError):
    exit_code = 13


class StorageError(RtsBatchError):
    """`transient` is true where trying again later may help (network, throttling, a full disk elsewhere)."""

    def __init__(self, message: str, *, transient: bool = False) -> None:
        self.transient = transient
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        return partial(StorageError, transient=self.transient), (str(self),)


class VideoError(RtsBatchError):
    pass


class PromptError(VideoError):
    pass


class CheckpointError(RtsBatchError):
    pass


class ResultsError(RtsBatchError):
    pass


class TrainingError(RtsBatchError):
    pass
