"""A stand-in for External Secrets Operator and 1Password Connect: Secrets from a vault that is a file."""

import json
import os
import re
import time

from kube import ready

GROUP = "/apis/external-secrets.io/v1"


def rendered(template, values):
    return re.sub(r"\{\{\s*\.(\w+)\s*\}\}", lambda match: values[match.group(1)], template)


def reconcile(api):
    with open(os.environ["BLUMEOPS_STAND_IN_VAULT"], encoding="utf-8") as file:
        items = json.load(file)
    for secret in api.items(f"{GROUP}/externalsecrets"):
        meta, spec = secret["metadata"], secret["spec"]
        path = f"{GROUP}/namespaces/{meta['namespace']}/externalsecrets/{meta['name']}"
        name = spec.get("target", {}).get("name", meta["name"])
        at = f"/api/v1/namespaces/{meta['namespace']}/secrets/{name}"
        # What is there stays: the operator itself would look again after refreshInterval.
        if api.call("GET", at) is None:
            values = {
                entry["secretKey"]: items[entry["remoteRef"]["key"]][entry["remoteRef"].get("property", "password")]
                for entry in spec.get("data", [])
            }
            template = spec.get("target", {}).get("template", {})
            data = {key: rendered(text, values) for key, text in template.get("data", {}).items()} or values
            body = {
                "apiVersion": "v1", "kind": "Secret", "type": template.get("type", "Opaque"), "stringData": data,
                "metadata": {"name": name, **template.get("metadata", {})},
            }
            api.apply(at, body)
        if not secret.get("status", {}).get("conditions"):
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            api.status(path, {}, {"refreshTime": now, "conditions": [ready(now, "SecretSynced")]})
