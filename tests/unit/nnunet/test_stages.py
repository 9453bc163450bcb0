from pathlib import Path

from casesim.nnunet import planning, stages


def test_most_configurations_are_one_stage() -> None:
    for name in ("2d", "3d_fullres", "3d_lowres"):
        assert stages.stages(name) == [name]
        assert stages.first_stage(name) is None
        assert stages.first_checkpoint("m/fold_all/c.pth", name) is None
        assert stages.by_stage(["a/1", "b/1"], name) == {name: ["a/1", "b/1"]}
    assert stages.CASCADE in planning.CONFIGURATIONS


def test_the_cascade_is_two() -> None:
    low, high = stages.stages(stages.CASCADE)
    assert (low, high) == ("3d_lowres", "3d_cascade_fullres")
    stems = [f"p/nnUNetPlans_{name}/{case}" for case in "ab" for name in (high, low)]
    assert stages.by_stage(stems, stages.CASCADE) == {
        low: ["p/nnUNetPlans_3d_lowres/a", "p/nnUNetPlans_3d_lowres/b"],
        high: [stems[0], stems[2]],
    }
    assert stages.beside(stems[0], low) == Path("p/nnUNetPlans_3d_lowres/a")
    assert stages.first_checkpoint("m/fold_all/c.pth", stages.CASCADE) == Path(
        "m/3d_lowres/fold_all/c.pth"
    )
