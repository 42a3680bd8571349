"""How long videos probably are."""

from __future__ import annotations

from pathlib import Path

from rts_batch.manifest import read_manifest
from rts_batch.manifest.lengths import expected_lengths


def test_lengths_are_guessed_where_the_manifest_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "big.mp4").write_bytes(bytes(400_000))
    (tmp_path / "small.mp4").write_bytes(bytes(100_000))
    (tmp_path / "images").mkdir()
    for number in range(7):
        (tmp_path / "images" / f"{number}.png").touch()
    (tmp_path / "m.csv").write_text(
        "video,box,frames,end\n"
        'big.mp4,"1,1,2,2",,\nsmall.mp4,"1,1,2,2",,\nimages,"1,1,2,2",,\nmissing.mp4,"1,1,2,2",,\n'
        'known.mp4,"1,1,2,2",500,\ncut.mp4,"1,1,2,2",500,20\n'
    )
    tasks = read_manifest(str(tmp_path / "m.csv")).tasks
    lengths = {task.video_id: expected_lengths(tasks)[task.key] for task in tasks}
    assert lengths["big.mp4"] > lengths["small.mp4"] > lengths["images"] == 7
    assert (lengths["missing.mp4"], lengths["known.mp4"], lengths["cut.mp4"]) == (0, 500, 20)


def test_what_a_second_pass_reads_counts_again(tmp_path: Path) -> None:
    marked = {("forward", 10): 97, ("both", 10): 97 + 8, ("both", 3): 97, ("bidirectional", 3): 97}
    marked_again = {("forward", 3): 97, ("both", 3): 97, ("bidirectional", 3): 97 + 18}
    rows = [(f"once {key}", *key) for key in marked]
    rows += [(f"twice {key}", direction, frame) for key in marked_again for direction, frame in (key, (key[0], 20))]
    (tmp_path / "m.csv").write_text(
        "video,video_id,box,frames,start,direction,frame\n"
        + "".join(f'a.mp4,"{name}","1,1,2,2",100,3,{direction},{frame}\n' for name, direction, frame in rows)
    )
    tasks = read_manifest(str(tmp_path / "m.csv")).tasks
    lengths = {task.video_id: expected_lengths(tasks)[task.key] for task in tasks}
    assert lengths == {
        **{f"once {key}": frames for key, frames in marked.items()},
        **{f"twice {key}": frames for key, frames in marked_again.items()},
    }
