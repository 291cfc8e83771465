"""What kube-proxy is to a node, for a machine that is none: each Service's address leads to a pod that is ready."""

import subprocess

# Ports of this machine from here on; those of Services are Caddy's as well.
FIRST = 20000

LABEL = "app.kubernetes.io/managed-by%3Dblumeops-rehearsal"


def wanted(api):
    """Address to (namespace, pod, its ports), of the Services in namespaces that a rehearsal made."""
    found = {}
    for namespace in api.items(f"/api/v1/namespaces?labelSelector={LABEL}"):
        name = namespace["metadata"]["name"]
        slices = api.items(f"/apis/discovery.k8s.io/v1/namespaces/{name}/endpointslices")
        for service in api.items(f"/api/v1/namespaces/{name}/services"):
            address = service["spec"].get("clusterIP", "None")
            ready = behind(service, slices)
            if address != "None" and ready:
                found[address] = (name, *ready)
    return found


def behind(service, slices):
    """The first pod that is ready behind a Service, and which of its ports each of the Service's leads to."""
    for part in slices:
        if part["metadata"]["labels"].get("kubernetes.io/service-name") != service["metadata"]["name"]:
            continue
        targets = {port.get("name", ""): port["port"] for port in part.get("ports") or []}
        ports = [
            (port["port"], targets[port.get("name", "")]) for port in service["spec"].get("ports", [])
            if port.get("protocol", "TCP") == "TCP" and port.get("name", "") in targets
        ]
        for endpoint in part.get("endpoints") or []:
            pod = endpoint.get("targetRef", {})
            if ports and pod.get("kind") == "Pod" and endpoint.get("conditions", {}).get("ready"):
                return pod["name"], tuple(ports)
    return None


class Forwards:
    """A kubectl port-forward to each pod, and as on a node a rule that leads the Service's address to it."""

    def __init__(self):
        self.running, self.locals = {}, {}

    def reconcile(self, api):
        now = wanted(api)
        for address, (target, process) in list(self.running.items()):
            if now.get(address) != target or process.poll() is not None:
                process.terminate()
                process.wait()
                del self.running[address]
        for address, target in now.items():
            if address not in self.running:
                self.running[address] = (target, self.start(address, target))

    def start(self, address, target):
        namespace, pod, ports = target
        pairs = [f"{self.local(address, port)}:{behind}" for port, behind in ports]
        line = ["kubectl", "--namespace", namespace, "port-forward", "--address", "127.0.0.1", f"pod/{pod}", *pairs]
        return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def local(self, address, port):
        """The rule stays: without a pod behind it, it leads to a port that refuses, as a Service without one does."""
        if (address, port) not in self.locals:
            self.locals[address, port] = FIRST + len(self.locals)
            line = ["iptables", "--table", "nat", "--append", "OUTPUT", "--destination", address, "--protocol", "tcp",
                    "--dport", str(port), "--jump", "REDIRECT", "--to-ports", str(self.locals[address, port])]
            subprocess.run(line, check=True, stdin=subprocess.DEVNULL)
        return self.locals[address, port]
