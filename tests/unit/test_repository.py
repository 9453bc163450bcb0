"""What the repository says in two places is the same in both."""

import re
from pathlib import Path

import pytest
import yaml

import config_table

ROOT = Path(__file__).parents[2]


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return dict(
        line.split("==") for line in lines if line.strip() and not line.startswith("#")
    )


def test_every_requirement_is_pinned() -> None:
    assert len(pins()) > 15
    assert all(re.fullmatch(r"\d[\w.]*", version) for version in pins().values())


@pytest.mark.parametrize("name", ["analysis", "nnunet"])
def test_conda_environments_have_the_same_pins(name: str) -> None:
    environment = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    packages = next(
        d["pip"] for d in environment["dependencies"] if isinstance(d, dict)
    )
    assert "defaults" not in environment["channels"]
    for package in packages:
        library, version = package.split("==")
        assert pins()[library] == version


def test_rules_use_the_environments_that_exist() -> None:
    used = set()
    for path in (ROOT / "rules").glob("*.smk"):
        used |= set(re.findall(r'"\.\./(envs/\w+\.yaml)"', path.read_text()))
    assert used == {f"envs/{path.name}" for path in (ROOT / "envs").glob("*.yaml")}


def test_a_script_carries_the_name_of_its_rule() -> None:
    rules = set()
    for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]:
        rules |= set(re.findall(r"^rule (\w+):", path.read_text(), re.MULTILINE))
    packages = ("casesim", "snakemake_logger_plugin_casesim")
    found = (ROOT / "workflow_scripts").glob("*/*.py")
    scripts = {path.stem for path in found if path.parent.name not in packages}
    assert scripts <= rules
    assert rules - scripts == {"all", "models", "matrix", "comparison"}


def test_the_table_of_config_keys_is_up_to_date() -> None:
    text = (ROOT / "config/README.md").read_text()
    assert config_table.updated(text) == text, "run: python tests/config_table.py"
