"""The cloud's warning that a spot machine will be taken away: asked for on the machine itself, passed on to Ray.

Ray's own launcher does not listen to it. EC2 gives about two minutes, Google thirty seconds. With the node reported as
draining, Ray places nothing more on it, and every worker there writes a checkpoint and leaves.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final

from rts_batch.io import processes

EC2: Final = "http://169.254.169.254"
GCP: Final = "http://metadata.google.internal"
POLL_SECONDS: Final = 5.0
TIMEOUT_SECONDS: Final = 2.0
GIVE_UP: Final = 3
"""Questions without an answer after which this machine counts as one of neither cloud."""

GCP_SECONDS: Final = 30.0

# The address is the machine's own; a proxy knows nothing of it.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Notice:
    """The machine will go in about so many seconds."""

    reason: str
    seconds: float


def ask_ec2(base: str = EC2) -> Notice | None:
    """Ask the instance metadata service, version 2.

    Raises:
        OSError: there is no such service.
    """
    token = _ask(f"{base}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT")
    try:
        answer = _ask(f"{base}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    except urllib.error.HTTPError as error:
        if error.code == 404:  # no notice
            return None
        raise
    content = json.loads(answer)
    until = datetime.fromisoformat(content["time"].replace("Z", "+00:00")) - datetime.now(timezone.utc)
    return Notice(f"EC2 spot {content['action']}", max(1.0, until.total_seconds()))


def ask_gcp(base: str = GCP) -> Notice | None:
    """Ask Google's metadata server; raise as `ask_ec2` does."""
    answer = _ask(f"{base}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return Notice("Google preemption", GCP_SECONDS) if answer.strip() == "TRUE" else None


def watch(
    told: Callable[[Notice], None],
    *,
    ask: Sequence[Callable[[], Notice | None]] = (ask_ec2, ask_gcp),
    stopped: threading.Event,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Call `told` once, when the notice comes; return then, when `stopped` is set, or where no cloud ever answers."""
    silent = dict.fromkeys(ask, 0)
    while silent and not stopped.is_set():
        for one in list(silent):
            try:
                notice = one()
            except (OSError, ValueError, KeyError):
                silent[one] += 1
                if silent[one] == GIVE_UP:
                    del silent[one]
                continue
            silent[one] = -sys.maxsize  # it has answered once, so it is there and worth waiting for
            if notice is not None:
                told(notice)
                return
        stopped.wait(poll_seconds)


def drain_node(node: str, *, address: str, notice: Notice) -> None:
    """Tell Ray that the node will go, so that it places nothing more on it and the drivers see it."""
    command = processes.python("ray.scripts.scripts", "drain-node", "--address", address, "--node-id", node)
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", notice.reason]
    command += ["--deadline-remaining-seconds", str(int(notice.seconds))]
    subprocess.run(command, check=False, capture_output=True, timeout=60, env=processes.environment())


def _ask(url: str, headers: dict[str, str], *, method: str = "GET") -> str:
    request = urllib.request.Request(url, headers=headers, method=method)
    with _OPENER.open(request, timeout=TIMEOUT_SECONDS) as response:
        content: bytes = response.read(65536)
    return content.decode()
