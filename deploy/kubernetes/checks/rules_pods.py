"""Rules of each pod by itself: security, probes, resources, images, how it ends and is replaced."""

import re
from pathlib import PurePosixPath

from .model import quantity

UID = 65532
# What the profile `restricted` allows, less what nothing here needs.
VOLUMES = {"configMap", "secret", "projected", "emptyDir", "persistentVolumeClaim"}
# NATS's paths of health, and which of them only ask the server itself.
NATS_PATHS = {"/healthz", "/healthz?js-enabled-only=true", "/healthz?js-server-only=true"}
NATS_ALONE = {"/healthz?js-enabled-only=true"}
# nats-server's own default, in seconds.
LAME_DUCK = 120
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def restricted(system):
    """The pod security profile `restricted`, and a little more."""
    namespaces = system.of("Namespace")
    for namespace in namespaces:
        if namespace["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"Namespace {namespace['metadata']['name']}: pod security `restricted` is not enforced"
    if len(namespaces) != 1:
        yield f"{len(namespaces)} namespaces, and not one"
    for w in system.workloads:
        pod, security = w.pod, w.pod.get("securityContext", {})
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{w.name}: automountServiceAccountToken is not false"
        if pod.get("enableServiceLinks") is not False:
            yield f"{w.name}: enableServiceLinks is not false: variables such as NATS_PORT would come from Services"
        if security.get("runAsNonRoot") is not True or security.get("runAsUser") != UID:
            yield f"{w.name}: it does not run as {UID}, not root"
        if security.get("fsGroup") != UID:
            yield f"{w.name}: fsGroup is not {UID}: it could not read its secrets"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{w.name}: seccompProfile is not RuntimeDefault"
        for forbidden in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
            if pod.get(forbidden):
                yield f"{w.name}: {forbidden}"
        for volume in pod.get("volumes", []):
            for kind in set(volume) - {"name"} - VOLUMES:
                yield f"{w.name}: volume {volume['name']} is a {kind}"
        for container in pod["containers"] + pod.get("initContainers", []):
            own = container.get("securityContext", {})
            where = f"{w.name}: container {container['name']}"
            if own.get("allowPrivilegeEscalation") is not False:
                yield f"{where}: allowPrivilegeEscalation is not false"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{where}: readOnlyRootFilesystem is not true"
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{where}: capabilities are not dropped"
            for key in set(own) - {"allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"}:
                yield f"{where}: securityContext.{key} overrides what the pod has"
            for port in container.get("ports", []):
                if "hostPort" in port:
                    yield f"{where}: hostPort {port['hostPort']}"


def resources(system):
    """Each container says what it needs and may have, and what it keeps in memory fits."""
    for w in system.workloads:
        for container in w.containers:
            where, given = f"{w.name}: container {container['name']}", container.get("resources", {})
            missing = [f"{of}.{what}" for of in ("requests", "limits") for what in ("cpu", "memory")
                       if what not in given.get(of, {})]
            if missing:
                yield f"{where}: resources without {', '.join(missing)}"
                continue
            for what in ("cpu", "memory"):
                if quantity(given["requests"][what]) > quantity(given["limits"][what]):
                    yield f"{where}: requests more {what} than its limit"
        env = system.env(w)
        limit = quantity(w.container.get("resources", {}).get("limits", {}).get("memory", "0"))
        if (soft := env.get("GOMEMLIMIT")) and not 0.5 * limit <= quantity(soft) <= 0.9 * limit:
            yield f"{w.name}: GOMEMLIMIT {soft} is not between 50 and 90 % of its limit of memory"
        if (logs := env.get("SWITCHBOARD_MEMORY_BYTES")) and 2 * quantity(logs) > limit:
            yield f"{w.name}: SWITCHBOARD_MEMORY_BYTES {logs} is more than half its limit of memory"


def probes(system):
    """Three probes, on what is served; a restart never depends on NATS, or on other servers of it."""
    start = system.sources.limits["START_TIMEOUT"]
    for w in system.workloads:
        found = {}
        for probe in ("startup", "liveness", "readiness"):
            if (spec := w.container.get(f"{probe}Probe")) and "httpGet" in spec:
                found[probe] = spec
                if (port := spec["httpGet"]["port"]) not in w.ports:
                    yield f"{w.name}: its {probe} probe asks port {port}, which it does not have"
            else:
                yield f"{w.name}: no {probe} probe by HTTP"
        paths = {probe: spec["httpGet"]["path"] for probe, spec in found.items()}
        own = w in system.services
        served = system.sources.admin_paths if own else NATS_PATHS
        for probe, path in paths.items():
            if path not in served:
                yield f"{w.name}: its {probe} probe asks {path}, which is not served"
            if own and found[probe]["httpGet"]["port"] != "admin":
                yield f"{w.name}: its {probe} probe does not ask the admin port"
        if paths.get("liveness") not in ({"/health/live"} if own else NATS_ALONE):
            yield f"{w.name}: its liveness probe asks {paths.get('liveness')}, which depends on others"
        if own and paths.get("startup") != "/health/live":
            yield f"{w.name}: its startup probe asks {paths.get('startup')}, which depends on NATS"
        if own and paths.get("readiness") != "/health/ready":
            yield f"{w.name}: its readiness probe asks {paths.get('readiness')}"
        if spec := found.get("startup"):
            time = spec.get("periodSeconds", 10) * spec.get("failureThreshold", 3)
            if own and time < 1.5 * start:
                yield f"{w.name}: its startup probe gives up after {time} s; starting may take {start:g} s"


def grace(system):
    """What happens at the end fits into terminationGracePeriodSeconds."""
    limits = system.sources.limits
    for w in system.workloads:
        stop = w.container.get("lifecycle", {}).get("preStop", {})
        sleep = stop.get("sleep", {}).get("seconds", 0)
        given = w.pod.get("terminationGracePeriodSeconds", 30)
        if w is system.nats:
            _, conf, _ = system.nats_conf()
            found = re.search(r"lame_duck_duration\s*[:=]?\s*[\"']?(\d+)(ms|s|m|h)", conf or "")
            need = int(found[1]) * UNITS[found[2]] if found else LAME_DUCK
            command = stop.get("exec", {}).get("command", [])
            pid_file = re.search(r"pid_file\s*[:=]?\s*[\"']?([^\"'\s]+)", conf or "")
            if command != ["/nats-server", "--signal", f"ldm={pid_file and pid_file[1]}"]:
                yield f"{w.name}: preStop is {command}, and not lame duck with the pid_file of nats.conf"
        else:
            need = sleep + limits["SHUTDOWN_TIMEOUT"]
            if w.name == "gateway":
                drain = system.env(w).get("SWITCHBOARD_DRAIN_MS")
                drain = drain or system.sources.default("gateway", "SWITCHBOARD_DRAIN_MS")
                need += limits["DRAIN_DELAY"] + int(drain) / 1000
                if sleep < 5:
                    yield f"{w.name}: preStop sleeps {sleep} s: proxies would still send new clients"
            if set(stop) - {"sleep"}:
                yield f"{w.name}: preStop is {set(stop)}: the image has nothing to run"
        if given < need + 2:
            yield f"{w.name}: terminationGracePeriodSeconds {given}, and its end may take {need:g} s and some air"


def rolling(system):
    """Nothing goes before its successor is ready; servers of NATS go one by one."""
    for w in system.workloads:
        if w.item["kind"] == "Deployment":
            rolling = w.spec.get("strategy", {}).get("rollingUpdate", {})
            if rolling.get("maxUnavailable") not in (0, "0%") or not rolling.get("maxSurge"):
                yield f"{w.name}: a rolling update may take a pod before another is ready"
        elif w.spec.get("updateStrategy", {}).get("type") != "RollingUpdate" or not w.spec.get("minReadySeconds"):
            yield f"{w.name}: its pods are not replaced one by one, with a pause"
        keys = {spread["topologyKey"] for spread in w.pod.get("topologySpreadConstraints", [])}
        if keys != {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}:
            yield f"{w.name}: it is spread over {sorted(keys)}, and not over nodes and zones"
        apart = [spread for spread in w.pod.get("topologySpreadConstraints", [])
                 if (spread["whenUnsatisfiable"], spread["topologyKey"]) == ("DoNotSchedule", "kubernetes.io/hostname")]
        if w.name != "gateway" and not apart:
            yield f"{w.name}: one node may take all of it"
        if w is system.nats and any(spread.get("minDomains", 1) < w.replicas for spread in apart):
            yield f"{w.name}: one node may take most of it (minDomains)"


def images(system):
    """What runs has a version: all of ours the same, that of the workspace."""
    for w in system.workloads:
        for container in w.containers:
            image, _, tag = container["image"].rpartition(":")
            if not image or tag == "latest" or "/" in tag:
                yield f"{w.name}: image {container['image']} has no tag that stays"
        image, _, tag = w.container["image"].rpartition(":")
        if w in system.services and tag != system.sources.version:
            yield f"{w.name}: image {w.container['image']} is not of version {system.sources.version}"
        if PurePosixPath(image or tag).name != (f"switchboard-{w.name}" if w in system.services else w.name):
            yield f"{w.name}: image {w.container['image']} is another program"


def containers(system):
    """The checks look at one container of each pod, and at NATS's exporter: another one would pass unseen."""
    for w in system.workloads:
        names = {container["name"] for container in w.containers + w.pod.get("initContainers", [])}
        if names - ({"exporter"} if w is system.nats else set()) != {w.name}:
            yield f"{w.name}: its containers are {sorted(names)}"
    if {w.name for w in system.workloads} != {*system.sources.helps, "nats"}:
        yield f"the workloads are {sorted(w.name for w in system.workloads)}"


RULES = [containers, restricted, resources, probes, grace, rolling, images]
