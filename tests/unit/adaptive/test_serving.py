"""What clients of this stage ask for, and that it is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from casesim.adaptive import serving
from casesim.errors import UserError

SHARED = [
    *("--case", "b", "--data", "b.b2nd", "--threads", "8", "--gpu", "1"),
    *(
        "--ignore",
        "4",
        "--labels",
        "edema=1;core=2",
        "--regions",
        "WT=1,2",
        "--no-mirroring",
    ),
]


def test_a_cell() -> None:
    job = serving.parse_job(
        "/work place",
        [
            *("cell", "--model", "finetuned/a", "--checkpoint", "m/c.pth"),
            *("--label-map", "maps/b.nii.gz", "--cell", "/cells/b.json", *SHARED),
        ],
    )
    assert isinstance(job, serving.Cell)
    assert job.checkpoint == Path("/work place/m/c.pth")
    assert job.label_map == Path("/work place/maps/b.nii.gz")
    assert job.cell == Path("/cells/b.json")
    assert (job.labels, job.regions) == (
        {"edema": (1,), "core": (2,)},
        {"WT": (1, 2)},
    )
    assert job.options == {"mirroring": False, "tile_step": 0.5, "bfloat16": False}


def test_ensembles() -> None:
    job = serving.parse_job(
        "/w",
        [
            *("ensembles", "--weights", "w.json", "--models", "results/models"),
            *("--label-maps", "out", *SHARED),
        ],
    )
    assert isinstance(job, serving.Ensembles)
    assert (job.weights, job.models) == (Path("/w/w.json"), Path("/w/results/models"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Ask for cell or ensembles"),
        (["predict", *SHARED], "not for 'predict'"),
        (["cell", *SHARED], "--checkpoint"),
        (["ensembles", *SHARED, "--weights"], "--weights"),
        (["ensembles", *SHARED, "--label-maps", "../out"], "leaves its folder"),
        (["cell", *SHARED, "--model", "../base"], "leaves its folder"),
    ],
)
def test_arguments_that_make_no_sense(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        serving.parse_job("/w", arguments)


@pytest.mark.parametrize(
    "text", ["[]", '{"a": 1}', '{"a": {"m": "x"}}', '{"a": {"m": ["x"]}}', "nothing"]
)
def test_weights_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "weights.json"
    with pytest.raises(UserError, match="cannot be read"):
        serving.read_weights(path)
    path.write_text(text)
    with pytest.raises(UserError, match="holds no weights"):
        serving.read_weights(path)
    path.write_text('{"a": {"m": 1, "n": [0, 0.5]}}')
    assert serving.read_weights(path) == {"a": {"m": 1.0, "n": [0.0, 0.5]}}


class FakeKeeper:
    """Counts what is in memory; loads names instead of models."""

    device = "cpu"

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def case(self, data: Path, label: Path | None) -> Any:
        assert label is None
        return self._future(type("Case", (), {"data": "data", "properties": {}})())

    def first_stage(self, data: Path, configuration: str | None) -> Any:
        return configuration and self._future(data.with_name(configuration))

    def model(self, checkpoint: Path) -> Any:
        self.loaded.append(str(checkpoint))
        return self._future(checkpoint)

    def _future(self, value: Any) -> Any:
        return type("Done", (), {"result": lambda self: (value, 1)})()

    def trim(self) -> None:
        pass

    def use_threads(self, number: int) -> None:
        assert number == 8

    def try_twice(self, run: Any) -> str:
        return str(run())


def predictor(cells: Any) -> tuple[serving.Predictor, FakeKeeper]:
    made = serving.Predictor.__new__(serving.Predictor)
    keeper = FakeKeeper()
    made.__dict__.update(_keeper=keeper, _cells=cells)
    return made, keeper


def test_a_cell_goes_to_the_one_model() -> None:
    asked: dict[str, Any] = {}

    class Cells:
        @staticmethod
        def run_label_free(**values: Any) -> dict[str, float]:
            asked.update(values)
            return {"network": 1.0}

    made, keeper = predictor(Cells)
    arguments = ["cell", "--model", "m", "--checkpoint", "c.pth", *SHARED]
    arguments += ["--label-map", "l.nii.gz", "--cell", "c.json"]
    text = made.run(serving.parse_job("/w", arguments))
    assert "m on b (cpu): network 1.000 s" in text
    assert keeper.loaded == ["/w/c.pth"]
    assert asked["regions"] == {"edema": (1,), "core": (2,), "WT": (1, 2)}
    assert asked["first"] is None
    made.run(serving.parse_job("/w", [*arguments, "--first-stage=3d_lowres"]))
    assert asked["first"] == Path("/w/3d_lowres")


def test_ensembles_find_their_models(tmp_path: Path) -> None:
    class Cells:
        @staticmethod
        def run_ensembles(weights: Any, load: Any, **values: Any) -> dict[str, float]:
            for name in weights["adaptive"]:
                load(name)
            path = values["label_map_path"]("adaptive")
            assert path == tmp_path / "out/adaptive/b.nii.gz"
            return {}

    made, keeper = predictor(Cells)
    weights = {"adaptive": {"base": 0.5, "finetuned/x": 0.5}}
    (tmp_path / "w.json").write_text(json.dumps(weights))
    arguments = ["ensembles", "--weights", "w.json", "--models", "models", *SHARED]
    arguments += ["--label-maps", "out"]
    made.run(serving.parse_job(str(tmp_path), arguments))
    assert [path.removeprefix(str(tmp_path)) for path in keeper.loaded] == [
        "/models/base/fold_all/checkpoint_final.pth",
        "/models/finetuned/x/fold_all/checkpoint_final.pth",
    ]
