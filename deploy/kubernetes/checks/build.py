"""Builds overlays, with and without the components, and validates what comes out against each Kubernetes version."""

import functools
import json
import os
import tempfile

import kubernetes_validate
import yaml
from kubernetes_validate import utils

from . import tools

KUBERNETES = ["1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
# Kinds that Kubernetes itself does not know: nothing here says how they have to look.
FOREIGN = {"monitoring.coreos.com/v1": {"PodMonitor", "PrometheusRule"}}

# Read once for each version, and not for each object.
utils.schema_contents = functools.lru_cache(maxsize=None)(utils.schema_contents)
utils.all_versions = functools.lru_cache(maxsize=None)(utils.all_versions)


def kustomized(folder, components=()):
    """The objects of an overlay with these components added."""
    command = tools.kustomize()
    if not components:
        return read(tools.call([*command, folder]))
    # Kustomize wants relative paths, and nothing outside of a kustomization that is not one itself.
    tools.TOOLS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kustomize-", dir=tools.TOOLS) as beside:
        def relative(paths):
            return [os.path.relpath(path, os.path.realpath(beside)) for path in paths]

        kustomization = {"resources": relative([folder]), "components": relative(components),
                         "namespace": "switchboard"}
        with open(os.path.join(beside, "kustomization.yaml"), "w", encoding="utf-8") as file:
            yaml.safe_dump(kustomization, file)
        return read(tools.call([*command, beside]))


def read(text):
    """The objects of a YAML stream."""
    return [item for item in yaml.safe_load_all(text) if item]


def title(item):
    """What an object is called in errors."""
    return f"{item['kind']} {item['metadata']['name']}"


@functools.lru_cache(maxsize=None)
def _validate(text, version):
    item = json.loads(text)
    try:
        used = kubernetes_validate.validate(item, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{title(item)}: {'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        return f"{title(item)}: Kubernetes {version} has no {item['apiVersion']} {item['kind']}"
    # An older one would have been used silently.
    return None if used == version else f"the package knows no Kubernetes {version}, only {used}"


def invalid(items, version):
    """What this version of Kubernetes would refuse."""
    for item in items:
        if item["kind"] not in FOREIGN.get(item["apiVersion"], ()):
            # Sorted text, so that what several overlays share is validated once.
            if error := _validate(json.dumps(item, sort_keys=True), version):
                yield error
