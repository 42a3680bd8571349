"""Words that go by a number."""


def counted(number: int, noun: str) -> str:
    """Return `1 frame`, `0 frames`, `12 frames`; of a noun whose plural ends in s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
