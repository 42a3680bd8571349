"""The manifest: which videos, and where each target is marked. CSV, JSON lines and Parquet are read alike.

`files` turns bytes into columns, `columns` checks each column's values, `tasks` puts rows together into videos,
`model` holds what comes out. docs/manifest.md is the user's description.
"""

from rts_batch.manifest.reader import read_manifest
from rts_batch.manifest.task import Direction, Manifest, Prompt, PromptKind, Target, VideoTask

__all__ = ["Direction", "Manifest", "Prompt", "PromptKind", "Target", "VideoTask", "read_manifest"]
