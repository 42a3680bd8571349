"""What an importer made: the rows of a manifest, and what did not become one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rts_batch.errors import ManifestError
from rts_batch.io.storage import files
from rts_batch.manifest.formats import quoting_of

LONGEST_CELL: Final = 131_072
"""Characters of a cell that Python's CSV reader takes."""


@dataclass
class Imported:
    """Rows of a manifest, and what did not become one."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Places in the source by the reason why they were left out."""
    warnings: list[str] = field(default_factory=list)

    def report(self) -> list[str]:
        """One line for each reason, with the first places."""
        return [
            f"{len(places)} × {reason} ({', '.join(places[:3])}{', …' if len(places) > 3 else ''})"
            for reason, places in self.left_out.items()
        ]

    def leave_out_columns(self) -> None:
        """Take the columns away that say nothing: of what kind prompts are, and what the source calls their targets."""
        says_kind = any(row["prompt_kind"] for row in self.rows)
        names = [row["source_object"] for row in self.rows]
        says_name = any(name is not None for name in names) and names != [str(row["object_id"]) for row in self.rows]
        silent = [name for name, says in (("prompt_kind", says_kind), ("source_object", says_name)) if not says]
        for row in self.rows:
            row["prompt_kind"] = row["prompt_kind"] or "correct"
            for name in silent:
                del row[name]

    def write(self, uri: str) -> None:
        """Write the manifest: JSON lines where the name ends so, CSV otherwise.

        Raises:
            ManifestError: nothing was imported, the name is that of a Parquet file, or a mask is too long for a cell of
                a CSV.
            StorageError: the file cannot be written.
        """
        if not self.rows:
            raise ManifestError("nothing was imported, so there is no manifest to write", tuple(self.report()))
        if uri.lower().endswith((".parquet", ".pq")):
            raise ManifestError(
                f"{uri}: an import writes CSV or JSON lines; give the manifest's name the ending .jsonl"
            )
        if uri.lower().endswith((".jsonl", ".ndjson", ".json")):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)
        else:
            text = _csv(self.rows)
        files.put_bytes(uri, text.encode())


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]), lineterminator="\n", quoting=quoting_of(row["video"] for row in rows))
    writer.writeheader()
    for row in rows:
        cells = dict(row)
        if row["mask"] is not None:
            cells["mask"] = json.dumps(row["mask"], separators=(",", ":"))
            if len(cells["mask"]) >= LONGEST_CELL:
                raise ManifestError(
                    f"the mask of {row['video_id']!r}, object {row['object_id']}, frame {row['frame']} is too long "
                    "for a CSV; give the manifest's name the ending .jsonl"
                )
        if row["box"] is not None:
            cells["box"] = ",".join(f"{value:.10g}" for value in row["box"])
        writer.writerow(cells)
    return sink.getvalue()
