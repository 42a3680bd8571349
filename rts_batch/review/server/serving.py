"""Serves the page on loopback until it is interrupted."""

from __future__ import annotations

import contextlib
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import uvicorn

from rts_batch.errors import RtsBatchError, SettingsError
from rts_batch.io.storage import uris
from rts_batch.review.report import Watch
from rts_batch.review.server.app import Desk, build_app
from rts_batch.review.server.catalogue import Catalogue
from rts_batch.review.server.frames import FrameReader
from rts_batch.review.server.model import LazyModel, Model
from rts_batch.review.server.new_videos import NewVideos, find_videos
from rts_batch.review.server.redo import Redo
from rts_batch.runs.corrections import CorrectionsBook
from rts_batch.runs.rows_file import RowsFile

TOKEN_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a page is served."""

    port: int = 0
    """0 takes one that is free."""
    load: Callable[[], Model]
    """Loads the network."""
    announce: Callable[[str], None]
    """Is told the address."""
    open_browser: bool = True
    watch: Watch = lambda things, _: things
    """Shows how far reading a run has come."""


def serve_run(run_folder: str, serving: Serving) -> None:
    """Serve the page of a run, path or URI, until it is interrupted.

    Raises:
        ResultsError: the run has no finished video.
        SettingsError: the port is taken.
    """
    with (
        FrameReader(lambda video: catalogue.source(video)) as frames,
        contextlib.closing(LazyModel(serving.load)) as model,
        contextlib.closing(Redo(run_folder, [sys.executable, "-m", "rts_batch"])) as redo,
    ):
        catalogue = Catalogue(run_folder, serving.watch)  # while the decoding process starts
        _serve(
            Desk(subject=catalogue, frames=frames, book=CorrectionsBook(run_folder), model=model, redo=redo), serving
        )


def serve_marking(videos: Sequence[str], manifest: str, serving: Serving, *, categories: Sequence[str] = ()) -> None:
    """Serve a page to mark targets on videos, which are saved in a manifest, until it is interrupted.

    Args:
        videos: paths and URIs of videos and of folders.
        manifest: a CSV, path or URI, which may exist: what it says stays.
        serving: how.
        categories: that are offered.

    Raises:
        StorageError, UsageError: there are no such videos.
        ManifestError: the manifest cannot be read.
        SettingsError: the port is taken.
    """
    book = RowsFile(uris.absolute(manifest))
    saved = book.read().rows
    subject = NewVideos(find_videos(videos), saved, uris.folder_of(book.uri))
    known = dict.fromkeys([*categories, *(row["category"] for row in saved if row["category"])])
    with FrameReader(subject.source) as frames, contextlib.closing(LazyModel(serving.load)) as model:
        subject.reader = frames
        _serve(Desk(subject=subject, frames=frames, book=book, model=model, categories=tuple(known)), serving)


def _serve(desk: Desk, serving: Serving) -> None:
    with contextlib.closing(_listen(serving.port)) as listening:
        threading.Thread(target=_warm, args=(desk,), name="first video", daemon=True).start()
        port, token = listening.getsockname()[1], secrets.token_urlsafe(TOKEN_BYTES)
        address = f"http://127.0.0.1:{port}/{token}/"
        serving.announce(address)
        if serving.open_browser:
            webbrowser.open(address)
        config = uvicorn.Config(
            build_app(desk, token=token, port=port),
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        with contextlib.suppress(KeyboardInterrupt):  # the usual end
            uvicorn.Server(config).run(sockets=[listening])


def _warm(desk: Desk) -> None:
    """Read the first picture before the browser asks for it."""
    first = next((video["video_id"] for video in desk.subject.listing() if not video["problem"]), None)
    with contextlib.suppress(RtsBatchError):  # the page says what is wrong
        if first is not None:
            desk.frames.jpeg(first, desk.subject.numbers(first)["first"])


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen()  # whoever is told the address may come before the server is ready
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"--port {port} cannot be listened on ({error.strerror}); leave it out for a free one"
        ) from error
    return listening
