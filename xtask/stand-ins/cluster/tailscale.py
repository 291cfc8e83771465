"""A stand-in for the Tailscale operator: a Caddy that serves each Ingress's name, a forward for each Service's."""

import os
import subprocess
import time

# 443 of the tailnet's address is redirected to this port, since Caddy of indri has 443 itself.
PORT = 8443


def backend_port(api, namespace, backend):
    service = api.call("GET", f"/api/v1/namespaces/{namespace}/services/{backend['name']}") or {"spec": {"ports": []}}
    port = backend["port"]
    named = {p.get("name"): p["port"] for p in service["spec"]["ports"]}
    return port.get("number") or named.get(port.get("name"))


class Tailscale:
    def __init__(self, folder, tailnet, address):
        self.folder, self.tailnet, self.address = folder, tailnet, address
        # Caddy would ask a tailscaled for certificates of such names.
        self.pki = f"{os.path.dirname(folder)}/pki/tailnet"
        self.caddy, self.text, self.forwards, self.sites = None, "", {}, {}

    def reconcile(self, api):
        for ingress in api.items("/apis/networking.k8s.io/v1/ingresses"):
            if ingress["spec"].get("ingressClassName") == "tailscale":
                self.ingress(api, ingress)
        # Prometheus is a process of the rehearsal's: its image can't be had here.
        self.sites.setdefault("prometheus", "127.0.0.1:9090")
        self.serve()
        for service in api.items("/api/v1/services"):
            name = service["metadata"].get("annotations", {}).get("tailscale.com/hostname")
            if name and service["spec"].get("loadBalancerClass") == "tailscale":
                self.forward(name, service)

    def ingress(self, api, ingress):
        meta, backend = ingress["metadata"], ingress["spec"]["defaultBackend"]["service"]
        name = ingress["spec"]["tls"][0]["hosts"][0]
        port = backend_port(api, meta["namespace"], backend)
        if port is not None:
            # By name: what is asked for is looked up, and missed, when a request comes.
            self.sites[name] = f"{backend['name']}.{meta['namespace']}.svc.cluster.local:{port}"
        status = {"loadBalancer": {"ingress": [{"hostname": f"{name}.{self.tailnet}", "ports": [
            {"port": 443, "protocol": "TCP"}]}]}}
        path = f"/apis/networking.k8s.io/v1/namespaces/{meta['namespace']}/ingresses/{meta['name']}"
        api.status(path, ingress.get("status", {}), status)

    def serve(self):
        # As tailscaled does: the name in the TLS handshake decides, whatever the Host header says.
        sites = "".join(
            f"\t@{name} expression `{{http.request.tls.server_name}} == \"{name}.{self.tailnet}\"`\n"
            f"\thandle @{name} {{\n\t\treverse_proxy {backend}\n\t}}\n"
            for name, backend in sorted(self.sites.items())
        )
        text = (
            f"{{\n\tadmin off\n\tauto_https off\n}}\nhttps://:{PORT} {{\n\ttls {self.pki}.crt {self.pki}.key\n"
            f"{sites}\trespond 404\n}}\n"
        )
        if text == self.text and self.caddy and self.caddy.poll() is None:
            return
        if self.caddy:
            self.caddy.terminate()
            self.caddy.wait()
        path = f"{self.folder}/Caddyfile"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        with open(f"{self.folder}/caddy.log", "ab") as log:
            self.caddy = subprocess.Popen(
                ["caddy", "run", "--config", path], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "XDG_DATA_HOME": f"{self.folder}/data", "XDG_CONFIG_HOME": self.folder},
            )
        self.text = text
        time.sleep(0.2)

    def forward(self, name, service):
        meta = service["metadata"]
        for port in service["spec"]["ports"]:
            key = (name, port["port"])
            if key in self.forwards and self.forwards[key].poll() is None:
                continue
            target = f"{meta['name']}.{meta['namespace']}.svc.cluster.local:{port['port']}"
            self.forwards[key] = subprocess.Popen(
                ["socat", f"TCP-LISTEN:{port['port']},bind={self.address},fork,reuseaddr", f"TCP:{target}"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
