import pytest

from rts_batch.words import counted


@pytest.mark.parametrize(("number", "expected"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames"), (11, "11 frames")])
def test_a_noun_goes_by_its_number(number: int, expected: str) -> None:
    assert counted(number, "frame") == expected
