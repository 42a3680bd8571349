"""What is asked of the decoding process survives the way there."""

from __future__ import annotations

import json

import pytest

from rts_batch.io.video.frames import EVERY_FRAME, FrameRange
from rts_batch.io.video.isolated.messages import Request


@pytest.mark.parametrize("wanted", [EVERY_FRAME, FrameRange(3, 7), FrameRange(2, None, backward=True, last_time=1.25)])
def test_a_request_arrives_as_it_was_made(wanted: FrameRange) -> None:
    request = Request("/a.mp4", 12, wanted, decoder="pyav", threads=2, decode_memory=1 << 20)
    message = json.loads(json.dumps(request.to_message()))
    assert message["do"] == "open"
    assert Request.of(message) == request


def test_backward_is_the_order_of_the_indices() -> None:
    assert list(FrameRange(2, 6).of(5)) == [2, 3, 4]
    assert list(FrameRange(2, 6, backward=True).of(5)) == [4, 3, 2]
    assert not FrameRange(7, None, backward=True).of(5)
