"""The report's HTML: the template, its style and its script, and what they may do.

Text of the run, such as a video's id, only ever passes through jinja2's escaping; the policy in the file's head lets no
script and no style run but the two whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup

from rts_batch.masks import STATES
from rts_batch.review.pages import LINE, SPARK
from rts_batch.version import __version__

ROWS_AT_ONCE: Final = 300
"""Of the table; a button shows as many more. A browser takes seconds to lay out thousands."""

LIST_SHOWN: Final = 100
"""Entries of each list of warnings and the like."""


REPORT_WORDS: Final = (
    ("decoder", "Decoded by", ""),
    ("worker", "Worker", ""),
    ("attempt", "Attempt", ""),
    ("started", "Began", ""),
    ("seconds", "Took", " s"),
    ("frames_per_second", "Speed", " frames/s"),
)
"""What a video's page tells of its report: the report's name, ours, and the unit."""


def write_html(path: Path, content: Mapping[str, Any]) -> None:
    """Write the report with this content of a run, piece by piece."""
    style, script = _asset("report.css"), _asset("report.js")
    made = datetime.now(timezone.utc).isoformat(sep=" ", timespec="minutes").removesuffix("+00:00")
    fixed = {
        "version": __version__,
        "made": f"{made} UTC",
        "style": Markup(style),
        "script": Markup(script),
        "policy": _policy(style, script),
        "spark": SPARK,
        "line_size": LINE,
        "states": STATES,
        "list_shown": LIST_SHOWN,
        "rows_at_once": ROWS_AT_ONCE,
        "report_words": REPORT_WORDS,
    }
    _template().stream({**fixed, **content}).dump(str(path), encoding="utf-8")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rts_batch.review"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["decimals"] = lambda value, places=2: "–" if value is None else f"{value:.{places}f}"
    environment.filters["plain"] = lambda name: name.replace("_", " ").replace(".", " › ")
    environment.filters["shown"] = _shown
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    environment.filters["grouped"] = lambda number: f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return environment.get_template("report.html")


def _shown(value: Any) -> str:
    """A value of a video's report for people: numbers with few digits, times without their fractions."""
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, str) and (match := re.match(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(\+00:00|Z)$", value)):
        return f"{match[1]} {match[2]} UTC"
    return str(value)


def _asset(name: str) -> str:
    return (resources.files("rts_batch.review") / "templates" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Nothing is loaded from anywhere; pictures are in the file; the one style and the one script are known by hash."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
