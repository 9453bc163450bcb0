"""What the repository says in two places is the same in both."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import config_table
from workflow.conftest import WORKFLOW

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
        rules |= set(re.findall(r"^ *rule (\w+):", path.read_text(), re.MULTILINE))
    packages = ("casesim", "snakemake_logger_plugin_casesim")
    found = (ROOT / "workflow_scripts").glob("*/*.py")
    scripts = {path.stem for path in found if path.parent.name not in packages}
    assert scripts <= rules
    targets = {"all", "quick", "models", "matrix", "comparison", "adaptive"}
    assert rules - scripts == targets


def test_the_table_of_config_keys_is_up_to_date() -> None:
    text = (ROOT / "config/README.md").read_text()
    assert config_table.updated(text) == text, "run: python tests/config_table.py"


def instructions(name: str) -> list[str]:
    """The Dockerfile's instructions of one kind, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)


def test_the_image_holds_the_workflow() -> None:
    copied = [line.split()[0] for line in instructions("COPY")]
    assert sorted(copied) == sorted([*WORKFLOW, "requirements.txt"])
    kept = set((ROOT / ".dockerignore").read_text().split())
    assert kept == {"*", "**/__pycache__", *(f"!{name}" for name in copied)}


@pytest.mark.parametrize("index", ["", "/an/index"])
def test_the_image_s_commands_install_what_is_pinned(index: str) -> None:
    """In this environment, where no pin is missing: nothing is fetched or changed."""
    packages, command = instructions("RUN")
    assert " gcc " in packages  # of Debian: they are not installed here
    assert "--requirement requirements.txt" in command
    dry = "pip install --dry-run --no-deps --no-index"
    offline = command.replace("pip install", dry)
    result = subprocess.run(
        ["sh", "-ec", offline],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TORCH_INDEX": index}
        | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert result.returncode == 0, result.stderr
    assert "Would install" not in result.stdout


def test_hooks_are_the_linters_of_make_lint() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"] for hook in hooks["repos"][0]["hooks"]]
    lint = (ROOT / "Makefile").read_text().split("\nlint: ")[1]
    tools = re.findall(r"\$\(BIN\)/(\w+ ?(?:check|format)?)", lint)
    assert len(tools) == 5
    for tool in [*tools, "snakemake --lint"]:
        assert any(tool.strip() in entry for entry in entries), tool


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*")))
def test_issue_templates_are_forms(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    if path.name == "config.yml":
        return
    assert {"name", "description", "labels", "body"} <= set(form)
    ids = [part["id"] for part in form["body"]]
    assert len(ids) == len(set(ids))


def test_citation_and_catalogue_settings() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    settings = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())
    assert settings["usage"]["mandatory-flags"]["flags"] == "--resources gpu=1"
    readme = (ROOT / "README.md").read_text().lower()
    assert "snakemake" in readme
    assert "workflow" in readme


PAGES = [
    page
    for pattern in ("*.md", "config/*.md", "docs/**/*.md")
    for page in sorted(ROOT.glob(pattern))
]


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(
        r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text()
    ):
        if "://" not in target:
            found = page.parent / target if target else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


def test_paths_that_the_tour_names_exist() -> None:
    tour = (ROOT / "docs/architecture.md").read_text()
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", tour)
    for name in named:
        if name.startswith("results/"):
            continue
        places = [ROOT / name, ROOT / "workflow_scripts" / name]
        assert any(place.exists() for place in places), name
