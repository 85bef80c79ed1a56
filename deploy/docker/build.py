#!/usr/bin/env python3
"""Builds the three images without any registry of images, and runs them: `make images`.

buildah builds the very Dockerfile, with chroot isolation. The image of its builders is an empty folder into which this
machine's own compiler, Rust toolchain, Node and what cargo and npm have downloaded are mounted; its base image is this
machine's own libc, libgcc_s and CA certificates, and nothing else. So what is tested is the Dockerfile and what comes
out of it, and not the public images that it names by default.

runc then runs all three as the images say (user 65532), with a read-only root, without capabilities and with nothing
to write to, before a nats-server, and looks at the gateway from outside. Everything is kept below .switchboard/images.

Exit code: 0 all is well, or a tool is missing, which is said (with REQUIRE_ALL=1 that is 1); 1 something is wrong.
"""

import contextlib
import errno
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "deploy/docker"
WORK = ROOT / ".switchboard/images"
SERVICES = ("matcher", "history", "gateway")
USER = 65532
# What distroless/cc has of glibc and gcc.
LIBRARIES = ("libc.so.6", "libm.so.6", "libgcc_s.so.1")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# Where the compiler of this machine is, and npm if it is Debian's; the links in the root (/bin, /lib) are made in the
# builders' image.
TOOLS = ("usr/bin", "usr/lib", "usr/lib64", "usr/include", "usr/libexec", "usr/share/nodejs", "etc/alternatives")
STARTS_WITHIN = 60.0
# A drain: 0.5 s unready, 2 s over which sockets are closed, at most 15 s more.
STOPS_WITHIN = 20.0


class Wrong(Exception):
    """It does not hold."""


def say(text):
    print(f"images: {text}", flush=True)


def call(*command, **options):
    done = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE, **options)
    if done.returncode != 0:
        raise Wrong(f"{' '.join(str(word) for word in command)} failed ({done.returncode}): {done.stdout[-2000:]}")
    return done.stdout.strip()


def buildah(*command):
    where = ("--storage-driver", "vfs", "--root", WORK / "storage", "--runroot", WORK / "run")
    return call("buildah", *where, *command, env={**os.environ, "TMPDIR": str(WORK / "tmp")})


def nats_server():
    return shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:{ROOT / '.switchboard/tools'}")


def node():
    """This machine's Node, without links; None where there is none that is new enough, or no npm."""
    found = shutil.which("node")
    if not found or not shutil.which("npm"):
        return None
    version = tuple(map(int, call(found, "--version").removeprefix("v").split(".")))
    return pathlib.Path(found).resolve() if version >= node_least() else None


def node_least():
    """The version that the Makefile asks for."""
    least = re.search(r"^NODE := ([\d.]+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    return tuple(map(int, least.split(".")))


def missing():
    """What is not here, and how to get it."""
    debian = {"buildah": "buildah", "runc": "runc", "gcc": "gcc"}
    for tool, package in debian.items():
        if not shutil.which(tool):
            yield f"{tool} (Debian, Ubuntu: apt-get install {package})"
    for tool in ("cargo", "rustc"):
        if not shutil.which(tool):
            yield f"{tool} (https://rustup.rs)"
    if not node():
        yield "Node {}.{}.{} or later, with npm (https://nodejs.org)".format(*node_least())
    if not nats_server():
        yield "nats-server (target/release/switchboard tools, after make run was built)"
    if not pathlib.Path(CERTIFICATES).is_file():
        yield "CA certificates (Debian, Ubuntu: apt-get install ca-certificates)"
    if os.geteuid() != 0:
        yield "root (to make folders of other users, and to run as another one)"


def library(name):
    path = call("gcc", f"-print-file-name={name}")
    if not os.path.isabs(path):
        raise Wrong(f"gcc does not know where {name} is")
    return pathlib.Path(path).resolve()


def users(root):
    """The accounts that a base image has: those that somebody could be."""
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text(f"root:x:0:0:root:/:/none\nnonroot:x:{USER}:{USER}:nonroot:/:/none\n")
    (root / "etc/group").write_text(f"root:x:0:\nnonroot:x:{USER}:\n")


def image(root, name, *config):
    """Makes an image of a folder."""
    container = buildah("from", "scratch")
    buildah("copy", "--quiet", container, root, "/")
    if config:
        buildah("config", *config, container)
    buildah("commit", "--quiet", "--rm", container, name)


def make_base():
    with tempfile.TemporaryDirectory(dir=WORK / "tmp") as folder:
        root = pathlib.Path(folder)
        users(root)
        for name in LIBRARIES:
            found = library(name)
            # Where the loader looks; Debian's are the same two for each architecture.
            (root / "lib").mkdir(exist_ok=True)
            shutil.copy(found, root / "lib" / name)
        # The loader, at the path that is written into every program.
        words = call("ldd", sys.executable if b"ELF" in open(sys.executable, "rb").read(4) else "/bin/sh").split()
        loader = next(word for word in words if "/ld-linux" in word)
        target = root / loader.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pathlib.Path(loader).resolve(), target)
        (root / "etc/ssl/certs").mkdir(parents=True)
        shutil.copy(CERTIFICATES, root / CERTIFICATES.lstrip("/"))
        os.chmod(root, 0o755)
        image(root, "localhost/switchboard-base")


def make_builder():
    with tempfile.TemporaryDirectory(dir=WORK / "tmp") as folder:
        root = pathlib.Path(folder)
        users(root)
        for name in TOOLS + ("rust", "cargo/registry", "node", "npm", "tmp"):
            (root / name).mkdir(parents=True, exist_ok=True)
        for name in ("bin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        os.chmod(root, 0o755)
        environment = {
            "PATH": "/rust/bin:/node/bin:/usr/bin:/bin",
            "CARGO_HOME": "/cargo",
            "npm_config_cache": "/npm",
            "npm_config_registry": call("npm", "config", "get", "registry"),
            # What is not here cannot be had: the build proves that the lock files name everything.
            "CARGO_NET_OFFLINE": "true",
            "npm_config_offline": "true",
        }
        config = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
        image(root, "localhost/switchboard-builder", *config)


def mounts():
    home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    folders = {f"/{name}": f"/{name}" for name in TOOLS if pathlib.Path("/", name).is_dir()}
    folders[call("rustc", "--print", "sysroot")] = "/rust"
    folders[str(home / "registry")] = "/cargo/registry"
    folders[str(node().parents[1])] = "/node"
    # npm reads nothing of a cache that it cannot tidy up.
    cache = ("--volume", f"{call('npm', 'config', 'get', 'cache')}:/npm")
    return [*cache, *(word for source, target in folders.items() for word in ("--volume", f"{source}:{target}:ro"))]


def facts():
    """The version of the workspace and the commit that is checked out."""
    version = re.search(r'^version = "([^"]+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    commit = os.environ.get("COMMIT")
    if not commit:
        git = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
            text=True, capture_output=True, check=False,
        )
        commit = git.stdout.strip() or "unknown"
    return version, commit


def build(version, commit):
    call("cargo", "fetch", "--locked", "--quiet", cwd=ROOT)
    with tempfile.TemporaryDirectory(dir=WORK / "tmp") as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(ROOT / "gateway/web" / name, folder)
        call("npm", "ci", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund")
    args = {
        "NODE": "localhost/switchboard-builder",
        "BUILDER": "localhost/switchboard-builder",
        "BASE": "localhost/switchboard-base",
        "VERSION": version,
        "COMMIT": commit,
    }
    for service in SERVICES:
        began = time.monotonic()
        buildah(
            "build", "--isolation", "chroot", "--pull=never", "--layers", "--format", "oci",
            "--file", HERE / "Dockerfile", "--ignorefile", HERE / "Dockerfile.dockerignore",
            *(word for name, value in args.items() for word in ("--build-arg", f"{name}={value}")),
            *mounts(), "--target", service, "--tag", f"localhost/switchboard-{service}",
            "--tag", f"localhost/switchboard-{service}:{version}", ROOT,
        )
        size = sum(layer["size"] for layer in json.loads(inspect(service)["Manifest"])["layers"])
        say(f"{service} is built after {time.monotonic() - began:.0f} s, {size / 1e6:.1f} MB")


def inspect(service):
    return json.loads(buildah("inspect", "--type", "image", f"localhost/switchboard-{service}"))


def expect(what, found, wanted):
    if found != wanted:
        raise Wrong(f"{what} is {found!r}, not {wanted!r}")


class Box:
    """One container."""

    def __init__(self, stack, service, args, name):
        self.name = f"switchboard-{os.getpid()}-{name}"
        self.state = ("runc", "--root", WORK / "runc")
        container = buildah("from", "--pull=never", f"localhost/switchboard-{service}")
        stack.callback(buildah, "rm", container)
        rootfs = buildah("mount", container)
        bundle = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(dir=WORK / "tmp")))
        call("runc", "spec", "--bundle", bundle)
        spec = json.loads((bundle / "config.json").read_text())
        config = inspect(service)["OCIv1"]["config"]
        user, _, group = config["User"].partition(":")
        spec["process"].update(
            terminal=False,
            args=config["Entrypoint"] + args,
            env=config.get("Env", []),
            user={"uid": int(user), "gid": int(group)},
            noNewPrivileges=True,
            capabilities={},
            rlimits=[{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 1024}],
        )
        spec["root"] = {"path": rootfs, "readonly": True}
        spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] != "network"]
        # Machines differ in which control groups may be used, and this is not about them.
        spec["linux"].pop("resources", None)
        (bundle / "config.json").write_text(json.dumps(spec))
        self.log = bundle / "log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [*map(str, self.state), "run", "--bundle", str(bundle), self.name], stdout=log, stderr=log
            )
        stack.callback(self.kill)

    def kill(self):
        if self.process.poll() is None:
            subprocess.run([*map(str, self.state), "kill", self.name, "KILL"], check=False)
            self.process.wait()

    def pid(self):
        return json.loads(call(*self.state, "state", self.name))["pid"]

    def end(self, within):
        """Its exit code, and what it said."""
        try:
            return self.process.wait(within), self.log.read_text()
        except subprocess.TimeoutExpired:
            raise Wrong(f"{self.name} runs still after {within} s: {self.log.read_text()[-2000:]}") from None

    def stop(self):
        call(*self.state, "kill", self.name, "TERM")
        code, said = self.end(STOPS_WITHIN)
        if code != 0 or "stopped" not in said:
            raise Wrong(f"{self.name} ended with {code} after SIGTERM: {said[-2000:]}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(url, **headers):
    """The status code and the body; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def eventually(url, *boxes):
    ends = time.monotonic() + STARTS_WITHIN
    while (found := get(url))[0] != 200:
        for box in boxes:
            if box.process.poll() is not None:
                raise Wrong(f"{box.name} has ended: {box.log.read_text()[-2000:]}")
        if time.monotonic() > ends:
            raise Wrong(f"{url} says {found} for {STARTS_WITHIN} s")
        time.sleep(0.05)


def full(version, commit):
    """As `--version` says it."""
    return version if commit == "unknown" else f"{version}+{commit[:12]}"


def check_image(stack, service, version, commit):
    """What the image says of itself, and its program with no flags but --version."""
    config = inspect(service)["OCIv1"]["config"]
    expect(f"the user of {service}", config["User"], f"{USER}:{USER}")
    labels = config["Labels"]
    for name, wanted in {"version": version, "revision": commit, "title": f"switchboard-{service}"}.items():
        expect(f"the label {name} of {service}", labels.get(f"org.opencontainers.image.{name}"), wanted)
    code, said = Box(stack, service, ["--version"], f"version-{service}").end(30)
    expect(f"{service} --version", (code, said.strip()), (0, f"switchboard-{service} {full(version, commit)}"))


def check_page(url, version, commit):
    """Browsers get the page, which is told the version, and what it loads."""
    code, page = get(f"{url}/", Accept="text/html")
    told = f'<meta name="switchboard-version" content="{full(version, commit)}"'
    loaded = re.findall(r'(?:src|href)="\.?(/assets/[^"]+)"', page)
    if code != 200 or told not in page or not loaded:
        raise Wrong(f"the page is {code}, {page!r}, without {told} or without what it loads")
    for path in loaded:
        expect(f"the status of {path}", get(f"{url}{path}")[0], 200)
    return len(loaded)


def check_locked_in(gateway):
    """It is 65532, may do nothing more than others, and can write nowhere."""
    process = pathlib.Path(f"/proc/{gateway.pid()}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    status = {name: value.split() for name, value in status.items()}
    for name, wanted in {"Uid": [str(USER)] * 4, "Gid": [str(USER)] * 4, "NoNewPrivs": ["1"]}.items():
        expect(f"{name} of the gateway", status[name], wanted)
    for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        expect(f"{name} of the gateway", int(status[name][0], 16), 0)
    # Seen through the process, the root is mounted as it is for it. root itself cannot write there, either.
    for folder in ("", "tmp", "etc", "usr/local/bin", "var"):
        path = process / "root" / folder
        if not path.is_dir():
            continue
        try:
            (path / "written").touch()
        except OSError as error:
            expect(f"writing to /{folder}", errno.errorcode[error.errno], "EROFS")
        else:
            raise Wrong(f"the gateway's root can be written to: /{folder}")
    for shell in ("bin/sh", "usr/bin/sh", "bin/busybox"):
        if (process / "root" / shell).exists():
            raise Wrong(f"there is a shell in the image: /{shell}")


def run(version, commit):
    with contextlib.ExitStack() as stack:
        for service in SERVICES:
            check_image(stack, service, version, commit)
        say(f"each says its version, {version}, and its commit, {commit}")

        store = stack.enter_context(tempfile.TemporaryDirectory(dir=WORK / "tmp"))
        nats, clients = free_port(), free_port()
        server = subprocess.Popen(
            [nats_server(), "-a", "127.0.0.1", "-p", str(nats), "-js", "-sd", store], stderr=subprocess.DEVNULL
        )
        stack.callback(server.wait)
        stack.callback(server.terminate)
        boxes, admin = {}, {}
        for service in SERVICES:
            admin[service] = f"http://127.0.0.1:{(port := free_port())}"
            args = ["--nats-url", f"nats://127.0.0.1:{nats}", "--admin-addr", f"127.0.0.1:{port}"]
            if service == "gateway":
                args += ["--listen", f"127.0.0.1:{clients}", "--auth", "open"]
            boxes[service] = Box(stack, service, args, service)
        for service in SERVICES:
            eventually(f"{admin[service]}/health/live", *boxes.values())
            eventually(f"{admin[service]}/health/ready", *boxes.values())
        # Through NATS to the matcher and back.
        eventually(f"http://127.0.0.1:{clients}/", *boxes.values())
        told = f'switchboard_build_info{{component="gateway",version="{version}",commit="{commit}"}} 1'
        if told not in get(f"{admin['gateway']}/metrics")[1]:
            raise Wrong(f"the metrics do not say {told}")
        say("all three are live and ready with a read-only root, and the gateway answers clients")
        assets = check_page(f"http://127.0.0.1:{clients}", version, commit)
        say(f"the gateway serves the page, and the {assets} files that it loads")
        check_locked_in(boxes["gateway"])
        say(f"the gateway is {USER}, has no capabilities and no shell, and cannot write to its root")
        began = time.monotonic()
        boxes["gateway"].stop()
        say(f"the gateway ended well {time.monotonic() - began:.1f} s after SIGTERM")
        for service in ("history", "matcher"):
            boxes[service].stop()


def main():
    lacking = list(missing())
    if lacking:
        say("skipped, nothing was built: missing is " + "; ".join(lacking))
        return 1 if os.environ.get("REQUIRE_ALL") == "1" else 0
    (WORK / "tmp").mkdir(parents=True, exist_ok=True)
    version, commit = facts()
    try:
        make_base()
        make_builder()
        build(version, commit)
        run(version, commit)
    except Wrong as error:
        say(str(error))
        return 1
    say("all is well; `buildah --storage-driver vfs --root .switchboard/images/storage images` lists them")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
