"""Rules of settings, files and secrets: all that is referred to is there, and the programs know it."""

import base64
import ipaddress
import os
import queue
import re
import subprocess
import tempfile
import threading
from pathlib import Path

from .model import ports, quantity

# What the log says once all settings and files have been read.
STARTED = "admin port open"
START_SECONDS = 20


def references(system):
    """Each ConfigMap, Secret and key that is named is built, or stands in the list of what the operator makes."""
    used = set()

    def check(where, kind, name, keys=(), optional=False):
        used.add((kind, name))
        have = system.keys(kind, name)
        if have is None:
            if not optional:
                yield f"{where}: {kind} {name} is not built, and not in operator-made.yaml"
            return
        for key in keys:
            if key not in have and not optional:
                yield f"{where}: {kind} {name} has no key {key}"

    for w in system.workloads:
        for source in w.container.get("envFrom", []):
            for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if ref := source.get(field):
                    yield from check(w.name, kind, ref["name"], (), ref.get("optional"))
        for entry in w.container.get("env", []):
            for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                if ref := entry.get("valueFrom", {}).get(field):
                    yield from check(w.name, kind, ref["name"], [ref["key"]], ref.get("optional"))
        for volume in w.pod.get("volumes", []):
            for source in [volume, *volume.get("projected", {}).get("sources", [])]:
                for field, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
                    if ref := source.get(field):
                        keys = [item["key"] for item in ref.get("items", [])]
                        name = ref.get("secretName") or ref.get("name")
                        yield from check(w.name, kind, name, keys, ref.get("optional"))
    for ingress in system.of("Ingress"):
        for tls in ingress["spec"].get("tls", []):
            yield from check(f"Ingress {ingress['metadata']['name']}", "Secret", tls["secretName"],
                             ["tls.crt", "tls.key"])
    for made in system.made:
        if (made["kind"], made["name"]) not in used:
            yield f"operator-made.yaml: {made['kind']} {made['name']} is used by nothing"
    for kind in ("ConfigMap", "Secret"):
        for item in system.of(kind):
            if (kind, item["metadata"]["name"]) not in used:
                yield f"{kind} {item['metadata']['name']} is used by nothing"
    if system.production:
        for item in system.of("Secret"):
            yield f"Secret {item['metadata']['name']} is contained, and not only referred to"


def volumes(system):
    """Mounts and volumes belong together, and files that change are seen to."""
    for w in system.workloads:
        claims = {claim["metadata"]["name"]: claim for claim in w.spec.get("volumeClaimTemplates", [])}
        there = {volume["name"] for volume in w.pod.get("volumes", [])} | set(claims)
        mounted = {mount["name"] for mount in w.container.get("volumeMounts", [])}
        for name in mounted - there:
            yield f"{w.name}: no volume {name} for its mount"
        for name in there - mounted:
            yield f"{w.name}: volume {name} is not mounted"
        for mount in w.container.get("volumeMounts", []):
            if "subPath" in mount or "subPathExpr" in mount:
                yield f"{w.name}: {mount['mountPath']} is a subPath: its files would never change"
            if (mount["name"] not in claims and "emptyDir" not in (w.volume(mount["name"]) or {})
                    and not mount.get("readOnly")):
                yield f"{w.name}: {mount['mountPath']} is not read-only"
        for name, claim in claims.items():
            if claim["spec"].get("accessModes") != ["ReadWriteOnce"]:
                yield f"{w.name}: volume {name} is not one pod's"
        retention = w.spec.get("persistentVolumeClaimRetentionPolicy")
        if claims and retention != {"whenDeleted": "Retain", "whenScaled": "Retain"}:
            yield f"{w.name}: its volumes are deleted with it: {retention}"


def variables(system):
    """Each variable and flag is one of the program's --help; each file that one names is in the pod."""
    for w in system.services:
        known = system.sources.variables(w.name)
        for name, value in system.env(w).items():
            if name not in known:
                yield f"{w.name}: its program knows no {name}"
            elif value and value.startswith("/") and not system.file(w, value):
                yield f"{w.name}: {name}={value} is in none of its volumes"
        for arg in w.container.get("args", []) + w.container.get("command", []):
            flag = arg.partition("=")[0]
            if flag.startswith("-") and flag not in system.sources.flags(w.name):
                yield f"{w.name}: its program knows no {flag}"


def addresses(system):
    """What programs listen on is what the pods' ports say, from everywhere."""
    for w in system.services:
        for variable, port in (("SWITCHBOARD_ADMIN_ADDR", "admin"), ("SWITCHBOARD_LISTEN", "clients")):
            if variable not in system.sources.variables(w.name):
                continue
            host, _, number = (system.env(w).get(variable) or "").rpartition(":")
            try:
                everywhere = ipaddress.ip_address(host.strip("[]")).is_unspecified
            except ValueError:
                everywhere = False
            if not everywhere or number != str(w.ports.get(port)):
                yield f"{w.name}: {variable} is {host}:{number}, and its port {port} is {w.ports.get(port)}"


def nats_configuration(system):
    """nats.conf, its files and folders, its ports and its storage fit the pod."""
    path, conf, asked = system.nats_conf()
    if not conf:
        yield f"nats: {path or 'its configuration'} is not in its pod"
        return
    named = re.findall(r"\b(?:include|\w+_file\b)\s*[:=]?\s*[\"']?([^\s\"'}]+)", conf)
    # `switchboard credentials` writes a users.conf that includes this.
    named += [os.path.join(os.path.dirname(name), "../permissions.conf") for name in named if "users.conf" in name]
    for name in named:
        full = os.path.normpath(os.path.join(os.path.dirname(path), name))
        if full not in written(conf) and not system.file(system.nats, full):
            yield f"nats: nats.conf names {name}, which is not in its pod"
    for folder in written(conf):
        mount = system.nats.mount_of(folder)
        if not mount or mount.get("readOnly"):
            yield f"nats: it cannot write {folder}"
    for port, number in ports(system.nats.container).items():
        if port == "cluster" and system.nats.replicas == 1:
            continue
        if not re.search(rf"(?<!\d){number}(?!\d)", conf):
            yield f"nats: nats.conf does not name port {number} ({port})"
    claim = system.nats.spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    stored = re.search(r"max_file(?:_store)?\s*[:=]?\s*[\"']?(\d+[kKMGT]?i?B?)", conf)
    if not stored:
        yield "nats: nats.conf does not limit what JetStream stores (max_file_store)"
    elif quantity(stored[1].replace("K", "k")) > 0.95 * quantity(claim):
        yield f"nats: JetStream may store {stored[1]}, and the volume has {claim}"
    if system.nats.replicas > 1:
        routes = set(re.findall(r"://([^\s,\]]+)", conf.partition("routes")[2]))
        port = system.nats.ports["cluster"]
        for server in routes ^ {f"nats-{n}.nats:{port}" for n in range(system.nats.replicas)}:
            yield f"nats: {server} is not both in the routes and among the pods"
        if not re.search(r"no_advertise\s*[:=]?\s*true", conf):
            yield "nats: servers tell clients addresses that their certificates do not have (no_advertise)"
    env = {name for name in system.env(system.nats) if name.startswith("NATS_")}
    for name in sorted(asked ^ env):
        yield f"nats: ${name} is not both in nats.conf and in the environment"


def written(conf):
    """What nats-server writes: the files and folders that nats.conf names for that."""
    return re.findall(r"(?:pid_file|store_dir)\s*[:=]?\s*[\"']?([^\s\"'}]+)", conf)


def accepted(system):
    """Each program starts with its pod's settings and files, up to where it would need NATS."""
    found = queue.Queue()
    threads = [threading.Thread(target=lambda w=w: found.put(start(system, w))) for w in system.services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while not found.empty():
        if error := found.get():
            yield error


def start(system, workload):
    """Starts a program as its pod would; what is wrong, or None."""
    with tempfile.TemporaryDirectory() as folder:
        env = {}
        for name, value in system.env(workload).items():
            if value is None:
                value = "secret"
            elif value.startswith("/") and (file := system.file(workload, value)):
                value = os.path.join(folder, str(len(env)))
                Path(value).write_text(system.text(file) or stand_in(file), encoding="utf-8")
            env[name] = value
        # Nothing is there, and no port of this machine is taken.
        env |= {"SWITCHBOARD_NATS_URL": "nats://127.0.0.1:1", "SWITCHBOARD_ADMIN_ADDR": "127.0.0.1:0"}
        if workload.name == "gateway":
            env["SWITCHBOARD_LISTEN"] = "127.0.0.1:0"
        command = [system.sources.binary(workload.name), *workload.container.get("args", [])]
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=env, **streams) as program:
            killer = threading.Timer(START_SECONDS, program.kill)
            killer.start()
            said = []
            for line in program.stderr:
                said.append(line)
                if STARTED in line:
                    program.kill()
                    break
            killer.cancel()
            code = program.wait()
    started = said and STARTED in said[-1]
    return None if started else f"{workload.name}: it does not start ({code}): {' '.join(' '.join(said[-8:]).split())}"


def stand_in(file):
    """Something of the right kind for what only the operator has."""
    if file[2] == "public-key.pem":
        # Ed25519: the prefix of its DER, and a point that everybody knows.
        point = bytes([0x58]) + bytes([0x66]) * 31
        der = base64.b64encode(bytes.fromhex("302a300506032b6570032100") + point).decode()
        return f"-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n"
    return "a secret that is long enough for everybody who wants one"


RULES = [references, volumes, variables, addresses, nats_configuration, accepted]
