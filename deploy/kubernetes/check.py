#!/usr/bin/env python3
"""Builds every overlay, with and without the components, validates it against each version of Kubernetes, and checks
that what was built agrees with itself, with the binaries' --help and with the sources.

    deploy/kubernetes/check.py [--binaries target/debug] [--self-test | --write-rules]

`make check` runs it, with and without --self-test, which breaks what was built in many ways, each of which has to be
found. Exit code 0: all is well, or tools are missing (with REQUIRE_ALL=1 that fails); 1: something is wrong.
"""

import argparse
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from checks import tools  # noqa: E402

RULES_FILE = tools.ROOT / "deploy/monitoring/rules.yml"
MONITORING = HERE / "components/monitoring"
PRODUCTION = "production"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--binaries", default=tools.ROOT / "target/debug", help="folder of the built services")
    parser.add_argument("--self-test", action="store_true", help="also break what was built, and see it found")
    parser.add_argument("--write-rules", action="store_true", help="write the PrometheusRule anew, and nothing else")
    args = parser.parse_args()
    try:
        tools.packages()
        tools.kustomize()
    except tools.Missing as missing:
        required = os.environ.get("REQUIRE_ALL") == "1"
        print(f"{'failed' if required else 'SKIPPED'}: the check of deploy/kubernetes: {missing}", file=sys.stderr)
        return 1 if required else 0
    return write_rules() if args.write_rules else check(args)


def check(args):
    """Everything, a line for each overlay and version."""
    from checks import build, rules, sources

    try:
        known = sources.Sources(args.binaries)
    except (RuntimeError, OSError) as error:
        print(f"the services are not built (cargo build --workspace --bins): {error}", file=sys.stderr)
        return 1
    failed = False

    def report(title, errors):
        nonlocal failed
        errors = sorted(set(errors))
        print(f"{title}: {'ok' if not errors else f'{len(errors)} wrong'}")
        for error in errors:
            print(f"  {error}")
        failed |= bool(errors)

    production = None
    for overlay in sorted(path for path in (HERE / "overlays").iterdir() if path.is_dir()):
        for components in ([], sorted(path for path in (HERE / "components").iterdir() if path.is_dir())):
            title = " + ".join([overlay.name, *(path.name for path in components)])
            try:
                items = build.kustomized(overlay, components)
            except RuntimeError as error:
                report(title, [str(error)])
                continue
            for version in build.KUBERNETES:
                report(f"{title}: {len(items)} objects, Kubernetes {version}", build.invalid(items, version))
            system = rules.System(items, known, made(overlay), overlay.name == PRODUCTION, groups())
            report(f"{title}: agrees with itself, the binaries and the sources", rules.broken(system))
            if overlay.name == PRODUCTION:
                production = system
    if production:
        # Examples are policies: added to what they are for, they have to fit it as its own do.
        items = [item for path in sorted((HERE / "examples").iterdir()) for item in build.read(path.read_text())]
        errors = [error for version in build.KUBERNETES for error in build.invalid(items, version)]
        system = rules.System([*production.items, *items], known, production.made, True, production.rules)
        report(f"{len(items)} examples", [*errors, *rules.broken(system, {"selectors", "network"})])
        if args.self_test and not failed:
            from checks import mutations

            report(f"{len(mutations.TABLE)} mutations are found", mutations.missed(production))
    return 1 if failed else 0


def made(overlay):
    """What the operator makes for an overlay."""
    import yaml

    path = overlay / "operator-made.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else []


def groups():
    """The groups of alerts, or None while there is no such file."""
    import yaml

    return yaml.safe_load(RULES_FILE.read_text(encoding="utf-8"))["groups"] if RULES_FILE.is_file() else None


def write_rules():
    """The PrometheusRule, from the rules that are tested in deploy/monitoring: kustomize cannot take in a file."""
    text = RULES_FILE.read_text(encoding="utf-8")
    head = (MONITORING / "rules.yaml").read_text(encoding="utf-8").partition("  groups:")[0]
    body = text[text.index("groups:"):]
    indented = "".join(f"  {line}\n" if line.strip() else "\n" for line in body.splitlines())
    (MONITORING / "rules.yaml").write_text(head + indented, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
