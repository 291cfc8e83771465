"""A stand-in for ArgoCD: says of each Application whether what its namespace runs is healthy. It syncs nothing."""

GROUP = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications"


def health(api, namespace):
    deployments = api.items(f"/apis/apps/v1/namespaces/{namespace}/deployments")
    clusters = api.items(f"/apis/postgresql.cnpg.io/v1/namespaces/{namespace}/clusters")
    if not deployments and not clusters:
        return "Missing"
    for cluster in clusters:
        if not cluster.get("status", {}).get("readyInstances"):
            return "Progressing"
    for deployment in deployments:
        spec, status = deployment["spec"], deployment.get("status", {})
        stuck = any(c["type"] == "Progressing" and c["status"] == "False" for c in status.get("conditions", []))
        if stuck:
            return "Degraded"
        seen = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        if not seen or status.get("availableReplicas", 0) < spec.get("replicas", 1):
            return "Progressing"
    return "Healthy"


def reconcile(api, revision):
    for app in api.items(GROUP):
        state = health(api, app["spec"]["destination"]["namespace"])
        sync = "OutOfSync" if state == "Missing" else "Synced"
        status = {"sync": {"status": sync, "revision": revision}, "health": {"status": state}}
        api.status(f"{GROUP}/{app['metadata']['name']}", app.get("status", {}), status)
