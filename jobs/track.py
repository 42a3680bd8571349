"""Tracks a manifest on the Ray cluster that this script runs on; takes the options of `rts-batch submit`.

::

    ray job submit --working-dir . -- python jobs/track.py s3://bucket/manifest.csv --out s3://bucket/run --device cuda

The driver runs on the cluster, so the shell that submitted the job may go away. Manifest, videos, weights and `--out`
must be where every node can reach them.
"""

from __future__ import annotations

import sys

from rts_batch.cli.app import main

if __name__ == "__main__":
    sys.argv[1:] = ["submit", "--address", "auto", *sys.argv[1:]]
    main()
