"""Validates configuration files against docs/drawbridge.schema.json with jsonschema.

Arguments: the schema, and the TOML files. Prints a line per file: its name, and `valid` or the
first problem. A file with lines `### ` has several parts, each of them a file.
"""

import json
import pathlib
import sys
import tomllib

import jsonschema

schema = json.loads(pathlib.Path(sys.argv[1]).read_text())
jsonschema.Draft7Validator.check_schema(schema)
validator = jsonschema.Draft7Validator(schema)


def first_problem(text):
    error = jsonschema.exceptions.best_match(validator.iter_errors(tomllib.loads(text)))
    if error is None:
        return "valid"
    at = "".join(f"/{part}" for part in error.absolute_path)
    return f"{at}: {error.validator}"


for path in map(pathlib.Path, sys.argv[2:]):
    text = path.read_text()
    parts = text.split("### ")
    if len(parts) == 1:
        print(path.name, first_problem(text), sep="\t")
    for part in parts[1:]:
        want, document = part.split("\n", 1)
        print(want, first_problem(document), sep="\t")
