"""Validation of the configuration: every mistake at once, in the user's words."""

import copy
import difflib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from casesim.errors import UserError

# numpy and scikit-learn take no larger seed.
_LARGEST_NUMBER = 2**32 - 1


def validate(config: dict[str, Any], schema_path: Path) -> dict[str, Any]:
    """Return a copy of `config` with the schema's defaults filled in.

    The schema (JSON schema 2020-12) rejects unknown keys. A second pass checks what a
    schema cannot say: order of ranges, and numbers that depend on each other.

    Raises:
        UserError: listing every problem with the key that it is about.
    """
    schema = json.loads(schema_path.read_text(encoding="utf-8"))
    filled = copy.deepcopy(config)
    problems = sorted(_odd_values(filled))
    if not problems:
        _fill_defaults(filled, schema, schema)
        filled = _whole_numbers(filled, schema, schema)
        problems = sorted(_schema_problems(filled, schema))
    if not problems:
        _fit_cluster_size(filled)
        problems = sorted(_relation_problems(filled))
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise UserError(
            f"The configuration has {len(problems)} problem(s):\n{lines}\n"
            "config/README.md explains every key."
        )
    return filled


def _odd_values(value: Any, key: str = "") -> Iterator[str]:
    """What YAML has made of the text, and no schema can refuse."""
    if isinstance(value, Mapping):
        for name, child in value.items():
            inner = f"{key}.{name}" if key else str(name)
            if not isinstance(name, str):
                yield f"{inner}: YAML takes the name {name!r} for no text; quote it"
            yield from _odd_values(child, inner)
        folded = Counter(str(name).casefold() for name in value)
        if alike := sorted(str(n) for n in value if folded[str(n).casefold()] > 1):
            yield f"{key or 'the top level'}: {', '.join(alike)} are too much alike"
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from _odd_values(child, f"{key}.{number}")
    elif isinstance(value, date):
        yield f"{key}: YAML takes {value} for a date; quote it"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{key}: {value} is no number to reckon with"
    elif isinstance(value, int | float) and abs(value) > _LARGEST_NUMBER:
        yield f"{key}: {value} is too large"


def _resolve(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Merge a local `$ref` (`#/$defs/name`) into the schema that holds it."""
    if "$ref" not in schema:
        return schema
    definition = root["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
    return {**definition, **{k: v for k, v in schema.items() if k != "$ref"}}


def _fill_defaults(
    value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any]
) -> None:
    for key, reference in schema.get("properties", {}).items():
        part = _resolve(reference, root)
        if key not in value and "default" in part:
            value[key] = copy.deepcopy(part["default"])
        if isinstance(value.get(key), dict):
            _fill_defaults(value[key], part, root)


def _whole_numbers(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """`value` with 4.0 as 4 wherever the schema wants an integer.

    JSON schema takes 4.0 for an integer, Python does not.
    """
    part = _resolve(schema, root)
    if isinstance(value, dict):
        known = part.get("properties", {})
        more = part.get("additionalProperties")
        more = more if isinstance(more, dict) else {}
        return {
            key: _whole_numbers(child, known.get(key, more), root)
            for key, child in value.items()
        }
    if isinstance(value, list):
        items = part.get("items", {})
        return [_whole_numbers(child, items, root) for child in value]
    if isinstance(value, float) and value.is_integer():
        choices = [part, *part.get("oneOf", [])]
        if any("integer" in (choice.get("type") or "") for choice in choices):
            return int(value)
    return value


def _fit_cluster_size(config: dict[str, Any]) -> None:
    """Replace `clusters.min_size: auto`: pairs, or single cases if no more may go."""
    clusters = config["clusters"]
    if clusters["min_size"] == "auto":
        clusters["min_size"] = min(2, _most_removed(config))


def _most_removed(config: dict[str, Any]) -> int:
    """The train cases that may be removed at most; one always may."""
    train = config["cohort"]["train_cases"]
    number = train if isinstance(train, int) else len(train)
    share = config["clusters"]["max_removed_share"]
    return max(1, math.floor(share * number + 1e-9))


def _schema_problems(config: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    # Imported here, so that the package stays importable without it.
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema).iter_errors(config):
        key = ".".join(str(part) for part in error.absolute_path) or "the top level"
        if error.validator == "additionalProperties" and isinstance(
            error.instance, dict
        ):
            known = list(error.schema.get("properties", {}))
            for name in error.instance:
                if name in known:
                    continue
                close = difflib.get_close_matches(str(name), known, n=1)
                hint = (
                    f"did you mean '{close[0]}'?"
                    if close
                    else f"known keys: {', '.join(known)}"
                )
                yield f"{key}: unknown key '{name}'; {hint}"
        elif error.validator == "oneOf":
            branches = {sub.message for sub in error.context or []}
            reasons = "; or ".join(sorted(branches))
            yield f"{key}: {error.instance!r} does not fit: {reasons}{_quotes(error)}"
        elif error.validator == "contains":
            yield f"{key}: must contain {error.validator_value['const']!r}"
        elif error.validator == "not":
            name = repr(error.instance)
            yield f"{key}: {name} is a name with a meaning of its own; choose another"
        elif error.validator == "type" and _is_number(error.instance):
            yield (
                f"{key}: {error.message}; write numbers without quotes, and with a "
                "point before an exponent (1.0e-3)"
            )
        else:
            yield f"{key}: {error.message}"


def _quotes(error: Any) -> str:
    """A hint for case ids that YAML takes for numbers."""
    given = error.instance if isinstance(error.instance, list) else []
    wants_text = any(
        "is not of type 'string'" in part.message for part in error.context or []
    )
    if wants_text and any(isinstance(name, int | float) for name in given):
        return "; write case ids in quotes, as '001'"
    return ""


def _is_number(text: Any) -> bool:
    try:
        return isinstance(text, str) and math.isfinite(float(text))
    except ValueError:
        return False


def _relation_problems(config: dict[str, Any]) -> Iterator[str]:
    cohort = config["cohort"]
    if cohort["source"] != "phantom" and cohort["path"] is None:
        source = cohort["source"]
        yield f"cohort.path: the folder of the data set is needed for source '{source}'"
    pool, train = cohort["pool"], cohort["train_cases"]
    if isinstance(pool, int) and pool < 2:
        yield "cohort.pool: at least 2 cases are needed to train and to compare"
    train_number = train if isinstance(train, int) else len(train)
    pool_number = pool if isinstance(pool, int) else len(pool)
    if train_number > pool_number:
        yield (
            f"cohort.train_cases: {train_number} train cases cannot be taken from a "
            f"pool of {pool_number}"
        )
    if train_number < 3:
        yield "cohort.train_cases: at least 3 cases are needed for a tree"
    for key in ("elastic_alpha", "elastic_sigma", "scale"):
        low, high = config["augmentation"][key]
        if low > high:
            yield f"augmentation.{key}: {low} is larger than {high}; write [low, high]"
    if config["augmentation"]["scale"][0] <= 0:
        yield "augmentation.scale: a zoom of 0 leaves nothing; write [0.95, 1.05], say"
    yield from _own_plans_problems(config)
    number = config["clusters"]["number"]
    if isinstance(number, int) and number > train_number:
        yield (
            f"clusters.number: {number} clusters cannot be made of {train_number} "
            "train cases"
        )
    largest = _most_removed(config)
    if config["clusters"]["min_size"] > largest:
        yield (
            f"clusters.min_size: {config['clusters']['min_size']} cases are more than "
            f"max_removed_share allows ({largest} of {train_number})"
        )
    refits, seed = config["stability"]["refits"], config["stability"]["seed"]
    if isinstance(refits, int) and refits > train_number:
        yield (
            f"stability.refits: {refits} cases are more than the {train_number} train "
            "cases"
        )
    if refits and seed == config["training"]["seed"]:
        yield (
            f"stability.seed: with {seed}, which is training.seed too, a refit would "
            "be the same training once more; choose another"
        )

    folds = config["evidence"]["cleanlab_folds"]
    if folds == 1 or folds > pool_number:
        yield (
            f"evidence.cleanlab_folds: {folds} folds cannot be made of {pool_number} "
            "pool cases; give 0 for none, or 2 or more"
        )
    truth = config["evidence"]["truth"]
    if truth is not None and not Path(truth).is_file():
        yield (
            f"evidence.truth: there is no file {truth}; give a .tsv or .csv with the "
            "columns case and kind, or null"
        )


def _own_plans_problems(config: Mapping[str, Any]) -> Iterator[str]:
    nnunet = config["nnunet"]
    named = "nnunet.plans" if nnunet["plans"] else "training.base.checkpoint"
    if not (nnunet["plans"] or config["training"]["base"]["checkpoint"]):
        return
    for key, default in (("planner", "default"), ("target_spacing", None)):
        if nnunet[key] != default:
            yield (
                f"nnunet.{key}: {nnunet[key]} asks for new plans, but {named} brings "
                "plans of your own; leave one of the two out"
            )


def check_regions(
    config: Mapping[str, Any],
    labels: Mapping[str, int],
    scored: Mapping[str, Sequence[int]],
) -> None:
    """Check the regions against the labels that the data set declares.

    `labels` are single labels, background included; `scored` is what networks are
    trained on, which the mean is of: each label, or the data set's own regions.

    Raises:
        UserError: when a region names an unknown label number or takes the name of
            something else, or when `similarity.region` has no Dice.
    """
    numbers = set(labels.values()) - {0}
    problems = []
    for name, members in config["regions"].items():
        unknown = sorted(set(members) - numbers)
        if unknown:
            problems.append(
                f"regions.{name}: label numbers {unknown} are not among the data set's "
                f"labels ({', '.join(f'{v} {k}' for k, v in labels.items() if v)})"
            )
        theirs = scored.get(name, [labels[name]] if name in labels else members)
        if set(theirs) != set(members):
            problems.append(
                f"regions.{name}: the data set has this name already, for {theirs}"
            )
    known = list(dict.fromkeys(["mean", *scored, *config["regions"]]))
    if config["similarity"]["region"] not in known:
        problems.append(
            f"similarity.region: '{config['similarity']['region']}' is not among "
            f"{', '.join(known)}"
        )
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise UserError(
            f"The regions do not fit the data set:\n{lines}\n"
            "Set `regions` to unions of these labels, such as `regions: {all: [1]}`, "
            "or to `regions: {}` for none (the default is that of brain tumours)."
        )


def check_targets(config: Mapping[str, Any], has_regions: bool, ignores: bool) -> None:
    """Check what cannot be had for a data set with regions or an ignored label.

    Raises:
        UserError: an analysis of probabilities, which those of regions are not, or
            which needs a label for every voxel, as planting errors does.
    """
    spoilt = [kind for kind, asked in config["cohort"]["spoil"].items() if asked]
    if ignores and spoilt:
        raise UserError(
            f"cohort.spoil.{spoilt[0]}: what nobody labelled would be spoilt like a "
            "label, so defects cannot be planted into a data set with an ignored "
            "label; give 0."
        )
    what = "with an ignored label" if ignores else "trained on regions"
    if config["evidence"]["cleanlab_folds"] and (has_regions or ignores):
        raise UserError(
            f"evidence.cleanlab_folds: cleanlab's score is of one label for each voxel "
            f"and cannot be had for a data set {what}; give 0."
        )
    if has_regions and config.get("adaptive", {}).get("enabled"):
        raise UserError(
            "adaptive.enabled: the similarity classifier weighs the models' "
            "probabilities of labels, and the networks of this data set are trained on "
            "regions; give false."
        )


def check_cells_per_group(asked: int | None, most: int) -> None:
    """Check how many cells a profile puts into one submission; None for none.

    Raises:
        UserError: more than Snakemake can plan in reasonable time.
    """
    if asked and asked > most:
        raise UserError(
            f"set-scatter: cells: {asked} is too many: Snakemake plans a group of more "
            f"than {most} jobs for minutes."
        )


def choose_channels(wanted: str | list[str], names: list[str]) -> list[int]:
    """Numbers of the channels that the explorer shows.

    Args:
        wanted: `all`, or names of channels.
        names: of all channels of the data set.

    Raises:
        UserError: a name that the data set does not have.
    """
    if wanted == "all":
        return list(range(len(names)))
    if unknown := [name for name in wanted if name not in names]:
        raise UserError(
            f"explorer.channels: {', '.join(unknown)} not among the data set's "
            f"channels ({', '.join(names)})."
        )
    return [names.index(name) for name in wanted]
