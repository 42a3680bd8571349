"""Our weights files, built-in names, fingerprints and the `weights` commands."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from rts_batch.cli.app import app
from rts_batch.config import RTS50, RTS_MINI, TRACKER_RTS50, TRACKER_RTS_MINI, ModelConfig, StaConfig, TrackerConfig
from rts_batch.errors import WeightsError
from rts_batch.weights import layout as layout_module
from rts_batch.weights import registry as weights_module
from rts_batch.weights.layout import network_layout
from rts_batch.weights.registry import (
    StaWeights,
    Weights,
    build_model,
    build_sta,
    describe,
    import_weights,
    load_sta,
    load_weights,
    make_weights,
    save_weights,
)
from rts_batch.weights.untrained import untrained_state

TINY = dataclasses.replace(
    RTS_MINI, name="tiny", feature_dim=4, label_encoder_dims=(2, 2, 2), num_filters=2, decoder_dims=(4, 4, 4, 4)
)
TINY_STA = StaConfig(
    backbone="mobilenetv2", feature_dim=4, num_filters=2, label_encoder_dims=(2, 2, 2, 2), decoder_dims=(4, 4, 4, 4)
)


def tiny_weights(config: ModelConfig = TINY, tracker: TrackerConfig = TRACKER_RTS_MINI, **changes: Any) -> Weights:
    state = untrained_state(network_layout(config))
    return make_weights(config, tracker, state, provenance="made by a test", licence="CC0-1.0", **changes)


def tiny_sta(**changes: Any) -> StaWeights:
    config = dataclasses.replace(TINY_STA, **changes)
    return StaWeights(config, untrained_state(network_layout(config)))


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_weights(tiny_weights(sta=tiny_sta()), path, half=True)
    return path


# Files


def test_a_backbone_of_both_networks_is_stored_once(tmp_path: Path) -> None:
    weights, sta = tiny_weights(), tiny_sta()
    backbone = {key: value for key, value in weights.state.items() if key.startswith("feature_extractor.")}
    shared = dataclasses.replace(weights, sta=StaWeights(sta.config, {**sta.state, **backbone}))
    save_weights(shared, tmp_path / "shared.safetensors")
    stored = load_file(tmp_path / "shared.safetensors")
    assert not any(key.startswith("sta.feature_extractor.") for key in stored)
    loaded = load_weights(tmp_path / "shared.safetensors")
    assert loaded.sta is not None
    assert shared.sta is not None
    assert same(loaded.sta.state, shared.sta.state)
    assert loaded.fingerprint == shared.fingerprint


@pytest.mark.parametrize("with_sta", [False, True])
def test_file_gives_back_what_was_saved(tmp_path: Path, with_sta: bool) -> None:
    weights = tiny_weights(sta=tiny_sta(iterations=3) if with_sta else None)
    save_weights(weights, tmp_path / "a.safetensors")
    loaded = load_weights(tmp_path / "a.safetensors")
    assert loaded.config == TINY
    assert loaded.tracker_config == TRACKER_RTS_MINI
    assert same(loaded.state, weights.state)
    assert loaded.metadata == {"provenance": "made by a test", "licence": "CC0-1.0", "stored_as": "float32"}
    assert loaded.fingerprint == weights.fingerprint
    if weights.sta is None:
        assert loaded.sta is None
    else:
        assert loaded.sta is not None
        assert loaded.sta.config == weights.sta.config
        assert same(loaded.sta.state, weights.sta.state)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_equal_weights_make_equal_files(tmp_path: Path) -> None:
    for name in "abcd":
        save_weights(tiny_weights(), tmp_path / f"{name}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_any_safetensors_reader_can_read_the_file(tiny_file: Path) -> None:
    tensors = load_file(tiny_file)
    assert {key.split(".")[0] for key in tensors} == {"rts", "sta"}
    with safe_open(tiny_file, framework="pt") as file:
        document = json.loads(file.metadata()["rts_batch"])
    assert document["kind"] == "rts+sta"
    assert document["config"]["model"]["feature_dim"] == 4


def test_float16_file_is_cast_when_loaded(tiny_file: Path) -> None:
    loaded, original = load_weights(tiny_file), tiny_weights()
    assert loaded.metadata["stored_as"] == "float16"
    assert {value.dtype for value in loaded.state.values()} == {torch.float32, torch.int64}
    for key, value in original.state.items():
        assert torch.equal(loaded.state[key], value.half().to(value.dtype)), key
    assert loaded.fingerprint != original.fingerprint


def test_value_too_large_for_float16_is_refused(tmp_path: Path) -> None:
    state = dict(tiny_weights().state)
    state["decoder.project.conv2.bias"] = torch.tensor([1e6])
    weights = make_weights(TINY, TRACKER_RTS_MINI, state, provenance="", licence="")
    with pytest.raises(WeightsError, match=r"as float16: 'rts.decoder.project.conv2.bias' has 1 values"):
        save_weights(weights, tmp_path / "a.safetensors", half=True)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent/a.safetensors: cannot be written"):
        save_weights(tiny_weights(), tmp_path / "absent" / "a.safetensors")


def test_a_weights_file_may_be_read_by_whom_the_user_lets(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_weights(tiny_weights(), tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("decoder.project.conv2.bias"), "has no tensor 'decoder.project.conv2.bias'"),
        (lambda state: state.update(x=torch.ones(1)), "has a tensor 'x' that the network does not know"),
        (
            lambda state: state["decoder.project.conv1.bias"].fill_(float("nan")),
            "'decoder.project.conv1.bias' has 2 values",
        ),
        (
            lambda state: state["decoder.project.conv1.bias"].fill_(float("-inf")),
            "'decoder.project.conv1.bias' has 2 values",
        ),
        (
            lambda state: [state[key].fill_(-1) for key in state if key.endswith("running_var")],
            r"running_var' is a variance below zero \(\d\d more keys are at fault",
        ),
    ],
)
def test_wrong_state_is_refused(change: Callable[[dict[str, Tensor]], object], message: str) -> None:
    state = untrained_state(network_layout(TINY))
    change(state)
    with pytest.raises(WeightsError, match=message):
        make_weights(TINY, TRACKER_RTS_MINI, state, provenance="", licence="")


# Fingerprints


def test_fingerprint_covers_what_affects_results_and_nothing_else() -> None:
    original = tiny_weights().fingerprint
    assert len(original) == 64
    assert tiny_weights(dataclasses.replace(TINY, name="renamed")).fingerprint == original
    changed = [
        tiny_weights(dataclasses.replace(TINY, hinge_threshold=0.1)),
        tiny_weights(tracker=dataclasses.replace(TRACKER_RTS_MINI, not_found_threshold=0.2)),
        tiny_weights(sta=tiny_sta()),
        tiny_weights(sta=tiny_sta(iterations=4)),
    ]
    state = dict(tiny_weights().state)
    state["decoder.project.conv2.bias"] = torch.tensor([1e-30])
    changed.append(make_weights(TINY, TRACKER_RTS_MINI, state, provenance="", licence=""))
    assert len({original, *(weights.fingerprint for weights in changed)}) == 6


# Damage


def rewrite(source: Path, target: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], object]) -> Path:
    """Writes `source` again with its document or tensors changed but no digest put right."""
    with safe_open(source, framework="pt") as file:
        document = json.loads(file.metadata()["rts_batch"])
    tensors = load_file(source)
    change(document, tensors)
    save_file(tensors, target, metadata={"rts_batch": json.dumps(document)})
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, t: t.pop("rts.decoder.project.conv2.bias"), "'rts.decoder.project.conv2.bias' is missing"),
        (lambda d, t: t.update({"rts.x": torch.ones(1)}), "'rts.x' is not the one that was written"),
        (lambda d, t: t["sta.decoder.project.conv2.bias"].add_(1), "'sta.decoder.project.conv2.bias' is not the one"),
        (lambda d, t: d.update(provenance="me"), "is not as it was written .sha256 differs"),
        (lambda d, t: d["tensors"].popitem(), "is not as it was written .sha256 differs"),
        (lambda d, t: d.update(format=2), "metadata rts_batch: 'format'"),
        (lambda d, t: d.update(kind="yolo"), "'kind'"),
        (lambda d, t: d.pop("licence"), "'licence': Field required"),
        (
            lambda d, t: d["config"]["model"].update(feature_dim="4"),
            "'config.model.feature_dim': Input should be a valid int",
        ),
        (lambda d, t: d["config"]["model"].update(feature_dim=0), "feature_dim and num_filters must be positive"),
        (lambda d, t: d["config"]["model"].update(width=3), "'config.model.width': Unexpected"),
        (lambda d, t: d["config"]["tracker"].update(learning_rate=float("nan")), "finite number"),
        (lambda d, t: d["config"]["tracker"].update(crop_size=[240]), "'config.tracker.crop_size.1'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_changed_file_names_what_differs(
    tiny_file: Path, tmp_path: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], object], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        load_weights(rewrite(tiny_file, tmp_path / "changed.safetensors", change))


def sealed(document: dict[str, Any], **changes: Any) -> None:
    """Changes a document as somebody would who can compute digests."""
    document.update(changes)
    document.pop("sha256")
    document["sha256"] = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda config: config["model"].update(feature_dim=5),
            r"'target_model.feature_extractor.0.weight' has shape \[4, ",
        ),
        (lambda config: config["model"].update(feature_dim=10**12), r"shape|no network can be built"),
        (lambda config: config["model"].update(decoder_dims=[-1, 4, 4, 4]), "no network can be built"),
        (lambda config: config["model"].update(decoder_dims=[10**18, 10**18, 4, 4]), "no network can be built"),
        (lambda config: config["model"].update(backbone="resnet50"), "has no tensor 'feature_extractor.conv1.weight'"),
        (lambda config: config["tracker"].update(crop_size=[160000, 160000]), "crop_size is .*; at most 4096"),
        (lambda config: config["sta"].update(iterations=10**9), "iterations is 1000000000; at most 1000"),
        (lambda config: config.update(sta=None), "an STA network or its configuration, but not both"),
        (lambda config: config["sta"].update(feature_dim=5), "STA network: 'target_model.feature_extractor.0.weight'"),
    ],
)
def test_well_sealed_file_with_a_wrong_configuration_is_refused(
    tiny_file: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    def change_config(document: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        change(document["config"])
        sealed(document)

    with pytest.raises(WeightsError, match=message):
        load_weights(rewrite(tiny_file, tmp_path / "changed.safetensors", change_config))


def test_file_cut_short_names_tensor_and_byte(tiny_file: Path, tmp_path: Path) -> None:
    data, path = tiny_file.read_bytes(), tmp_path / "cut.safetensors"
    path.write_bytes(data[:-10])
    with pytest.raises(WeightsError, match=rf"tensor '\w.*' goes to byte \d+, the file ends at byte {len(data) - 10}"):
        load_weights(path)
    path.write_bytes(data[:1000])
    with pytest.raises(WeightsError, match=r"the header goes to byte \d+, the file ends at byte 1000"):
        load_weights(path)
    path.write_bytes(b"\x01\x02")
    with pytest.raises(WeightsError, match="the file ends at byte 2"):
        load_weights(path)


@pytest.mark.parametrize(
    "header", [b"{", b"[]", b"{}", b'{"a":3}', b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,9]}}']
)
def test_wrong_header_is_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    with pytest.raises(
        WeightsError, match=r"x.safetensors: (does not fit its header, bytes 8 to \d+|.*without the metadata)"
    ):
        load_weights(path)


def test_huge_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write((1 << 30).to_bytes(8, "little"))
        file.truncate((1 << 30) + 100)  # takes no space on disk
    with pytest.raises(WeightsError, match=r"the header goes to byte \d+, beyond any"):
        load_weights(path)


def test_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="without the metadata 'rts_batch'"):
        load_weights(tmp_path / "x.safetensors")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_byte_goes_unnoticed(tiny_file: Path, data: st.DataObject) -> None:
    original = tiny_file.read_bytes()
    content = bytearray(original)
    header = 8 + int.from_bytes(original[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, header - 1) | st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255) | st.sampled_from(b'"{}[]:,0919\\ '))
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(content)
        file.flush()
        try:
            loaded = load_weights(file.name)
        except WeightsError:
            return
    # What is left are changes without meaning, such as white space of another kind.
    assert loaded.fingerprint == load_weights(tiny_file).fingerprint


# Names


def test_untrained_weights_are_the_same_everywhere_and_run() -> None:
    weights = load_weights("rts-mini-untrained")
    assert weights.config == RTS_MINI
    assert weights.metadata["provenance"] == "random, seed 0: masks are meaningless"
    drawn = weights.state["classifier.filter_initializer.filter_conv.weight"]
    digest = hashlib.sha256(drawn.numpy().tobytes()).hexdigest()
    assert (
        digest == "8241b32afe185b7e3efac853661c5fb4beccfa3891e49b5f55cf5546e3c6315a"
    )  # computed on x86-64 with NumPy 2.4
    model = build_model(weights)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    features = model.extract(255 * torch.rand(1, 3, 240, 416, generator=torch.Generator().manual_seed(0)))
    for name, values in {**features.maps, "x_s": features.segmentation, "x_c": features.localisation}.items():
        assert 1e-3 < float(values.std()) < 1e3, name


def test_shipped_weights_load_by_name_once_they_are_there(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_module, "DATA", tmp_path)
    with pytest.raises(WeightsError, match=r"brings no trained weights 'rts-mini'; .*'rts-mini-untrained'"):
        load_weights("rts-mini")
    shutil.copy(tiny_file, tmp_path / "rts-mini.safetensors")
    assert load_weights("rts-mini").fingerprint == load_weights(tiny_file).fingerprint


@pytest.mark.parametrize("name", ["rts51", "no/such.pth", "."])
def test_unknown_name_lists_the_names(name: str) -> None:
    with pytest.raises(WeightsError, match=r"no such weights file; .* one of rts-mini, rts-mini-untrained"):
        load_weights(name)


def test_networks_are_built_with_the_weights() -> None:
    weights = tiny_weights(sta=tiny_sta())
    assert same(build_model(weights).state_dict(), weights.state)
    sta = build_sta(weights)
    assert sta is not None
    assert weights.sta is not None
    assert same(sta.state_dict(), weights.sta.state)
    assert build_sta(tiny_weights()) is None


# Official files, and the commands


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["weights", *map(str, arguments)])


@pytest.mark.long
def test_import_joins_both_official_files(official: Path, tmp_path: Path) -> None:
    output = tmp_path / "rts50.safetensors"
    result = invoke("import", official / "rts50.pth", "--sta", official / "sta.pth.tar", "-o", output)
    assert result.exit_code == 0, result.output
    loaded = load_weights(output)
    assert result.stdout == loaded.fingerprint + "\n"
    assert loaded.config == RTS50
    assert loaded.tracker_config == TRACKER_RTS50
    direct = load_weights(official / "rts50.pth")
    assert same(loaded.state, direct.state)
    assert loaded.sta is not None
    assert dataclasses.replace(loaded, sta=None).fingerprint == direct.fingerprint
    assert loaded.metadata["provenance"].startswith("rts50.pth, sha256 ")
    assert "; box to mask: sta.pth.tar, sha256 " in loaded.metadata["provenance"]

    about = json.loads(invoke("inspect", output, "--json").stdout)
    assert about["kind"] == "rts+sta"
    assert about["bytes"] == output.stat().st_size
    assert about["fingerprint"] == loaded.fingerprint
    assert about["rts"]["parameters"] == 43_848_002
    assert about["rts"]["modules"] == {
        "feature_extractor": 23_508_032,
        "target_model": 4_718_593,
        "label_encoder": 110_880,
        "clf_encoder": 110_880,
        "classifier": 2_359_808 + 4_718_592,
        "decoder": 8_321_217,
    }
    assert about["sta"]["parameters"] == 40_336_931
    assert about["sta"]["modules"]["decoder"] == 8_791_361
    assert about["tracker"]["crop_size"] == [480, 832]


def test_sta_network_of_a_weights_file_can_be_added_to_another(tiny_file: Path) -> None:
    joined = import_weights("rts-mini-untrained", sta=tiny_file, licence="mine")
    assert same(joined.state, load_weights("rts-mini-untrained").state)
    assert joined.sta is not None
    assert joined.sta.config == TINY_STA
    assert joined.metadata["licence"] == "mine"
    assert joined.metadata["provenance"] == "random, seed 0: masks are meaningless; box to mask: made by a test"


@pytest.mark.long
def test_files_in_the_wrong_place_are_refused(official: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.safetensors"
    result = invoke("import", official / "sta.pth.tar", "-o", output)
    assert result.exit_code == 12
    assert result.stdout == ""
    assert "an STA network" in result.stderr
    result = invoke("import", "rts-mini-untrained", "--sta", official / "rts50.pth", "-o", output)
    assert result.exit_code == 12
    assert "holds a tracker and no STA network" in result.stderr
    result = invoke("import", "rts-mini-untrained", "-o", tmp_path / "rts50.pth")
    assert result.exit_code == 2
    assert ".safetensors" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_inspect_shows_an_sta_checkpoint_alone(official: Path) -> None:
    about = describe(official / "sta.pth.tar")
    assert (about["kind"], about["fingerprint"], about["sta"]["parameters"]) == ("sta", None, 40_336_931)
    assert invoke("inspect", official / "sta.pth.tar").exit_code == 0


def test_inspect_in_words(tiny_file: Path) -> None:
    result = invoke("inspect", tiny_file)
    assert result.exit_code == 0
    for part in ("kind         rts+sta, stored as float16", "made by a test", "CC0-1.0", "feature_dim = 4", "rts: 1,"):
        assert part in result.stdout
    assert load_weights(tiny_file).fingerprint in result.stdout


def test_text_from_a_file_does_not_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    weights = dataclasses.replace(tiny_weights(), metadata={"provenance": "\x1b[2Jhello", "licence": "a\nb"})
    save_weights(weights, path)
    result = invoke("inspect", path)
    assert "\x1b" not in result.stdout
    assert "?[2Jhello" in result.stdout
    assert "a?b" in result.stdout


@pytest.mark.parametrize("command", [["inspect"], ["import", "-o", "never.safetensors"]])
def test_refused_weights_exit_with_12(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(b"PK\x03\x04")
    result = invoke(*command, path)
    assert result.exit_code == 12
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {path}: ")
    assert not Path("never.safetensors").exists()


def test_unreadable_file_is_a_weights_error(tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "x.pth"
    shutil.copy(tiny_file, path)
    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, whom no file mode stops
    with pytest.raises(WeightsError, match=r"x.pth: cannot be read .Permission denied"):
        load_weights(path)


def test_a_quality_map_travels_with_the_weights_and_is_no_part_of_their_fingerprint(tmp_path: Path) -> None:
    quality = weights_module.default_quality()
    assert quality is not None
    plain, judged = tiny_weights(), tiny_weights(quality=quality)
    assert plain.fingerprint == judged.fingerprint
    save_weights(judged, tmp_path / "judged.safetensors")
    save_weights(plain, tmp_path / "plain.safetensors")
    assert load_weights(tmp_path / "judged.safetensors").quality == quality
    assert load_weights(tmp_path / "plain.safetensors").quality is None
    assert describe(tmp_path / "judged.safetensors")["quality"] == {
        "map": quality.fingerprint,
        "origin": quality.origin,
    }


def test_weights_are_checked_on_one_thread_and_the_callers_threads_stay(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, threads = torch.get_num_threads(), []
    check = layout_module.check_values

    def checked(*arguments: Any) -> None:
        threads.append(torch.get_num_threads())
        check(*arguments)

    monkeypatch.setattr(layout_module, "check_values", checked)
    try:
        torch.set_num_threads(3)
        load_weights(tiny_file)
        with pytest.raises(WeightsError):
            load_weights(tmp_path / "none.safetensors")
        assert (set(threads), torch.get_num_threads()) == ({1}, 3)
    finally:
        torch.set_num_threads(before)


def test_a_box_network_is_had_from_a_name_too(tmp_path: Path) -> None:
    save_weights(tiny_weights(), tmp_path / "tiny.safetensors")
    arguments = [
        "import",
        str(tmp_path / "tiny.safetensors"),
        "--sta",
        "rts-mini",
        "-o",
        str(tmp_path / "a.safetensors"),
    ]
    answer = CliRunner().invoke(app, ["weights", *arguments])
    assert answer.exit_code == 0, answer.output
    found = load_weights(tmp_path / "a.safetensors").sta
    assert found is not None
    assert found.config == load_sta("rts-mini")[0].config
