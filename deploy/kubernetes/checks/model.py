"""What was built, with what the rules ask of it."""

import re

NATS = "nats"


def labels_match(selector, labels):
    """Whether a label selector selects these labels. An empty one selects all."""
    selector = selector or {}
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for need in selector.get("matchExpressions", []):
        has = labels.get(need["key"])
        values = need.get("values", [])
        if not {"In": has in values, "NotIn": has not in values, "Exists": has is not None,
                "DoesNotExist": has is None}[need["operator"]]:
            return False
    return True


def quantity(text):
    """A Kubernetes quantity as a number."""
    number, unit = re.fullmatch(r"([\d.]+)(m|[kMGT]i?B?|)", str(text)).groups()
    unit = unit.removesuffix("B")
    scale = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
             "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    return float(number) * scale[unit]


def ports(*containers):
    """The ports of containers, by name."""
    return {port["name"]: port["containerPort"] for c in containers for port in c.get("ports", [])}


class Workload:
    """A Deployment or StatefulSet. Its container is the one with its name; another one may stand beside it."""

    def __init__(self, item):
        self.item, self.name, self.spec = item, item["metadata"]["name"], item["spec"]
        self.pod = self.spec["template"]["spec"]
        self.labels = self.spec["template"]["metadata"]["labels"]
        self.containers = self.pod["containers"]
        self.container = next((c for c in self.containers if c["name"] == self.name), self.containers[0])
        self.ports = ports(*self.containers)

    @property
    def replicas(self):
        return self.spec.get("replicas", 1)

    def mount_of(self, path):
        """The mount that a path lies in: the longest one."""
        mounts = [m for m in self.container.get("volumeMounts", []) if (path + "/").startswith(m["mountPath"] + "/")]
        return max(mounts, key=lambda mount: len(mount["mountPath"]), default=None)

    def volume(self, name):
        return next((volume for volume in self.pod.get("volumes", []) if volume["name"] == name), None)


class System:
    """One build: an overlay, with or without components."""

    def __init__(self, items, sources, made=(), production=False, rules=None):
        self.items, self.sources, self.made, self.production, self.rules = items, sources, made, production, rules
        self.workloads = [Workload(item) for item in items if item["kind"] in ("Deployment", "StatefulSet")]
        self.services = [w for w in self.workloads if w.name in sources.helps]
        self.nats = next((w for w in self.workloads if w.name == NATS), None)

    def of(self, kind):
        """All objects of a kind."""
        return [item for item in self.items if item["kind"] == kind]

    def get(self, kind, name):
        """One object, or None."""
        return next((item for item in self.of(kind) if item["metadata"]["name"] == name), None)

    def selected(self, selector):
        """The workloads whose pods a label selector selects."""
        return [w for w in self.workloads if labels_match(selector, w.labels)]

    def keys(self, kind, name):
        """The keys of a ConfigMap or Secret that is built or that the operator makes; None if there is none."""
        if item := self.get(kind, name):
            return set(item.get("data", {})) | set(item.get("stringData", {}))
        made = next((made for made in self.made if (made["kind"], made["name"]) == (kind, name)), None)
        return set(made.get("keys", [])) if made else None

    def env(self, workload):
        """A container's environment. What comes from a Secret is None, for nobody knows it here."""
        env = {}
        for source in workload.container.get("envFrom", []):
            if "configMapRef" in source:
                env.update((self.get("ConfigMap", source["configMapRef"]["name"]) or {}).get("data", {}))
        for entry in workload.container.get("env", []):
            ref = entry.get("valueFrom", {}).get("configMapKeyRef")
            if ref:
                env[entry["name"]] = (self.get("ConfigMap", ref["name"]) or {}).get("data", {}).get(ref["key"])
            else:
                env[entry["name"]] = entry.get("value")
        return env

    def files(self, workload, volume):
        """The files of a volume, by path: (kind, name, key)."""
        def listed(kind, name, source):
            keys = {item["key"]: item["path"] for item in source.get("items", [])}
            keys = keys or {key: key for key in self.keys(kind, name) or ()}
            return {path: (kind, name, key) for key, path in keys.items()}

        found = workload.volume(volume) or {}
        files = {}
        for source in [found, *found.get("projected", {}).get("sources", [])]:
            if config := source.get("configMap"):
                files.update(listed("ConfigMap", config["name"], config))
            if secret := source.get("secret"):
                files.update(listed("Secret", secret.get("secretName") or secret.get("name"), secret))
        return files

    def file(self, workload, path):
        """What a file is in the pod: (kind, name, key), or None."""
        mount = workload.mount_of(path)
        if not mount:
            return None
        inside = path.removeprefix(mount["mountPath"]).lstrip("/")
        return self.files(workload, mount["name"]).get(inside)

    def text(self, file):
        """A file's text, if it is in the build."""
        kind, name, key = file
        return (self.get(kind, name) or {}).get("data", {}).get(key) if kind == "ConfigMap" else None

    def nats_conf(self):
        """Where nats-server finds its configuration; its text without comments, each $NAME as the pod's environment
        has it; and the names that it asks for. The text is None if there is none."""
        args = self.nats.container.get("args", [])
        path = args[args.index("--config") + 1] if "--config" in args else ""
        file = self.file(self.nats, path)
        text = self.text(file) if file else None
        if text is None:
            return path, None, set()
        text = re.sub(r"(?m)(^|\s)(#|//).*$", "", text)
        env = {name: value or f"{NATS}-0" for name, value in self.env(self.nats).items()}
        env = {name: re.sub(r"\$\((\w+)\)", lambda found: env.get(found[1], found[0]), value)
               for name, value in env.items()}
        named = re.compile(r"\$([A-Z][A-Z_]+)")
        return path, named.sub(lambda found: env.get(found[1], found[0]), text), set(named.findall(text))
