"""The Kubernetes API, as far as the stand-ins need it: JSON over HTTP, with the token of a kubeconfig."""

import base64
import json
import ssl
import subprocess
import urllib.error
import urllib.request


class Api:
    def __init__(self):
        view = subprocess.run(
            ["kubectl", "config", "view", "--raw", "--minify", "--flatten", "--output=json"],
            check=True, capture_output=True, stdin=subprocess.DEVNULL,
        )
        config = json.loads(view.stdout)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        # Somebody's cluster is behind a door that knows who asks.
        authority = cluster.get("certificate-authority-data")
        self.server, self.token = cluster["server"], user.get("token")
        self.context = ssl.create_default_context(cadata=base64.b64decode(authority).decode()) if authority else None

    def call(self, method, path, body=None, kind="application/json"):
        """The answer's body; None where there is no such object."""
        request = urllib.request.Request(self.server + path, method=method)
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        data = None
        if body is not None:
            request.add_header("Content-Type", kind)
            data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, context=self.context, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode()[:300]}") from error

    def items(self, path):
        return (self.call("GET", path) or {}).get("items", [])

    def apply(self, path, body):
        """Server-side apply: makes it, or changes what differs."""
        return self.call("PATCH", f"{path}?fieldManager=stand-in&force=true", body, "application/apply-patch+yaml")

    def status(self, path, current, status):
        """Replaces what differs in an object's status."""
        if any(current.get(key) != value for key, value in status.items()):
            self.call("PATCH", f"{path}/status", {"status": status}, "application/merge-patch+json")


def ready(now, reason="StandIn"):
    return {"type": "Ready", "status": "True", "reason": reason, "lastTransitionTime": now}
