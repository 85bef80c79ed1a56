"""What the binaries and their sources say: flags, variables, paths, ports, times, metrics."""

import re
import tomllib
from functools import cached_property
from pathlib import Path

from . import tools

SERVICES = ["gateway", "matcher", "history"]


class Sources:
    """Read once, and shared by all overlays."""

    def __init__(self, binaries):
        self.binaries = Path(binaries)
        self.helps = {name: tools.call([self.binary(name), "--help"], env={}) for name in SERVICES}

    def binary(self, name):
        """The service's program."""
        return self.binaries / f"switchboard-{name}"

    def variables(self, name):
        """The environment variables that the service reads."""
        return set(re.findall(r"\[env: (SWITCHBOARD_\w+)", self.helps[name]))

    def flags(self, name):
        """The flags that the service takes."""
        return set(re.findall(r"^\s+(?:-\w, )?(--[\w-]+)", self.helps[name], re.MULTILINE))

    def default(self, name, variable):
        """A variable's default, if it has one."""
        found = re.search(rf"\[env: {variable}=?\]\s+\[default: (.*?)\]", self.helps[name])
        return found and found[1]

    @staticmethod
    def text(path):
        """A file of the repository."""
        return (tools.ROOT / path).read_text(encoding="utf-8")

    @cached_property
    def limits(self):
        """Times of contract/src/limits.rs, in seconds."""
        found = re.findall(r"pub const (\w+): Duration = Duration::from_(secs|millis)\(([\d_]+)\)",
                           self.text("contract/src/limits.rs"))
        return {name: int(value) / (1 if unit == "secs" else 1000) for name, unit, value in found}

    @cached_property
    def admin_paths(self):
        """What an admin port serves."""
        return set(re.findall(r'\.route\("(/[^"]+)"', self.text("contract/src/admin.rs")))

    @cached_property
    def client_paths(self):
        """Where a gateway serves clients."""
        found = re.search(r"SOCKET_PATHS: .*? = \[(.*?)\]", self.text("gateway/src/server.rs"), re.DOTALL)
        return set(re.findall(r'"(/[^"]+)"', found[1]))

    @cached_property
    def gauges(self):
        """The gateway's metrics that go up and down."""
        text = "".join(path.read_text(encoding="utf-8") for path in (tools.ROOT / "gateway/src").rglob("*.rs"))
        return set(re.findall(r'describe_gauge!\(\s*"(\w+)"', text))

    @cached_property
    def version(self):
        """The version of all of it."""
        return tomllib.loads(self.text("Cargo.toml"))["workspace"]["package"]["version"]
