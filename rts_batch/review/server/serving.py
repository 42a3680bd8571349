"""Serves the page on loopback until it is interrupted."""

from __future__ import annotations

import contextlib
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable

import uvicorn

from rts_batch.errors import RtsBatchError, SettingsError
from rts_batch.review.server.app import Desk, build_app
from rts_batch.review.server.box_head import BoxHead, MaskOfBox
from rts_batch.review.server.catalogue import Catalogue
from rts_batch.review.server.frames import FrameReader
from rts_batch.review.server.redo import Redo
from rts_batch.runs.corrections import CorrectionsBook

__all__ = ["serve_run"]

TOKEN_BYTES = 16


def serve_run(
    run_folder: str,
    *,
    port: int = 0,
    load: Callable[[], MaskOfBox],
    announce: Callable[[str], None],
    open_browser: bool = True,
) -> None:
    """Serve the page of a run until it is interrupted.

    Args:
        run_folder: path or URI.
        port: 0 takes one that is free.
        load: loads the network that makes masks of boxes.
        announce: is told the address.
        open_browser: open it in the user's browser.

    Raises:
        ResultsError: the run has no finished video.
        SettingsError: the port is taken.
    """
    catalogue = Catalogue(run_folder)
    redo = Redo(run_folder, [sys.executable, "-m", "rts_batch"])
    with contextlib.closing(_listen(port)) as listening, FrameReader(catalogue.source) as frames:
        desk = Desk(
            catalogue=catalogue,
            frames=frames,
            book=CorrectionsBook(run_folder),
            box_head=BoxHead(load),
            redo=redo,
        )
        desk.box_head.start()
        threading.Thread(target=_warm, args=(desk,), name="first video", daemon=True).start()
        port, token = listening.getsockname()[1], secrets.token_urlsafe(TOKEN_BYTES)
        address = f"http://127.0.0.1:{port}/{token}/"
        announce(address)
        if open_browser:
            webbrowser.open(address)
        config = uvicorn.Config(
            build_app(desk, token=token, port=port),
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            pass  # the usual end
        finally:
            redo.close()
            desk.box_head.close()


def _warm(desk: Desk) -> None:
    """Read the first picture before the browser asks for it."""
    first = desk.catalogue.listing()[0]["video_id"]
    with contextlib.suppress(RtsBatchError):  # the page says what is wrong
        desk.frames.jpeg(first, desk.catalogue.numbers(first)["first"])


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
