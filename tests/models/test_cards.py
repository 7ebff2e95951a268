"""Cards and model folders: what is wrong is one clear line, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawn_models import darkness_model, planar, redness_model, screened

from lobule.errors import CardError, ModelError, UnknownModelError, WeightsDigestError, WeightsNotFoundError
from lobule.families.nuclei import splitting_of
from lobule.models.card import Card, LowerPrecision, read_card
from lobule.models.zoo import load_model, select_models, shipped_models
from lobule.strict import changed, from_values, values_of

DELETE = object()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return redness_model(tmp_path / "redness")


def _set(folder: Path, place: tuple[Any, ...], value: Any) -> None:
    card = json.loads((folder / "card.json").read_text())
    inner = card
    for key in place[:-1]:
        inner = inner[key]
    if value is DELETE:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    (folder / "card.json").write_text(json.dumps(card))


def test_a_right_model_loads(folder: Path) -> None:
    model = load_model(folder)
    assert model.name == "redness"
    assert model.card.graph("patch") is not None
    assert model.card.graph("refine") is None


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("card_version",), 2, "card_version"),
        (("name",), "Red Ness!", "name"),
        (("name",), DELETE, "name: it is missing"),
        (("version",), "one", "version"),
        (("family",), "kidney", "family"),
        (("colour",), "red", "colour: there is no such field"),
        (("classes",), [], "classes"),
        (("graphs",), [], "graphs"),
        (("graphs", 0, "file"), "../../etc/passwd.onnx", "graphs.0.file"),
        (("graphs", 0, "file"), "model.pkl", "graphs.0.file"),
        (("graphs", 0, "sha256"), "abc", "graphs.0.sha256"),
        (("graphs", 0, "role"), "segment", "needs a graph of role 'patch'"),
        (("graphs", 0, "mpp"), -1, "graphs.0.mpp"),
        (("graphs", 0, "mpp"), None, "mpp is null for a refine graph"),
        (("graphs", 0, "mpp"), "nan", "graphs.0.mpp"),
        (("graphs", 0, "tile_px"), 0, "graphs.0.tile_px"),
        (("graphs", 0, "tile_px"), 10**9, "graphs.0.tile_px"),
        (("graphs", 0, "halo_px"), 40, "leaves nothing of a tile"),
        (("graphs", 0, "mean"), [1, 2, 3], "mean and std come together"),
        (("graphs", 0, "fit"), "pad", "fit is stated by a refine graph"),
        (("graphs", 0, "inputs"), [], "graphs.0.inputs"),
        (("graphs", 0, "inputs", 0, "dtype"), "float64", "graphs.0.inputs.0.dtype"),
        (("graphs", 0, "inputs", 0, "shape"), [-1, 64], "does not fit layout"),
        (("graphs", 0, "inputs", 0, "shape"), [-1, 0, 64, 3], "sizes are -1"),
        (("thresholds",), {"patch": "high"}, "thresholds: Expected `float`"),
        (("thresholds",), {}, "thresholds of this tumor model need 'patch'"),
        (("thresholds",), {"patch": 1.0}, "threshold 'patch' is above 0 and below 1, not 1"),
        (("thresholds",), {"patch": 0.0}, "threshold 'patch' is above 0 and below 1"),
        (("thresholds",), {"patch": 0.5, "refine": 2}, "threshold 'refine' is above 0 and below 1"),
        (("thresholds",), {"patch": 0.5, "mask": 0.5}, "not 'mask'"),
        (("data",), [], "data"),
        (("data", 0, "used_for"), "fun", "data.0.used_for"),
        (("pixel_mean",), [1, 2], "pixel_mean"),
        (("pixel_std",), [1, 0, 2], "pixel_std"),
        (("limits",), [], "limits"),
        (("terms",), "", "terms"),
    ],
)
def test_a_wrong_card_names_the_field(folder: Path, place: tuple[Any, ...], value: Any, said: str) -> None:
    _set(folder, place, value)
    with pytest.raises(CardError, match=r"model redness: card\.json") as caught:
        load_model(folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mean_and_std_ask_for_an_input_that_can_hold_the_scaled_numbers(folder: Path) -> None:
    _set(folder, ("graphs", 0, "mean"), [1, 2, 3])
    _set(folder, ("graphs", 0, "std"), [1, 2, 3])
    with pytest.raises(CardError, match="mean and std need a float32 input, 'pixels' is uint8"):
        load_model(folder)
    load_model(planar(redness_model(folder.parent / "planar")))


def test_a_refining_model_needs_its_second_threshold() -> None:
    card = read_card(shipped_models()["tumor-breast-small0"] / "card.json")
    without = values_of(card) | {"thresholds": {"patch": 0.5}}
    with pytest.raises(ValueError, match="need 'refine'"):
        from_values(without, Card)


@pytest.mark.parametrize(
    "thresholds",
    [
        {"mask": 0.5, "min_area_um2": 0.0},
        {"mask": 0.01, "min_area_um2": 3.0, "depth": 1.0},
        {"mask": 0.99, "min_area_um2": 3.0, "split_um": 40.0},
    ],
)
def test_thresholds_that_a_card_may_have_are_those_that_nuclei_are_split_by(
    thresholds: dict[str, float], tmp_path: Path
) -> None:
    folder = darkness_model(tmp_path / "darkness")
    _set(folder, ("thresholds",), thresholds)
    _, min_area_um2 = splitting_of(load_model(folder).card)
    assert min_area_um2 == thresholds["min_area_um2"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mask": DELETE}, "thresholds of this nuclei model need 'mask'"),
        ({"min_area_um2": DELETE}, "thresholds of this nuclei model need 'min_area_um2'"),
        ({"mask": 0}, "threshold 'mask' is above 0 and below 1, not 0"),
        ({"mask": 1}, "threshold 'mask' is above 0 and below 1, not 1"),
        ({"min_area_um2": -1}, "threshold 'min_area_um2' is 0 or more, not -1"),
        ({"depth": 0}, "threshold 'depth' is above 0 and at most 1, not 0"),
        ({"depth": 15}, "threshold 'depth' is above 0 and at most 1, not 15"),
        ({"split_um": 0}, "threshold 'split_um' is above 0, not 0"),
        ({"split_um": 0.75, "depth": 0.15}, "not both"),
        ({"patch": 0.5}, "thresholds of nuclei models are mask, depth, split_um, min_area_um2, not 'patch'"),
    ],
)
def test_wrong_thresholds_of_nuclei_are_told_before_anything_runs(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = darkness_model(tmp_path / "darkness")
    thresholds = {"mask": 0.5, "min_area_um2": 3.0, **change}
    _set(folder, ("thresholds",), {name: value for name, value in thresholds.items() if value is not DELETE})
    with pytest.raises(CardError) as caught:
        load_model(folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "Expected `object`, got `array`"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'{"name": ' + b"[" * 100_000, "name: Expected `str`"),
        (b"null", "Expected `object`"),
        (b'"card"', "Expected `object`"),
    ],
)
def test_a_card_that_is_no_card_is_refused(folder: Path, text: bytes, said: str) -> None:
    (folder / "card.json").write_bytes(text)
    with pytest.raises(CardError) as caught:
        load_model(folder)
    assert said in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_truncated_weights_are_told_from_the_card(folder: Path, length: int) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(WeightsDigestError, match=r"not the file the card describes .*truncated"):
        load_model(folder)


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    with pytest.raises(WeightsNotFoundError, match=r"model\.onnx is missing"):
        load_model(folder)


@pytest.fixture
def closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes the system refuse a file or folder to be looked at or opened; root alone may do all."""

    def close(call: str, name: str) -> None:
        allowed = getattr(Path, call)

        def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:
            if path.name == name or (call == "stat" and path.parent.name == name):
                raise PermissionError(13, "Permission denied", str(path))
            return allowed(path, *args, **kwargs)

        monkeypatch.setattr(Path, call, refuse)

    return close


def test_weights_that_may_not_be_read_are_named(folder: Path, closed: Callable[[str, str], None]) -> None:
    closed("open", "model.onnx")
    with pytest.raises(WeightsNotFoundError, match=r"model\.onnx cannot be read: Permission denied; check"):
        load_model(folder)


def test_a_card_that_may_not_be_read_is_named(folder: Path, closed: Callable[[str, str], None]) -> None:
    closed("open", "card.json")
    with pytest.raises(CardError, match=r"card\.json cannot be read: Permission denied; check"):
        select_models([folder])


def test_a_model_folder_that_may_not_be_searched_is_named(
    folder: Path, closed: Callable[[str, str], None]
) -> None:
    """Given itself or within a folder of models: it is not silently left out."""
    closed("stat", folder.name)
    closed("open", "card.json")
    for given in (folder, folder.parent):
        with pytest.raises(CardError, match=r"redness.card\.json cannot be read: Permission denied"):
            select_models([given])


def test_a_folder_of_models_that_may_not_be_listed_is_named(
    folder: Path, closed: Callable[[str, str], None]
) -> None:
    closed("iterdir", folder.parent.name)
    with pytest.raises(UnknownModelError, match="the folder cannot be read: Permission denied"):
        select_models([folder.parent])


@pytest.mark.parametrize("name", ["nowhere", ""])
def test_a_place_without_a_model_lists_what_is_shipped(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownModelError, match="neither a model folder"):
        select_models([str(tmp_path / name)])


def test_a_chosen_model_takes_its_familys_place(tmp_path: Path) -> None:
    chosen = select_models(
        [redness_model(tmp_path / "m" / "redness"), darkness_model(tmp_path / "m" / "darkness")]
    )
    assert chosen["tumor"].name == "redness"
    assert chosen["nuclei"].name == "darkness"
    assert select_models([tmp_path / "m"]).keys() == chosen.keys()


def test_two_models_of_one_family_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="two models of the family tumor"):
        select_models([redness_model(tmp_path / "a"), redness_model(tmp_path / "b")])


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_a_shipped_model_is_whole_and_small(name: str) -> None:
    model = load_model(shipped_models()[name])
    assert model.name == name
    sizes = [
        (shipped_models().get(one.of or "", model.folder) / one.file).stat().st_size
        for one in model.card.files()
    ]
    assert max(sizes) < 15_000_000
    assert model.card.scores, "a shipped model states how good it is"
    assert all(score.low is not None and score.high is not None for score in model.card.scores[:1])


PROOF: dict[str, Any] = {
    "precision": "bfloat16",
    "score": "AUC",
    "float32": 0.9,
    "value": 0.8985,
    "on": "a test part",
    "how": "both",
    "speedup": 1.9,
    "measured_on": "a processor",
}


def test_a_lower_precision_counts_only_within_its_tolerance() -> None:
    assert LowerPrecision(**PROOF).value == 0.8985
    with pytest.raises(ValueError, match="not proven"):
        LowerPrecision(**{**PROOF, "value": 0.897})
    with pytest.raises(ValueError, match="not proven"):
        LowerPrecision(**{**PROOF, "value": 0.903})


def _with_int8(folder: Path, **change: Any) -> Path:
    """The model with a second file beside its first graph that its card calls int8."""
    card = json.loads((folder / "card.json").read_text())
    graph = card["graphs"][0]
    (folder / "model-int8.onnx").write_bytes((folder / "model.onnx").read_bytes())
    proof = {**PROOF, "precision": "int8", "file": "model-int8.onnx", "sha256": graph["sha256"], **change}
    graph["lower_precisions"] = [{key: value for key, value in proof.items() if value is not DELETE}]
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def test_a_borrowed_graph_lies_with_the_shipped_model_that_it_is_of(folder: Path) -> None:
    lender = load_model(shipped_models()["tumor-breast-lite0"])
    refine = lender.card.graph("refine")
    assert refine is not None
    path = folder / "card.json"
    card = json.loads(path.read_text("utf-8"))
    borrowed = changed(refine, of=lender.name, lower_precisions=())
    card["graphs"].append(values_of(borrowed))
    card["thresholds"]["refine"] = 0.5
    path.write_text(json.dumps(card), "utf-8")
    model = load_model(folder)
    assert model.file(model.card.graphs[1]) == lender.file(refine)
    assert model.file(model.card.graphs[0]).parent == folder
    for other, error in (
        ({"of": "nobody"}, WeightsNotFoundError),
        ({"sha256": "0" * 64}, WeightsDigestError),
    ):
        card["graphs"][1] = {**values_of(borrowed), **other}
        path.write_text(json.dumps(card), "utf-8")
        with pytest.raises(error, match=r"refine\.onnx"):
            load_model(folder)


def test_a_refine_graph_takes_two_inputs_and_gives_one_map() -> None:
    refine = load_model(shipped_models()["tumor-breast-lite0"]).card.graph("refine")
    assert refine is not None
    assert changed(refine, fit="squash").fit == "squash"
    with pytest.raises(ValueError, match="takes the slide and the heatmap"):
        changed(refine, inputs=refine.inputs[:1])
    planes = changed(refine.outputs[0], layout="NCHW", shape=(1, 1, 1024, 1024))
    with pytest.raises(ValueError, match="gives one map, NHW"):
        changed(refine, outputs=(planes,))


def test_int8_is_a_file_of_its_own(folder: Path) -> None:
    model = load_model(_with_int8(folder))
    graph = model.card.graphs[0]
    assert model.file(graph) == model.file(graph, "bfloat16") == folder / "model.onnx"
    assert model.file(graph, "int8") == folder / "model-int8.onnx"
    assert [one.file for one in model.card.files()] == ["model.onnx", "model-int8.onnx"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file": DELETE}, "int8 states its own file and sha256"),
        ({"sha256": DELETE}, "int8 states its own file and sha256"),
        ({"file": None, "sha256": None}, "int8 states its own file and sha256"),
        ({"precision": "bfloat16"}, "bfloat16 neither"),
        ({"precision": "int4"}, "lower_precisions.0.precision"),
        ({"file": "../model.onnx"}, "lower_precisions.0.file"),
        ({"file": "model.onnx"}, "every int8 graph has a file of its own"),
        ({"sha256": "abc"}, "lower_precisions.0.sha256"),
        ({"speedup": 0}, "lower_precisions.0.speedup"),
        ({"speedup": DELETE}, "lower_precisions.0.speedup: it is missing"),
        ({"measured_on": ""}, "lower_precisions.0.measured_on"),
        ({"value": 0.89}, "int8 is not proven"),
        ({"faster": True}, "lower_precisions.0.faster: there is no such field"),
    ],
)
def test_a_wrong_proof_of_int8_names_the_field(folder: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(CardError) as caught:
        load_model(_with_int8(folder, **change))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_precision_is_proven_once(folder: Path) -> None:
    _set(folder, ("graphs", 0, "lower_precisions"), [PROOF, PROOF])
    with pytest.raises(CardError, match="two proofs of one precision"):
        load_model(folder)


def test_int8_weights_are_checked_like_the_others(folder: Path) -> None:
    path = _with_int8(folder) / "model-int8.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsDigestError, match=r"model-int8\.onnx is not the file the card describes"):
        load_model(folder)
    path.unlink()
    with pytest.raises(
        WeightsNotFoundError, match=r"model-int8\.onnx is missing; .* as the patch graph in int8"
    ):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda card: card["graphs"][1].update(mpp=2.0), "sees the tiles of the card's patch graph"),
        (lambda card: card["thresholds"].update(screen_low=0.95), "screen_low"),
        (lambda card: card["thresholds"].pop("screen_high"), "screen_high"),
    ],
)
def test_a_screen_that_does_not_fit_its_patch_graph_is_refused(
    change: Callable[[dict[str, Any]], object], said: str, tmp_path: Path
) -> None:
    folder = screened(redness_model(tmp_path / "m"))
    load_model(folder)
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(CardError, match=said):
        load_model(folder)
