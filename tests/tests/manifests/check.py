"""Looks at Kubernetes objects as an API server would: JSON on stdin, JSON on stdout.

{"manifests": [...]} -> for each a list of what is wrong, by the strict schemas of every Kubernetes version from 1.29 on.
{"schemas": {kind: schema}, "documents": [...]} -> for each a list of what is wrong, by the schema of its kind: types,
limits, fields that nobody knows, and rules in CEL.
"""

import json
import sys
import types

import jsonschema
import kubernetes_validate
from kubernetes_validate import utils

# Of the CEL package only the evaluator is needed; its command line wants more packages.
sys.modules["cel.cli"] = types.ModuleType("cel.cli")
import cel  # noqa: E402

OLDEST = (1, 29)


def versions():
    every = {utils.major_minor(one) for one in utils.all_versions()}
    numbers = sorted(tuple(int(part) for part in one.split(".")) for one in every)
    return ["%d.%d" % one for one in numbers if one >= OLDEST]


def of_manifest(manifest):
    wrong = []
    for version in versions():
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(str(part) for part in error.path)
            wrong.append("%s: %s: %s" % (version, place, error.message[:300]))
        except kubernetes_validate.SchemaNotFoundError:
            wrong.append("%s: no schema" % version)
    return wrong


def strict(schema):
    """`additionalProperties: false` wherever properties are listed: what `kubectl` does by fieldValidation=Strict."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        made["additionalProperties"] = False
    return made


def rules(schema, value):
    """The rules that do not hold."""
    wrong = []
    for one in schema.get("x-kubernetes-validations", []):
        if cel.evaluate(one["rule"], {"self": value}) is not True:
            wrong.append(one["message"])
    if isinstance(value, dict):
        for name, inner in value.items():
            known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if isinstance(known, dict):
                wrong += rules(known, inner)
    if isinstance(value, list):
        for inner in value:
            wrong += rules(schema.get("items", {}), inner)
    return wrong


def of_documents(schemas, documents):
    formats = jsonschema.FormatChecker(["ipv4", "ipv6"])
    # The root has metadata, whose fields are not listed.
    specs = {kind: schema["properties"]["spec"] for kind, schema in schemas.items()}
    made = {
        kind: jsonschema.Draft202012Validator(strict(spec), format_checker=formats)
        for kind, spec in specs.items()
    }
    found = []
    for document in documents:
        kind, spec = document["kind"], document.get("spec")
        wrong = [error.message[:300] for error in made[kind].iter_errors(spec)]
        # As the API server: rules only for what has the right shape.
        found.append(wrong or rules(specs[kind], spec))
    return found


asked = json.load(sys.stdin)
if "manifests" in asked:
    answer = [of_manifest(one) for one in asked["manifests"]]
else:
    answer = of_documents(asked["schemas"], asked["documents"])
json.dump(answer, sys.stdout)
