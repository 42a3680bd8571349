from rts_batch.manifest.importers.video_names import distinct_names


def test_a_name_is_as_long_as_tells_it_from_others() -> None:
    names = {
        "x/a/one": "one",
        "x/b/one": "one",
        "y/b/one": "one",
        "x/a/two": "two",
        "one": "one",
        "/root/three": "three",
    }
    assert distinct_names(names) == {
        "x/a/one": "a/one",
        "x/b/one": "x/b/one",
        "y/b/one": "y/b/one",
        "x/a/two": "two",
        "one": "one",
        "/root/three": "three",
    }


def test_what_cannot_be_told_apart_stays_as_long_as_it_is() -> None:
    assert distinct_names({"/a/one": "one", "a/one": "one"}) == {"/a/one": "a/one", "a/one": "a/one"}
