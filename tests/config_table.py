"""Write the table of keys in config/README.md from the schema.

    python tests/config_table.py

Each description is written once, in the schema; a test checks that the table is up to
date.
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "config/schemas/config.schema.json"
README = ROOT / "config/README.md"
START, END = "<!-- keys: start -->", "<!-- keys: end -->"


def rows(part: dict[str, Any], root: dict[str, Any], path: str = "") -> list[str]:
    """One Markdown table row for each key, parents before their children."""
    lines = []
    for key, reference in part.get("properties", {}).items():
        name = reference.get("$ref", "").rsplit("/", 1)[-1]
        value = {**root["$defs"].get(name, {}), **reference}
        children = "properties" in value
        default = "" if children else f"`{json.dumps(value['default'])}`"
        if "enum" in value:
            choices = ", ".join(f"`{choice}`" for choice in value["enum"])
            value["description"] += f" One of {choices}."
        lines.append(f"| `{path}{key}` | {default} | {value['description']} |")
        if children:
            lines += rows(value, root, f"{path}{key}.")
    return lines


def table() -> str:
    schema = json.loads(SCHEMA.read_text())
    head = ["| key | default | meaning |", "|---|---|---|"]
    return "\n".join([START, *head, *rows(schema, schema), END])


def updated(text: str) -> str:
    before, rest = text.split(START)
    return before + table() + rest.split(END)[1]


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
