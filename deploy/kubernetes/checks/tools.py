"""Finds or installs, pinned and below .switchboard/tools, what the checks need besides Python."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TOOLS = Path(os.environ.get("SWITCHBOARD_FOLDER") or ROOT / ".switchboard").absolute() / "tools"

KUSTOMIZE_MODULE = "sigs.k8s.io/kustomize/kustomize/v5"
KUSTOMIZE_VERSION = "v5.7.1"


class Missing(Exception):
    """Something is not here and cannot be installed; the text says what to do."""


def call(command, **options):
    """Runs a program to its end and returns what it printed. The error holds the end of what it said."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).splitlines()[-10:])
        raise RuntimeError(f"{' '.join(map(str, command))} failed ({done.returncode}):\n{said}")
    return done.stdout


def packages():
    """Makes the pinned Python packages importable. A folder and no virtual environment, so that pip is enough."""
    requirements = HERE / "requirements.txt"
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = TOOLS / f"python-{key}"
    if not folder.is_dir():
        pip = [sys.executable, "-m", "pip"]
        if subprocess.run([*pip, "--version"], capture_output=True).returncode != 0:
            raise Missing("Python 3 with pip is missing (Debian, Ubuntu: apt-get install python3-pip)")
        print(f"installing {requirements.name} of the checks of Kubernetes as {folder}", file=sys.stderr)
        TOOLS.mkdir(parents=True, exist_ok=True)
        options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
        with tempfile.TemporaryDirectory(prefix="install-", dir=TOOLS) as beside:
            fresh = Path(beside) / "python"
            try:
                call([*pip, "install", *options, "--root-user-action=ignore", "--target", fresh, "-r", requirements])
            except RuntimeError as error:
                raise Missing(f"the packages of {requirements} cannot be installed: {error}") from error
            fresh.rename(folder)
    sys.path.insert(0, str(folder))


def kustomize():
    """The command that builds a kustomization: kubectl's, else kustomize, on the PATH or built with Go."""
    if kubectl := shutil.which("kubectl"):
        return [kubectl, "kustomize"]
    own = TOOLS / f"kustomize-{KUSTOMIZE_VERSION}"
    found = shutil.which("kustomize") or (own if own.is_file() else None)
    if not found:
        build_kustomize(own)
    return [found or own, "build"]


def build_kustomize(own):
    """As a requirement of an empty module and not with `go install`: that wants to list all versions, for nothing."""
    go = shutil.which("go")
    if not go:
        raise Missing("kubectl is missing (https://kubernetes.io/docs/tasks/tools), and so is Go, which would build "
                      "kustomize (https://go.dev/dl, 1.25 or later)")
    print(f"building {KUSTOMIZE_MODULE} {KUSTOMIZE_VERSION} as {own}; this takes a minute", file=sys.stderr)
    TOOLS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="install-", dir=TOOLS) as module:
        try:
            call([go, "-C", module, "mod", "init", "switchboard.local/tools"])
            call([go, "-C", module, "mod", "edit", f"-require={KUSTOMIZE_MODULE}@{KUSTOMIZE_VERSION}"])
            call([go, "-C", module, "build", "-mod=mod", "-trimpath", "-o", "kustomize", KUSTOMIZE_MODULE],
                 env=os.environ | {"CGO_ENABLED": "0"})
        except RuntimeError as error:
            raise Missing(f"kustomize cannot be built: {error}") from error
        (Path(module) / "kustomize").rename(own)
