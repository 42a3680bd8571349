"""The addresses that the page asks for, and what each answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib import resources
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rts_batch.errors import ManifestError, RtsBatchError, RunBusyError, RunFolderError, StaleError
from rts_batch.masks import decode_rle, encode_rle
from rts_batch.review.server.changes import frame_of, mask_of, removed_places, rows_of
from rts_batch.review.server.frames import FrameReader
from rts_batch.review.server.guard import Guard
from rts_batch.review.server.model import LazyModel
from rts_batch.review.server.redo import Redo
from rts_batch.review.server.requests import Ahead, BoxOnFrame, Frame, Masks, Save, TrackAgain
from rts_batch.review.server.subject import Subject
from rts_batch.runs.rows_file import RowsFile, SavedRows

STATIC: Final = "static"
TYPES: Final = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}

FRAME_SECONDS: Final = 600
"""How long a browser may keep a frame."""

LOOK_AHEAD: Final = 16
"""Frames that are tracked to see what a prompt is worth, the prompt's own among them."""

LOADING_BEGINS: Final = 1.0
"""Seconds after the first picture: the browser has drawn it by then, and nobody has drawn a box yet."""

BUSY: Final = 423
"""`Locked`."""


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What the page works with."""

    subject: Subject
    frames: FrameReader
    book: RowsFile
    model: LazyModel
    redo: Redo | None = None
    """None where nothing has been tracked yet."""
    categories: tuple[str, ...] = ()
    """That are offered."""


def build_app(desk: Desk, *, token: str, port: int) -> Guard:
    """Return the application, which listens to who knows the token.

    Args:
        desk: what the page works with.
        token: the first part of every address.
        port: that the server listens on.
    """
    answers = _Answers(desk)
    gets: dict[str, Callable[[Request], Any]] = {
        "run": answers.run,
        "video": answers.video,
        "masks": answers.masks,
        "frame": answers.frame,
        "corrections": answers.corrections,
        "redo": answers.redo,
    }
    posts: dict[str, Callable[[bytes], Any]] = {
        "box": answers.box,
        "ahead": answers.ahead,
        "corrections": answers.save,
        "redo": answers.begin,
        "stop": answers.stop,
    }
    routes = [Route("/", _static), Route("/{name}", _static)]
    routes += [Route(f"/api/{name}", _get(answer)) for name, answer in gets.items()]
    routes += [Route(f"/api/{name}", _post(answer), methods=["POST"]) for name, answer in posts.items()]
    return Guard(Starlette(routes=routes), token=token, port=port)


class _Answers:
    """Each runs in a thread of its own, and may wait."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def run(self, _: Request) -> Any:
        self._desk.subject.refresh()
        return {
            "kind": self._desk.subject.kind,
            "categories": self._desk.categories,
            "title": self._desk.subject.title,
            "locked": self._locked(),
            "videos": self._desk.subject.listing(),
            "failed": self._desk.subject.failures(),
            "redo": self._redone(),
            "pending": self._pending(),
        }

    def video(self, request: Request) -> Any:
        return self._desk.subject.numbers(request.query_params.get("id", ""))

    def masks(self, request: Request) -> Any:
        wanted = Masks.model_validate(dict(request.query_params))
        return self._desk.subject.masks(wanted.id, wanted.first, wanted.count)

    def frame(self, request: Request) -> Response:
        wanted = Frame.model_validate(dict(request.query_params))
        jpeg = self._desk.frames.jpeg(wanted.id, wanted.index, wanted.width)
        self._desk.model.start(LOADING_BEGINS)
        return Response(jpeg, media_type="image/jpeg", headers={"cache-control": f"private, max-age={FRAME_SECONDS}"})

    def box(self, body: bytes) -> Any:
        wanted = BoxOnFrame.model_validate_json(body)
        image = self._desk.frames.image(wanted.video_id, wanted.frame)
        mask = self._desk.model.mask_of(image, wanted.box)
        return {"counts": encode_rle(mask).decode(), "area": int(mask.sum())}

    def ahead(self, body: bytes) -> Any:
        """The targets on the next frames, tracked from what is marked on this one; nothing is kept."""
        wanted = Ahead.model_validate_json(body)
        height, width = self._desk.subject.size(wanted.video_id)
        masks = {one.object_id: decode_rle(one.counts.encode(), height, width) for one in wanted.marked}
        if empty := [object_id for object_id, mask in masks.items() if not mask.any()]:
            raise ManifestError(f"object {empty[0]}: its mask is empty")
        images = self._desk.frames.images(wanted.video_id, wanted.frame, LOOK_AHEAD)
        return {
            wanted.frame + place: [
                [object_id, encode_rle(target.mask).decode(), target.state, target.quality]
                for object_id, target in targets.items()
            ]
            for place, targets in enumerate(self._desk.model.look_ahead(images, masks))
        }

    def corrections(self, _: Request) -> Any:
        return self._shown(self._desk.book.read())

    def save(self, body: bytes) -> Any:
        wanted = Save.model_validate_json(body)
        book, subject = self._desk.book, self._desk.subject
        # Of a run it is kept by which time a row speaks of its frame, of new videos only on which frame it is shown.
        redrawn = wanted.changes if subject.kind == "mark" else []
        removed = removed_places([*wanted.removed, *redrawn], book.read().rows, subject)
        rows = rows_of(wanted.changes, subject, book, removed)
        return self._shown(book.save(wanted.version, rows, removed))

    def redo(self, _: Request) -> Any:
        return {**self._redone(), "locked": self._locked(), "pending": self._pending()}

    def begin(self, body: bytes) -> Any:
        self._desk.book.refuse_if_busy()
        wanted = TrackAgain.model_validate_json(body or b"{}")
        if not self._desk.book.read().rows:
            raise ManifestError("there are no corrections; save some first")
        if self._desk.redo is None:
            raise ManifestError("nothing has been tracked yet: submit the manifest")
        self._desk.redo.start(bidirectional=wanted.bidirectional)
        return self._redone()

    def stop(self, _: bytes) -> Any:
        if self._desk.redo is not None:
            self._desk.redo.stop()
        return self._redone()

    def _redone(self) -> dict[str, Any]:
        return {"state": "idle"} if self._desk.redo is None else self._desk.redo.state()

    def _locked(self) -> str | None:
        """Why nothing can be saved now."""
        try:
            self._desk.book.refuse_if_busy()
        except RunFolderError as error:
            return str(error)
        return None

    def _pending(self) -> int:
        try:
            return len(self._desk.book.pending())
        except RtsBatchError:
            return 0

    def _shown(self, found: SavedRows) -> dict[str, Any]:
        subject = self._desk.subject
        rows = [
            {
                "video_id": row["video_id"],
                "object_id": row["object_id"],
                "frame": frame_of(row, subject),
                "absent": row.get("prompt_kind") == "absent",
                "mask": mask_of(row, subject),
                "box": None if row.get("x") is None else [row.get(name) for name in "xywh"],
                "category": row.get("category"),
            }
            for row in found.rows
            if subject.has(row["video_id"])
        ]
        return {"version": found.version, "rows": rows, "pending": self._pending()}


def _get(answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(_answered, answer, request)

    return endpoint


def _post(answer: Callable[[bytes], Any]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(_answered, answer, await request.body())

    return endpoint


Asked = TypeVar("Asked")


def _answered(answer: Callable[[Asked], Any], asked: Asked) -> Response:
    """The answer as JSON, or what stands in its way with a status that says of which kind it is."""
    try:
        found = answer(asked)
    except ValidationError as error:
        return _problem(HTTPStatus.BAD_REQUEST, f"the request makes no sense: {error.errors()[0]['msg']}")
    except StaleError as error:
        return _problem(HTTPStatus.CONFLICT, str(error))
    except RunBusyError as error:
        return _problem(BUSY, str(error))
    except RtsBatchError as error:
        return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
    return found if isinstance(found, Response) else JSONResponse(found)


def _problem(status: int, text: str) -> Response:
    content: Mapping[str, str] = {"error": text}
    return JSONResponse(content, status)


async def _static(request: Request) -> Response:
    """A file of the page. Only names that are in the folder are looked for, so no name leads out of it."""
    name = request.path_params.get("name", "index.html")
    folder = resources.files("rts_batch.review.server") / STATIC
    known = {file.name: file for file in folder.iterdir() if file.is_file()}
    kind = TYPES.get(name.rpartition(".")[2])
    if name not in known or kind is None:
        return _problem(HTTPStatus.NOT_FOUND, "there is no such page")
    return Response(known[name].read_bytes(), media_type=kind, headers={"cache-control": "no-cache"})
