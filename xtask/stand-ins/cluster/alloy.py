"""A stand-in for Grafana Alloy: its scrapes and remote write as the configuration of a Prometheus agent, on stdout."""

import json
import re
import sys


def blocks(text, kind):
    """The bodies of `kind "name" { … }`, braces matched."""
    for start in re.finditer(re.escape(kind) + r'\s+"\w+"\s*\{', text):
        depth, at = 1, start.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        yield text[start.end():at - 1]


def pairs(text):
    return dict(re.findall(r'"?(\w+)"?\s*=\s*"([^"]*)"', text))


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        text = re.sub(r"^\s*//.*$", "", file.read(), flags=re.M)
    scrapes = []
    for body in blocks(text, "prometheus.scrape"):
        targets = [pairs(target) for target in re.findall(r'\{("__address__"[^}]*)\}', body)]
        configs = [{"targets": [target.pop("__address__")], "labels": target} for target in targets]
        # Every five seconds: a rehearsal need not wait for the half minute of production.
        scrapes.append({"job_name": pairs(body)["job_name"], "scrape_interval": "5s", "static_configs": configs})
    write = next(blocks(text, "prometheus.remote_write"))
    labels = re.search(r"external_labels\s*=\s*\{([^}]*)\}", write)
    print(json.dumps({
        "global": {"external_labels": pairs(labels.group(1)) if labels else {}},
        "scrape_configs": scrapes,
        "remote_write": [{"url": pairs(write)["url"]}],
    }))


main()
