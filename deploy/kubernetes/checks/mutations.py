"""What could go wrong, each done to what was built for production: the rules have to find it, with these words.

Every error that a rule can say has to be brought up by one of them; so what the rules say is known to work.
"""

import ast
import copy
import re
import sys

from . import build, rules, rules_config, rules_links, rules_pods

DROP = object()
# What only operators may see, without the secret.
FOR_OPERATORS_AND_ALL = '[[feed]]\nname = "o"\ninterval = "1s"\nnats = "sb.history.operator"'


def get(items, kind, name):
    """An object; of a ConfigMap the hash in its name does not count."""
    def plain(item):
        found = item["metadata"]["name"]
        return found.rpartition("-")[0] if kind == "ConfigMap" else found

    return next(item for item in items if item["kind"] == kind and plain(item) == name)


def put(kind, name, path, value):
    """A mutation: sets or, with DROP, removes what a dotted path leads to; makes what is missing on the way. In a path
    `@name` is the item of a list that has this name, and `~` a dot."""
    def mutate(items):
        at = get(items, kind, name)
        *way, last = [int(part) if part.isdigit() else part.replace("~", ".") for part in path.split(".")]
        for part in way:
            if isinstance(at, dict):
                at = at.setdefault(part, {})
            else:
                at = at[part] if isinstance(part, int) else next(i for i in at if i["name"] == part.removeprefix("@"))
        if value is DROP:
            del at[last]
        elif isinstance(at, list) and last == len(at):
            at.append(value)
        else:
            at[last] = value
    return mutate


def workload(name, path, value):
    """The same for a workload."""
    return put("StatefulSet" if name == "nats" else "Deployment", name, path, value)


def pod(name, path, value):
    """The same for a workload's pods."""
    return workload(name, f"spec.template.spec.{path}", value)


def container(name, path, value):
    """The same for a workload's container."""
    return pod(name, f"containers.@{name}.{path}", value)


def setting(name, variable, value):
    """The same for a ConfigMap of settings."""
    return put("ConfigMap", name, f"data.{variable}", value)


def variable(name, field, value):
    """Changes a variable of NATS's environment."""
    return container("nats", f"env.@{name}.{field}", value)


def conf(old, new):
    """Replaces a regular expression in nats.conf, which has to be there."""
    def mutate(items):
        data = get(items, "ConfigMap", "nats-config")["data"]
        data["nats.conf"], count = re.subn(old, new, data["nats.conf"])
        if not count:
            raise KeyError(f"nats.conf has no {old}")
    return mutate


def contained(items):
    """Adds a Secret."""
    items.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "twin", "namespace": "switchboard"}})


def drop(kind, name):
    """Removes an object."""
    return lambda items: items.remove(get(items, kind, name))


def twin(kind, name, **changes):
    """Adds a copy of an object, under another name."""
    def mutate(items):
        item = copy.deepcopy(get(items, kind, name))
        item["metadata"].update({"name": "twin", **changes})
        items.append(item)
    return mutate


def policy(name, path, value):
    """The same as `put` for a NetworkPolicy."""
    return put("NetworkPolicy", name, f"spec.{path}", value)


def scaler(path, value):
    """The same as `put` for the autoscaler."""
    return put("HorizontalPodAutoscaler", "gateway", f"spec.{path}", value)


def door(path, value):
    """The same as `put` for the Ingress."""
    return put("Ingress", "gateway", path, value)


APP = "app~kubernetes~io/name"
NGINX = "metadata.annotations.nginx~ingress~kubernetes~io"
ANYWHERE = {"ports": [{"port": "client"}]}

TABLE = [
    # Each pod by itself.
    ("its containers are ['gateway', 'shell']", pod("gateway", "containers.1", {"name": "shell", "image": "a:1"})),
    ("its containers are ['exporter', 'nats', 'shell']", pod("nats", "initContainers", [{"name": "shell"}])),
    ("the workloads are", drop("Deployment", "matcher")),
    ("`restricted` is not enforced", put("Namespace", "switchboard", "metadata.labels", {})),
    ("2 namespaces", twin("Namespace", "switchboard")),
    ("automountServiceAccountToken", pod("nats", "automountServiceAccountToken", DROP)),
    ("enableServiceLinks", pod("nats", "enableServiceLinks", DROP)),
    ("does not run as 65532", pod("history", "securityContext.runAsUser", 0)),
    ("does not run as 65532", pod("history", "securityContext.runAsNonRoot", DROP)),
    ("fsGroup is not", pod("matcher", "securityContext.fsGroup", DROP)),
    ("seccompProfile", pod("matcher", "securityContext.seccompProfile.type", "Unconfined")),
    ("gateway: hostNetwork", pod("gateway", "hostNetwork", True)),
    ("is a hostPath", pod("gateway", "volumes.3", {"name": "host", "hostPath": {"path": "/"}})),
    ("allowPrivilegeEscalation", container("nats", "securityContext.allowPrivilegeEscalation", True)),
    ("readOnlyRootFilesystem", container("gateway", "securityContext.readOnlyRootFilesystem", DROP)),
    ("capabilities", container("gateway", "securityContext.capabilities.add", ["NET_ADMIN"])),
    ("overrides what the pod has", container("gateway", "securityContext.runAsUser", 0)),
    ("hostPort 4000", container("gateway", "ports.0.hostPort", 4000)),
    ("container exporter: resources without", pod("nats", "containers.@exporter.resources", DROP)),
    ("resources without limits.memory", container("history", "resources.limits.memory", DROP)),
    ("requests more cpu", container("matcher", "resources.requests.cpu", "8")),
    ("GOMEMLIMIT", container("nats", "resources.limits.memory", "1Gi")),
    ("more than half its limit of memory", setting("history", "SWITCHBOARD_MEMORY_BYTES", "600000000")),
    ("asks port clients, which it does not have", container("matcher", "livenessProbe.httpGet.port", "clients")),
    ("no startup probe", container("gateway", "startupProbe", DROP)),
    ("asks /healthz, which is not served", container("gateway", "readinessProbe.httpGet.path", "/healthz")),
    ("does not ask the admin port", container("gateway", "livenessProbe.httpGet.port", "clients")),
    ("/health/ready, which depends on others", container("gateway", "livenessProbe.httpGet.path", "/health/ready")),
    ("/healthz, which depends on others", container("nats", "livenessProbe.httpGet.path", "/healthz")),
    ("which depends on NATS", container("history", "startupProbe.httpGet.path", "/health/ready")),
    ("its readiness probe asks /health/live", container("history", "readinessProbe.httpGet.path", "/health/live")),
    ("its startup probe gives up after 3 s", container("gateway", "startupProbe.failureThreshold", 3)),
    ("and not lame duck", container("nats", "lifecycle", DROP)),
    ("and not lame duck", variable("NATS_PID_FILE", "value", "/var/run/nats/other.pid")),
    ("preStop sleeps 0 s", container("gateway", "lifecycle", DROP)),
    ("the image has nothing to run", container("matcher", "lifecycle.preStop.exec.command", ["sleep", "1"])),
    ("gateway: terminationGracePeriodSeconds 60", setting("gateway", "SWITCHBOARD_DRAIN_MS", "60000")),
    ("gateway: terminationGracePeriodSeconds 60", container("gateway", "lifecycle.preStop.sleep.seconds", 30)),
    ("matcher: terminationGracePeriodSeconds 5", pod("matcher", "terminationGracePeriodSeconds", 5)),
    ("nats: terminationGracePeriodSeconds 30", pod("nats", "terminationGracePeriodSeconds", 30)),
    ("may take a pod before", workload("gateway", "spec.strategy.rollingUpdate.maxUnavailable", 1)),
    ("may take a pod before", workload("history", "spec.strategy", {"type": "Recreate"})),
    ("one by one", workload("nats", "spec.updateStrategy.type", "OnDelete")),
    ("it is spread over", pod("matcher", "topologySpreadConstraints", [])),
    ("one node may take all", pod("history", "topologySpreadConstraints.0.whenUnsatisfiable", "ScheduleAnyway")),
    ("one node may take most", pod("nats", "topologySpreadConstraints.0.minDomains", DROP)),
    ("has no tag that stays", container("gateway", "image", "switchboard-gateway:latest")),
    ("has no tag that stays", container("nats", "image", "nats")),
    ("has no tag that stays", pod("nats", "containers.@exporter.image", "natsio/prometheus-nats-exporter")),
    ("is not of version", container("gateway", "image", "switchboard-gateway:0.0.1")),
    ("is another program", container("history", "image", "switchboard-matcher:0.1.0")),
    # Between objects.
    ("it is in no namespace", put("Service", "gateway", "metadata.namespace", "default")),
    ("its selector selects the pods of []", workload("matcher", f"spec.template.metadata.labels.{APP}", "matchers")),
    ("its spread over", pod("gateway", "topologySpreadConstraints.0.labelSelector", {"matchLabels": {"a": "b"}})),
    ("Service gateway: it selects the pods of []", put("Service", "gateway", f"spec.selector.{APP}", "gateways")),
    ("its targetPort web", put("Service", "gateway", "spec.ports.0.targetPort", "web")),
    ("its targetPort client ", container("nats", "ports.0.name", "clients")),
    ("Service gateway: sticky", put("Service", "gateway", "spec.sessionAffinity", "ClientIP")),
    ("PodMonitors select ['nats']", put("PodMonitor", "switchboard", "spec.selector",
                                               {"matchLabels": {"a": "b"}})),
    ("admin/stats is not served", put("PodMonitor", "switchboard", "spec.podMetricsEndpoints.0.path", "/stats")),
    ("http/metrics is not served", put("PodMonitor", "switchboard", "spec.podMetricsEndpoints.0.port", "http")),
    ("Prometheus does not reach nats at metrics", drop("NetworkPolicy", "prometheus-to-nats")),
    ("Prometheus does not reach history at admin",
     policy("prometheus-to-services", "podSelector.matchExpressions.0.values", ["gateway", "matcher"])),
    ("is no headless Service", put("Service", "nats", "spec.clusterIP", DROP)),
    ("is no headless Service", workload("nats", "spec.serviceName", "nats-headless")),
    ("before they are ready", put("Service", "nats", "spec.publishNotReadyAddresses", DROP)),
    ("podManagementPolicy", workload("nats", "spec.podManagementPolicy", DROP)),
    ("1 servers, and not three", workload("nats", "spec.replicas", 1)),
    ("SWITCHBOARD_NATS_URL names", setting("switchboard", "SWITCHBOARD_NATS_URL", "nats://nats-0.nats:4222")),
    ("SWITCHBOARD_NATS_URL names", container("nats", "ports.0.containerPort", 4223)),
    ("SWITCHBOARD_NATS_REPLICAS is 1", setting("switchboard", "SWITCHBOARD_NATS_REPLICAS", DROP)),
    ("SWITCHBOARD_NATS_CREDS is not set", setting("switchboard", "SWITCHBOARD_NATS_CREDS", DROP)),
    ("its credentials of NATS are nats-matcher", pod("gateway", "volumes.0.secret.secretName", "nats-matcher")),
    ("tokens are not verified", setting("gateway", "SWITCHBOARD_AUTH", "open")),
    ("it selects the pods of ['matcher']", put("PodDisruptionBudget", "gateway",
                                              f"spec.selector.matchLabels.{APP}", "matcher")),
    ("not one at a time", put("PodDisruptionBudget", "nats", "spec.maxUnavailable", 0)),
    ("nats: it has no PodDisruptionBudget", drop("PodDisruptionBudget", "nats")),
    ("matcher: 1 pod", workload("matcher", "spec.replicas", 1)),
    ("gateway: 1 pod", scaler("minReplicas", 1)),
    ("there is not one HorizontalPodAutoscaler", drop("HorizontalPodAutoscaler", "gateway")),
    ("there is no Deployment gateways", scaler("scaleTargetRef.name", "gateways")),
    ("would set back", workload("gateway", "spec.replicas", 2)),
    ("2 to 2 pods", scaler("maxReplicas", 2)),
    ("does not count connections and CPU", scaler("metrics.0", DROP)),
    ("have no gauge switchboard_gateway_sockets", scaler("metrics.0.pods.metric.name", "switchboard_gateway_sockets")),
    ("8000 of 9000 leaves no room", setting("gateway", "SWITCHBOARD_MAX_CONNECTIONS", "9000")),
    ("it scales down fast", scaler("behavior.scaleDown.stabilizationWindowSeconds", 60)),
    ("it scales down fast", scaler("behavior.scaleDown.policies.0.value", 5)),
    ("not everything is denied", drop("NetworkPolicy", "default-deny")),
    ("not everything is denied", policy("default-deny", "policyTypes", ["Ingress"])),
    ("nats: it selects no pod", policy("nats", f"podSelector.matchLabels.{APP}", "nats-server")),
    ("ingress is not among its policyTypes", policy("nats", "policyTypes", ["Egress"])),
    ("ingress from anywhere", policy("nats", "ingress.2", ANYWHERE)),
    ("ingress at any port", policy("nats", "ingress.0.ports", DROP)),
    ("egress to pods that there are not", policy("services-to-nats", "egress.0.to.0.podSelector.matchLabels",
                                                 {"app.kubernetes.io/name": "nat"})),
    ("from any pod", policy("nats", "ingress.0.from.0.podSelector", {})),
    ("nats has no port clients", policy("services-to-nats", "egress.0.ports.0.port", "clients")),
    ("gateway has no port web", policy("clients-to-gateway", "ingress.0.ports.0.port", "web")),
    ("there are no pods with app.kubernetes.io/name: hystory",
     policy("services-to-nats", "podSelector.matchExpressions.0.values", ["gateway", "matcher", "hystory"])),
    ("there are no pods with app.kubernetes.io/name: hystory",
     policy("nats", "ingress.0.from.0.podSelector.matchExpressions.0.values", ["gateway", "matcher", "hystory"])),
    ("matcher does not reach nats", policy("nats", "ingress.0.from.0.podSelector.matchExpressions.0.values",
                                           ["gateway", "history"])),
    ("gateway cannot look up names", drop("NetworkPolicy", "dns")),
    ("nats does not reach nats at cluster", policy("nats", "egress", DROP)),
    ("matcher need not reach nats at cluster", policy("nats", "ingress.0.ports.1", {"port": "cluster"})),
    ("2 Ingresses", twin("Ingress", "gateway")),
    ("has no TLS", door("spec.tls.0.hosts.0", "other.example.org")),
    ("no Service gateways with port", door("spec.rules.0.http.paths.0.backend.service.name", "gateways")),
    ("no Service gateway with port", door("spec.rules.0.http.paths.0.backend.service.port.name", "http")),
    ("/sockets is no path of a gateway", door("spec.rules.0.http.paths.0.path", "/sockets")),
    ("proxy-read-timeout is not well above", door(f"{NGINX}/proxy-read-timeout", DROP)),
    ("Ingress gateway: sticky", door(f"{NGINX}/affinity", "cookie")),
    ("clients reach []", drop("NetworkPolicy", "clients-to-gateway")),
    ("PrometheusRule switchboard: not the groups", put("PrometheusRule", "switchboard", "spec.groups",
                                                       [{"name": "a"}])),
    # Settings, files, secrets.
    ("matcher: ConfigMap settings is not built", container("matcher", "envFrom.0.configMapRef.name", "settings")),
    ("gateway: Secret gateway-token is not built", container("gateway", "env.0.valueFrom.secretKeyRef.name",
                                                             "gateway-token")),
    ("Secret gateway-api has no key token", container("gateway", "env.0.valueFrom.secretKeyRef.key", "token")),
    ("Secret nats-server-tls has no key tls.pem", pod("nats", "volumes.0.projected.sources.2.secret.items.0.key",
                                                      "tls.pem")),
    ("Secret gateway-cert is not built", door("spec.tls.0.secretName", "gateway-cert")),
    ("Secret gateway-jwt is used by nothing", pod("gateway", "volumes.2.secret.secretName", "gateway-api")),
    ("Secret twin is used by nothing", contained),
    ("Secret twin is contained", contained),
    ("no volume other for its mount", container("gateway", "volumeMounts.0.name", "other")),
    ("volume nats is not mounted", container("gateway", "volumeMounts.0.name", "jwt")),
    ("is a subPath", container("gateway", "volumeMounts.0.subPath", "nkey")),
    ("is not read-only", container("gateway", "volumeMounts.0.readOnly", DROP)),
    ("is not one pod's", workload("nats", "spec.volumeClaimTemplates.0.spec.accessModes", ["ReadWriteMany"])),
    ("its volumes are deleted with it", workload("nats", "spec.persistentVolumeClaimRetentionPolicy", DROP)),
    ("knows no SWITCHBOARD_GRACE_MS", setting("gateway", "SWITCHBOARD_GRACE_MS", "1")),
    ("is in none of its volumes", setting("history", "SWITCHBOARD_FEEDS", "/etc/feeds.toml")),
    ("is in none of its volumes", container("gateway", "volumeMounts.0.mountPath", "/etc/nats")),
    ("knows no --nats-servers", container("matcher", "args", ["--nats-servers=a"])),
    ("SWITCHBOARD_LISTEN is 0.0.0.0:4001", setting("gateway", "SWITCHBOARD_LISTEN", "0.0.0.0:4001")),
    ("SWITCHBOARD_ADMIN_ADDR is 127.0.0.1:4500", setting("switchboard", "SWITCHBOARD_ADMIN_ADDR", "127.0.0.1:4500")),
    ("SWITCHBOARD_ADMIN_ADDR is localhost:4500", setting("switchboard", "SWITCHBOARD_ADMIN_ADDR", "localhost:4500")),
    ("is not in its pod", container("nats", "args", ["--config", "/etc/nats.conf"])),
    ("which is not in its pod", pod("nats", "volumes.0.projected.sources.1.configMap.items.0.path", "users.conf")),
    ("permissions.conf, which is not in its pod", put("ConfigMap", "nats-config", "data.permissions~conf", DROP)),
    ("other.conf, which is not in its pod", conf(r"users\.conf", "other.conf")),
    ("which is not in its pod", pod("nats", "volumes.0.projected.sources.2.secret.items.1.path", "tls.key")),
    ("it cannot write", variable("NATS_PID_FILE", "value", "/run/nats.pid")),
    ("it cannot write", container("nats", "volumeMounts.1.mountPath", "/storage")),
    ("does not name port 8222", variable("NATS_MONITOR_LISTEN", "value", "0.0.0.0:8223")),
    ("does not limit what JetStream stores", conf(r"max_file\w*.*", "")),
    ("JetStream may store", workload("nats", "spec.volumeClaimTemplates.0.spec.resources.requests.storage", "5Gi")),
    ("nats-2.nats:6222 is not both", conf(r"routes.*", "")),
    ("nats-3.nats:6222 is not both", workload("nats", "spec.replicas", 4)),
    ("servers tell clients addresses", conf(r"no_advertise.*", "")),
    ("$NATS_NAME is not both", variable("NATS_NAME", "name", "NAME")),
    ("$NATS_STORE_MAX is not both", conf(r"\$NATS_STORE_MAX", "8GB")),
    # What only the programs know.
    ("gateway: it does not start (2", setting("gateway", "SWITCHBOARD_MAX_CONNECTIONS", "many")),
    ("gateway: it does not start (2", setting("gateway", "SWITCHBOARD_DRAIN_MS", "600001")),
    ("matcher: it does not start (2", setting("switchboard", "SWITCHBOARD_LOG_FORMAT", "xml")),
    ("gateway: it does not start (2", setting("gateway", "SWITCHBOARD_JWT_PUBLIC_KEY_FILE", DROP)),
    ("history: it does not start (2", put("ConfigMap", "feeds", "data.feeds~toml", "[[feed]]\nname = 1")),
    ("history: it does not start (2", put("ConfigMap", "feeds", "data.feeds~toml", FOR_OPERATORS_AND_ALL)),
    # What only Kubernetes knows.
    ("Additional properties are not allowed", pod("gateway", "terminationGracePeriod", 1)),
    ("is not of type 'integer'", pod("gateway", "terminationGracePeriodSeconds", "60s")),
]


def missed(system):
    """What is wrong with the mutations: those that nobody found, and errors that none of them brings."""
    lines, seen = {}, set()
    for module in (rules_pods, rules_links, rules_config):
        with open(module.__file__, encoding="utf-8") as file:
            nodes = ast.walk(ast.parse(file.read()))
        lines |= {(module.__file__, node.lineno): module.__name__ for node in nodes if isinstance(node, ast.Yield)}

    def trace(frame, event, _):
        here = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and here in lines:
            seen.add(here)
        return trace if frame.f_code.co_filename in {file for file, _ in lines} else None

    for expected, mutate in TABLE:
        items = copy.deepcopy(system.items)
        try:
            mutate(items)
        except (KeyError, IndexError, StopIteration) as error:
            yield f"{expected!r}: cannot be done any more: {error!r}"
            continue
        broken = rules.System(items, system.sources, system.made, system.production, system.rules or [])
        sys.settrace(trace)
        found = find(broken, items, expected)
        sys.settrace(None)
        if not any(expected in error for error in found):
            yield f"{expected!r}: not found; instead: {found}"
    for (file, line), module in lines.items():
        if (file, line) not in seen:
            yield f"{module}, line {line}: no mutation brings this error"


def find(broken, items, expected):
    """What is found. Programs are started only for what they alone know."""
    programs = "does not start" in expected
    names = {rule.__name__ for rule in rules.ALL if (rule.__name__ == "accepted") == programs}
    return [*rules.broken(broken, names), *(() if programs else build.invalid(items, build.KUBERNETES[0]))]
