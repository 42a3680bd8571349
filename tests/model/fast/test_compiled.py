"""Parts compiled by OpenVINO: shapes, threads, and what is kept between processes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rts_batch.model.fast import kept
from rts_batch.model.fast.compiled import Compiled, Engine, Part


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def part(engine: Engine, *, scale: float = 1.0) -> tuple[nn.Module, Compiled]:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3, padding=1).requires_grad_(False)
    conv.weight *= scale

    def both(x: Tensor) -> tuple[Tensor, ...]:
        y = conv(x)
        return y, torch.relu(y)

    return conv, Compiled("both", Part(both, conv), engine)


@pytest.mark.long
def test_results_are_the_modules_and_stay_the_callers() -> None:
    conv, compiled = part(Engine())
    first, second = torch.randn(1, 3, 16, 24), torch.randn(2, 3, 20, 12)
    results = compiled(first)
    torch.testing.assert_close(results[0], conv(first), rtol=1e-4, atol=1e-4)
    kept = results[1].clone()
    torch.testing.assert_close(compiled(second)[1], conv(second).relu(), rtol=1e-4, atol=1e-4)
    compiled(first + 1)
    assert torch.equal(results[1], kept), "a later call must not write into an earlier result"


@pytest.mark.long
def test_inputs_of_any_layout_are_read_as_they_are_meant() -> None:
    conv, compiled = part(Engine())
    x = torch.randn(1, 3, 16, 24).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(compiled(x)[0], conv(x), rtol=1e-4, atol=1e-4)
    turned = torch.randn(1, 3, 24, 16).transpose(-1, -2)
    torch.testing.assert_close(compiled(turned)[0], conv(turned), rtol=1e-4, atol=1e-4)


def test_threads_share_a_part_without_each_others_values() -> None:
    conv, compiled = part(Engine(threads=2, streams=2))
    inputs = [torch.full((1, 3, 32, 32), float(value)) for value in range(6)]
    found: dict[int, bool] = {}

    def work(number: int) -> None:
        with torch.no_grad():
            expected = conv(inputs[number])
            close = [torch.allclose(compiled(inputs[number])[0], expected, rtol=1e-4, atol=1e-4) for _ in range(20)]
            found[number] = all(close)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(len(inputs)), True)


def test_a_part_is_kept_for_the_next_process_by_weights_and_shape(tmp_path: Path, monkeypatch) -> None:
    engine = Engine(threads=1, fingerprint="a" * 64, cache=tmp_path)
    compiled = part(engine)[1]
    x = torch.randn(1, 3, 16, 24)
    fresh = compiled(x)[0]
    (blob,) = tmp_path.glob("*.blob")

    def refuse(*_: object) -> None:
        raise AssertionError("converted although it was kept")

    monkeypatch.setattr(Compiled, "_converted", refuse)
    assert torch.equal(part(engine)[1](x)[0], fresh)
    with pytest.raises(AssertionError, match="although it was kept"):
        part(Engine(threads=1, fingerprint="b" * 64, cache=tmp_path))[1](x)
    with pytest.raises(AssertionError, match="although it was kept"):
        part(engine)[1](torch.randn(1, 3, 16, 32))
    monkeypatch.undo()
    blob.write_bytes(b"rubbish")
    assert torch.equal(part(engine)[1](x)[0], fresh), "a damaged one is made again"


def test_a_part_of_other_code_is_another(tmp_path: Path, monkeypatch) -> None:
    engine = Engine(threads=1, fingerprint="a" * 64, cache=tmp_path)
    shapes = (torch.Size((1, 3, 16, 24)),)
    before = engine.kept_part("part", "f32", shapes)
    monkeypatch.setattr("rts_batch.model.fast.compiled._code", lambda: "changed")
    assert before != engine.kept_part("part", "f32", shapes)


def test_a_part_that_another_process_makes_is_waited_for(tmp_path: Path, monkeypatch) -> None:
    here, there = (Engine(threads=1, fingerprint="a" * 64, cache=tmp_path / name) for name in ("here", "there"))
    x = torch.randn(1, 3, 16, 24)
    for engine in (here, there):
        engine.cache.mkdir()
    made = part(there)[1](x)[0]
    (blob,) = (tmp_path / "there").glob("*.blob")

    def refuse(*_: object) -> None:
        raise AssertionError("compiled a second time")

    monkeypatch.setattr(Compiled, "_converted", refuse)
    results: list[torch.Tensor] = []
    waiting = threading.Thread(target=lambda: results.append(part(here)[1](x)[0]))
    with kept.turn(tmp_path / "here" / blob.name):
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        kept.write(blob.read_bytes(), tmp_path / "here" / blob.name)
    waiting.join(30)
    assert torch.equal(results[0], made)


def test_the_cache_keeps_what_was_used_last(tmp_path: Path, monkeypatch) -> None:
    engine = Engine(threads=1, fingerprint="a" * 64, cache=tmp_path)
    compiled = part(engine)[1]

    def run(width: int) -> Path:
        """Return the part for this width, which was then used last."""
        for file in tmp_path.iterdir():
            os.utime(file, ns=(0, file.stat().st_mtime_ns - 10**9))  # clocks of file systems are coarse
        part(engine)[1](torch.randn(1, 3, 16, width))
        return max(tmp_path.glob("*.blob"), key=lambda file: file.stat().st_mtime_ns)

    first, second = run(24), run(32)
    died = tmp_path / "died.part"
    died.write_bytes(b"0" * 10)
    for age, file in enumerate((second, first, died)):  # the second was used last
        os.utime(file, (1e9 - age, 1e9 - age))
    foreign = tmp_path / "notes.txt"
    foreign.write_text("not ours")
    assert run(24) == first, "which counts as used now"
    size = first.stat().st_size
    monkeypatch.setattr("rts_batch.model.fast.kept.LARGEST", 5 * size // 2)
    third = run(40)
    assert {file for file in tmp_path.iterdir() if file.suffix != ".turn"} == {first, third, foreign}
    assert torch.equal(compiled(x := torch.randn(1, 3, 16, 32))[0], part(engine)[1](x)[0]), (
        "and makes again what it lacks"
    )


@pytest.mark.long
def test_without_a_place_to_keep_parts_they_are_compiled_each_time(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("not a folder")
    conv, compiled = part(Engine(fingerprint="a" * 64))
    x = torch.randn(1, 3, 16, 24)
    torch.testing.assert_close(compiled(x)[0], conv(x), rtol=1e-4, atol=1e-4)
