"""The manifest: which videos, and where each target is marked. CSV, JSON lines and Parquet are read alike.

`formats` turns bytes into columns, `columns` checks each column's values, `reader` puts rows together into videos,
`task` holds what comes out; `marks`, `boxes` and `polygons` are what marks a target, `mask_rules` says what an image
does. docs/manifest.md is the user's description.
"""

from rts_batch.manifest.reader import read_manifest
from rts_batch.manifest.task import Direction, Manifest, Prompt, PromptKind, Target, VideoTask

__all__ = ["Direction", "Manifest", "Prompt", "PromptKind", "Target", "VideoTask", "read_manifest"]
