"""Rules between objects: who selects whom, who reaches whom, and how many there are."""

import re

from .model import labels_match

# Who has to reach whom, at which port.
NEEDED = [("gateway", "nats", "client"), ("matcher", "nats", "client"), ("history", "nats", "client")]


def selectors(system):
    """Each selector selects what it is meant for, and nothing else."""
    for item in system.items:
        if item["kind"] != "Namespace" and item["metadata"].get("namespace") != "switchboard":
            yield f"{item['kind']} {item['metadata']['name']}: it is in no namespace"
    for w in system.workloads:
        found = [other.name for other in system.selected(w.spec["selector"])]
        if found != [w.name]:
            yield f"{w.name}: its selector selects the pods of {found}"
        for spread in w.pod.get("topologySpreadConstraints", []):
            if [other.name for other in system.selected(spread.get("labelSelector"))] != [w.name]:
                yield f"{w.name}: its spread over {spread['topologyKey']} counts other pods"
    for service in system.of("Service"):
        name, spec = service["metadata"]["name"], service["spec"]
        found = system.selected({"matchLabels": spec.get("selector") or {"": ""}})
        if [w.name for w in found] != [name]:
            yield f"Service {name}: it selects the pods of {[w.name for w in found]}"
        for w in found:
            for port in spec["ports"]:
                if port.get("targetPort") not in w.ports:
                    yield f"Service {name}: its targetPort {port.get('targetPort')} is none of {w.name}"
        if spec.get("sessionAffinity", "None") != "None":
            yield f"Service {name}: sticky sessions"


def monitors(system):
    """Prometheus asks each pod, where it answers; its alerts are those that deploy/monitoring has, where they are
    tested."""
    seen = []
    for monitor in system.of("PodMonitor"):
        name, found = monitor["metadata"]["name"], system.selected(monitor["spec"]["selector"])
        seen += [w.name for w in found]
        for end in monitor["spec"]["podMetricsEndpoints"]:
            if any(end["port"] not in w.ports for w in found) or end["path"] not in system.sources.admin_paths:
                yield f"PodMonitor {name}: {end['port']}{end['path']} is not served by all"
            for w in found:
                if not any(passes(rule, "from", {"kubernetes.io/metadata.name": "monitoring"},
                                  {"app.kubernetes.io/name": "prometheus"}, (end["port"],))
                           for policy in system.of("NetworkPolicy")
                           if labels_match(policy["spec"]["podSelector"], w.labels)
                           for rule in policy["spec"].get("ingress", [])):
                    yield f"PodMonitor {name}: Prometheus does not reach {w.name} at {end['port']}"
    if system.of("PodMonitor") and sorted(seen) != sorted(w.name for w in system.workloads):
        yield f"PodMonitors select {sorted(seen)}, and not each pod once"
    for item in system.of("PrometheusRule"):
        if system.rules is not None and item["spec"].get("groups") != system.rules:
            yield (f"PrometheusRule {item['metadata']['name']}: not the groups of deploy/monitoring/rules.yml; "
                   "deploy/kubernetes/check.py --write-rules writes them")


def nats_servers(system):
    """Services know each server of NATS by its name, and make as many replicas as there are servers."""
    nats = system.nats
    service = system.get("Service", nats.spec["serviceName"])
    if not service or service["spec"].get("clusterIP") != "None":
        yield f"nats: its serviceName {nats.spec['serviceName']} is no headless Service"
    elif not service["spec"].get("publishNotReadyAddresses"):
        yield "Service nats: servers could not find each other before they are ready"
    if nats.replicas > 1 and nats.spec.get("podManagementPolicy") != "Parallel":
        yield "nats: the first server waits for a second one, which is not begun (podManagementPolicy)"
    if system.production and nats.replicas < 3:
        yield f"nats: {nats.replicas} servers, and not three"
    names = {f"nats-{n}.{nats.spec['serviceName']}:{nats.ports['client']}" for n in range(nats.replicas)}
    for w in system.services:
        env = system.env(w)
        urls = set(re.sub(r"\w+://", "", env["SWITCHBOARD_NATS_URL"]).split(","))
        if urls != names:
            yield f"{w.name}: SWITCHBOARD_NATS_URL names {sorted(urls)}, and there are {sorted(names)}"
        replicas = int(env.get("SWITCHBOARD_NATS_REPLICAS") or
                       system.sources.default(w.name, "SWITCHBOARD_NATS_REPLICAS"))
        if replicas != min(nats.replicas, 5):
            yield f"{w.name}: SWITCHBOARD_NATS_REPLICAS is {replicas}, and there are {nats.replicas} servers"
        if system.production:
            for variable in ("SWITCHBOARD_NATS_CREDS", "SWITCHBOARD_NATS_CA"):
                if not env.get(variable):
                    yield f"{w.name}: {variable} is not set"
            if file := system.file(w, env.get("SWITCHBOARD_NATS_CREDS") or ""):
                if file[1] != f"nats-{w.name}":
                    yield f"{w.name}: its credentials of NATS are {file[1]}"
            if env.get("SWITCHBOARD_AUTH") == "open":
                yield f"{w.name}: tokens are not verified"


def budgets(system):
    """Each workload of production has a budget that lets nodes be emptied, and a second pod meanwhile."""
    if not system.production:
        return
    least = {w.name: w.replicas for w in system.workloads}
    for scaler in system.of("HorizontalPodAutoscaler"):
        least[scaler["spec"]["scaleTargetRef"]["name"]] = scaler["spec"].get("minReplicas", 1)
    found = set()
    for budget in system.of("PodDisruptionBudget"):
        name, spec = budget["metadata"]["name"], budget["spec"]
        selected = [w.name for w in system.selected(spec.get("selector"))]
        if selected != [name]:
            yield f"PodDisruptionBudget {name}: it selects the pods of {selected}"
            continue
        found.add(name)
        if spec.get("maxUnavailable") != 1 or "minAvailable" in spec:
            yield f"PodDisruptionBudget {name}: not one at a time"
    for w in system.workloads:
        if w.name not in found:
            yield f"{w.name}: it has no PodDisruptionBudget"
        if least[w.name] < 2:
            yield f"{w.name}: {least[w.name]} pod, and none while a node is emptied"


def autoscaler(system):
    """Gateways are counted by what they hold, up at once and down slowly."""
    scalers = system.of("HorizontalPodAutoscaler")
    if system.production and [s["spec"]["scaleTargetRef"]["name"] for s in scalers] != ["gateway"]:
        yield "there is not one HorizontalPodAutoscaler, for gateway"
    for scaler in scalers:
        name, spec = scaler["metadata"]["name"], scaler["spec"]
        target = spec["scaleTargetRef"]
        w = next((w for w in system.workloads if w.name == target["name"]), None)
        if not w or (w.item["kind"], w.item["apiVersion"]) != (target["kind"], target["apiVersion"]):
            yield f"HorizontalPodAutoscaler {name}: there is no {target['kind']} {target['name']}"
            continue
        if "replicas" in w.spec:
            yield f"{w.name}: `replicas` would set back what the autoscaler counts"
        if not 2 <= spec.get("minReplicas", 1) < spec["maxReplicas"]:
            yield f"HorizontalPodAutoscaler {name}: {spec.get('minReplicas', 1)} to {spec['maxReplicas']} pods"
        pods = [m["pods"] for m in spec["metrics"] if m["type"] == "Pods"]
        cpu = [m["resource"] for m in spec["metrics"] if m["type"] == "Resource" and m["resource"]["name"] == "cpu"]
        if len(pods) != 1 or len(cpu) != 1:
            yield f"HorizontalPodAutoscaler {name}: it does not count connections and CPU"
        most = system.env(w).get("SWITCHBOARD_MAX_CONNECTIONS")
        most = int(most or system.sources.default("gateway", "SWITCHBOARD_MAX_CONNECTIONS"))
        for metric in pods:
            if metric["metric"]["name"] not in system.sources.gauges:
                yield f"HorizontalPodAutoscaler {name}: gateways have no gauge {metric['metric']['name']}"
            if int(metric["target"]["averageValue"]) > most * 0.75:
                yield f"HorizontalPodAutoscaler {name}: {metric['target']['averageValue']} of {most} leaves no room"
        down = spec.get("behavior", {}).get("scaleDown", {})
        slow = [p for p in down.get("policies", []) if p["type"] == "Pods" and p["value"] <= 1]
        if down.get("stabilizationWindowSeconds", 300) < 900 or not slow or down.get("selectPolicy") != "Min":
            yield f"HorizontalPodAutoscaler {name}: it scales down fast"


def network(system):
    """Nothing passes but what is named; what is named is there, and needed."""
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in system.of("NetworkPolicy")}
    closed = policies.get("default-deny", {})
    if (closed.get("podSelector") != {} or set(closed.get("policyTypes", [])) != {"Ingress", "Egress"}
            or closed.get("ingress") or closed.get("egress")):
        yield "NetworkPolicy default-deny: not everything is denied both ways"
    for name, spec in policies.items():
        chosen = system.selected(spec["podSelector"])
        if not chosen:
            yield f"NetworkPolicy {name}: it selects no pod"
        yield from expressions(system, name, spec["podSelector"])
        for direction, end in (("ingress", "from"), ("egress", "to")):
            if spec.get(direction) and direction.title() not in spec.get("policyTypes", []):
                yield f"NetworkPolicy {name}: {direction} is not among its policyTypes"
            for rule in spec.get(direction, []):
                if not rule.get(end):
                    yield f"NetworkPolicy {name}: {direction} {end} anywhere"
                    continue
                if not rule.get("ports"):
                    yield f"NetworkPolicy {name}: {direction} at any port"
                peers = [w for peer in rule[end] if "podSelector" in peer and "namespaceSelector" not in peer
                         for w in system.selected(peer["podSelector"])]
                for peer in rule[end]:
                    if set(peer) == {"podSelector"}:
                        yield from expressions(system, name, peer["podSelector"])
                        if not system.selected(peer["podSelector"]):
                            yield f"NetworkPolicy {name}: {direction} {end} pods that there are not"
                    if peer.get("namespaceSelector") == {} or peer.get("podSelector") == {}:
                        yield f"NetworkPolicy {name}: {direction} {end} any pod"
                for port in rule.get("ports", []):
                    for w in chosen if direction == "ingress" else peers:
                        if isinstance(port["port"], str) and port["port"] not in w.ports:
                            yield f"NetworkPolicy {name}: {w.name} has no port {port['port']}"
    yield from reached(system, policies)


def expressions(system, name, selector):
    """Each value that a selector names is a pod's: a wrong one would not be missed beside others that are right."""
    for need in selector.get("matchExpressions", []):
        for value in need.get("values", []):
            if all(w.labels.get(need["key"]) != value for w in system.workloads):
                yield f"NetworkPolicy {name}: there are no pods with {need['key']}: {value}"


def reached(system, policies):
    """Exactly those reach each other that have to."""
    needed = set(NEEDED) | ({("nats", "nats", "cluster")})
    for source in system.workloads:
        if not any(passes(rule, "to", {"kubernetes.io/metadata.name": "kube-system"}, {"k8s-app": "kube-dns"}, (53,))
                   for spec in policies.values() if labels_match(spec["podSelector"], source.labels)
                   for rule in spec.get("egress", [])):
            yield f"NetworkPolicy: {source.name} cannot look up names"
        for target in system.workloads:
            for port, number in target.ports.items():
                ways = [any(passes(rule, end, None, other.labels, (port, number))
                            for spec in policies.values() if labels_match(spec["podSelector"], one.labels)
                            for rule in spec.get(direction, []))
                        for direction, end, one, other in (("egress", "to", source, target),
                                                           ("ingress", "from", target, source))]
                if (source.name, target.name, port) in needed:
                    if not all(ways):
                        yield f"NetworkPolicy: {source.name} does not reach {target.name} at {port}"
                elif any(ways):
                    yield f"NetworkPolicy: {source.name} need not reach {target.name} at {port}"


def passes(rule, end, namespace, labels, ports):
    """Whether a rule lets through what goes to, or comes from, such a pod; `namespace` None: of our own."""
    def peers(peer):
        if "ipBlock" in peer:
            return False
        if "namespaceSelector" in peer:
            if namespace is None or not labels_match(peer["namespaceSelector"], namespace):
                return False
        elif namespace is not None:
            return False
        return labels_match(peer.get("podSelector"), labels)

    return (any(port.get("port") in ports for port in rule.get("ports", [{"port": ports[0]}]))
            and any(peers(peer) for peer in rule.get(end, [])))


def ingress(system):
    """Clients come by TLS to the gateways' sockets, and may be silent for as long as a gateway allows."""
    found = system.of("Ingress")
    if system.production and len(found) != 1:
        yield f"{len(found)} Ingresses, and not one"
    for item in found:
        name, spec = item["metadata"]["name"], item["spec"]
        hosts = {host for tls in spec.get("tls", []) for host in tls.get("hosts", [])}
        for rule in spec["rules"]:
            if rule.get("host") not in hosts:
                yield f"Ingress {name}: {rule.get('host')} has no TLS"
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                service = system.get("Service", backend["name"])
                ports = service["spec"]["ports"] if service else []
                if not any(port.get("name") == backend["port"].get("name", "") or
                           port["port"] == backend["port"].get("number") for port in ports):
                    yield f"Ingress {name}: there is no Service {backend['name']} with port {backend['port']}"
                if path["path"] not in system.sources.client_paths | {"/api"} or path["pathType"] != "Prefix":
                    yield f"Ingress {name}: {path['path']} is no path of a gateway"
        idle = system.sources.limits["IDLE_TIMEOUT"]
        for what in ("read", "send"):
            key = f"nginx.ingress.kubernetes.io/proxy-{what}-timeout"
            if not int(item["metadata"].get("annotations", {}).get(key, "60")) > 2 * idle:
                yield f"Ingress {name}: {key} is not well above the {idle:g} s of a gateway"
        if any("affinity" in key or "session-cookie" in key for key in item["metadata"].get("annotations", {})):
            yield f"Ingress {name}: sticky sessions"
        behind = [w for policy in system.of("NetworkPolicy")
                  for rule in policy["spec"].get("ingress", []) if any("namespaceSelector" in p for p in rule["from"])
                  and {"port": "clients"} in rule["ports"] for w in system.selected(policy["spec"]["podSelector"])]
        if [w.name for w in behind] != ["gateway"]:
            yield f"NetworkPolicy: from another namespace clients reach {[w.name for w in behind]}"


RULES = [selectors, monitors, nats_servers, budgets, autoscaler, network, ingress]
