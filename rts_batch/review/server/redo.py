"""`rts-batch resume RUN --corrections` in a process of its own, watched from the page."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rts_batch.errors import RtsBatchError, RunBusyError
from rts_batch.runs.status import ask_to_stop, read_status

LAST_WORDS: Final = 2000
"""Characters of the command's messages that are shown where it fails."""

END_SECONDS: Final = 20.0


class Redo:
    """At most one such process at a time.

    Args:
        run_folder: path or URI.
        command: what begins the command line, `python -m rts_batch` in a list.
    """

    def __init__(self, run_folder: str, command: Sequence[str]) -> None:
        self._folder = run_folder
        self._command = [*command, "resume", run_folder, "--corrections", "--json"]
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="rts-batch-")
        self._said, self._messages = Path(self._scratch.name) / "said", Path(self._scratch.name) / "messages"

    def start(self, *, bidirectional: bool = False) -> None:
        """Begin; bidirectional corrections mend the frames on either side.

        Raises:
            RunBusyError: it is under way.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                raise RunBusyError("the corrected videos are being tracked already")
            with self._said.open("wb") as said, self._messages.open("wb") as messages:
                self._process = subprocess.Popen(
                    [*self._command, *(["--bidirectional"] if bidirectional else [])],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=messages,
                    start_new_session=True,  # an interruption in the terminal is this server's
                )

    def state(self) -> dict[str, Any]:
        """Say how far it is: `idle`, `running`, `done` or `failed`."""
        with self._lock:
            if self._process is None:
                return {"state": "idle"}
            code = self._process.poll()
            if code is None:
                return {"state": "running", **self._progress()}
            if code == 0:
                return {"state": "done", **self._summary()}
            return {"state": "failed", "code": code, "message": self._last_words(), **self._summary()}

    def stop(self) -> None:
        """Ask it to stop at once; what is done stays, and `resume` goes on."""
        with self._lock:
            running = self._process is not None and self._process.poll() is None
        if running:
            ask_to_stop(self._folder, now=True)

    def close(self) -> None:
        """Interrupt it, and wait for it to end."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)
                try:
                    self._process.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    self._process.kill()
            self._scratch.cleanup()

    def _progress(self) -> dict[str, Any]:
        try:
            status = read_status(self._folder)
        except RtsBatchError:  # the manifest is being replaced, say
            return {}
        running = [
            video for one in status.submissions if one.is_running for video in one.status.get("videos_running", [])
        ]
        return {
            "left": status.videos - status.done - status.failed,
            "videos": [
                {"video_id": video.get("video_id"), "frames": video.get("frames"), "expected": video.get("expected")}
                for video in running
            ],
        }

    def _summary(self) -> dict[str, Any]:
        for line in reversed(self._said.read_text(errors="replace").splitlines()):
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and event.get("event") == "summary":
                return {"summary": {name: event.get(name) for name in ("done", "already_done", "failed", "failures")}}
        return {}

    def _last_words(self) -> str:
        return self._messages.read_text(errors="replace")[-LAST_WORDS:].strip()
