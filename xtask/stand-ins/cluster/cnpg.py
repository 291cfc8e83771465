"""A stand-in for CloudNativePG: one pod with this machine's own PostgreSQL, the declared roles and databases in it."""

import base64
import pwd
import subprocess
import time

from kube import ready

GROUP = "/apis/postgresql.cnpg.io/v1"

# The program of the pod. TLS is on, as the operator always has it.
SERVE = r"""
set -eu
if [ ! -e "$PGDATA/PG_VERSION" ]; then
  initdb --username=postgres --auth-local=trust --auth-host=scram-sha-256 > /dev/null
  printf '[req]\ndistinguished_name=name\n[name]\n' > "$PGDATA/openssl.cnf"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=blumeops-pg \
    -config "$PGDATA/openssl.cnf" -keyout "$PGDATA/server.key" -out "$PGDATA/server.crt" 2> /dev/null
  echo 'host all all 0.0.0.0/0 scram-sha-256' >> "$PGDATA/pg_hba.conf"
fi
exec postgres -c ssl=on -c listen_addresses='*' -c unix_socket_directories=/tmp -c max_connections=@connections@
"""


def programs(postgres):
    """Where the pod has PostgreSQL from: the folder, the image, what is mounted from the host, and who runs it."""
    if not postgres.startswith("/"):
        return "/usr/lib/postgresql/current", postgres, {}, 26
    # No image of PostgreSQL can be had here; without the host's passwd nobody has a name.
    host = {"/usr": "/usr", "/lib": "/usr/lib", "/lib64": "/usr/lib64", "/bin": "/usr/bin", "/etc/passwd": "/etc/passwd"}
    return postgres, "blumeops.stand-in/host:1", host, pwd.getpwnam("postgres").pw_uid


def pod(cluster, postgres):
    """The machine's own programs, seen through host paths, or from an image that was made of them."""
    name = cluster["metadata"]["name"]
    folder, image, host, user = programs(postgres)
    names = {at: at.strip("/").replace("/", "-") for at in host}
    parameters = cluster["spec"].get("postgresql", {}).get("parameters", {})
    labels = {
        "cnpg.io/cluster": name, "cnpg.io/instanceName": f"{name}-1", "cnpg.io/instanceRole": "primary",
        "cnpg.io/podRole": "instance", "role": "primary",
    }
    container = {
        "name": "postgres", "image": image, "imagePullPolicy": "Never" if host else "IfNotPresent",
        "command": ["/bin/bash", "-c", SERVE.replace("@connections@", parameters.get("max_connections", "100"))],
        "env": [
            {"name": "PATH", "value": f"{folder}/bin:/usr/bin:/bin"}, {"name": "PGDATA", "value": "/pgdata/data"},
            {"name": "PGHOST", "value": "/tmp"}, {"name": "LC_ALL", "value": "C.UTF-8"},
        ],
        "ports": [{"name": "postgresql", "containerPort": 5432}],
        "readinessProbe": {"exec": {"command": [f"{folder}/bin/pg_isready", "-U", "postgres"]}, "periodSeconds": 1},
        "volumeMounts": [{"name": names[at], "mountPath": at, "readOnly": True} for at in host]
        + [{"name": "pgdata", "mountPath": "/pgdata"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    volumes = [{"name": names[at], "hostPath": {"path": path}} for at, path in host.items()]
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{name}-1", "labels": labels},
        "spec": {
            "containers": [container], "enableServiceLinks": False, "automountServiceAccountToken": False,
            "securityContext": {"runAsUser": user, "runAsGroup": user, "fsGroup": user},
            "volumes": volumes + [{"name": "pgdata", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
        },
    }


def sql(namespace, name, statements):
    """On standard input: a password is in no argument."""
    command = ["kubectl", "--namespace", namespace, "exec", "--stdin", f"{name}-1", "--", "psql", "--username=postgres",
               "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
    done = subprocess.run(command, input=statements, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"psql: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def role_statements(api, namespace, role):
    words = ["login" if role.get("login") else "nologin"]
    words += [word for word in ("superuser", "createdb", "createrole", "replication") if role.get(word)]
    secret = api.call("GET", f"/api/v1/namespaces/{namespace}/secrets/{role['passwordSecret']['name']}")
    if secret is None:
        return None
    words.append("password " + quoted(base64.b64decode(secret["data"]["password"]).decode()))
    lines = [f'create role "{role["name"]}" {" ".join(words)};']
    return lines + [f'grant "{group}" to "{role["name"]}";' for group in role.get("inRoles", [])]


def existing(namespace, name, what):
    column, table = what
    return set(sql(namespace, name, f"select {column} from {table};").split())


def reconcile_cluster(api, cluster, folder):
    meta, spec = cluster["metadata"], cluster["spec"]
    namespace, name = meta["namespace"], meta["name"]
    at = f"/api/v1/namespaces/{namespace}/pods/{name}-1"
    there = api.call("GET", at)
    if there is None:
        api.apply(at, pod(cluster, folder))
        return
    up = any(c["type"] == "Ready" and c["status"] == "True" for c in there["status"].get("conditions", []))
    status = cluster.get("status", {})
    # Once: what a rehearsal breaks stays broken, where the operator would mend it.
    if not up or status.get("managedRolesStatus"):
        return
    roles = existing(namespace, name, ("rolname", "pg_roles"))
    wanted = spec.get("managed", {}).get("roles", [])
    statements = [role_statements(api, namespace, role) for role in wanted if role["name"] not in roles]
    if None in statements:
        return
    bootstrap = spec.get("bootstrap", {}).get("initdb", {})
    if bootstrap and bootstrap["owner"] not in roles:
        statements.append([f'create role "{bootstrap["owner"]}" login;'])
    sql(namespace, name, "\n".join(line for lines in statements for line in lines))
    if bootstrap and bootstrap["database"] not in existing(namespace, name, ("datname", "pg_database")):
        sql(namespace, name, f'create database "{bootstrap["database"]}" owner "{bootstrap["owner"]}";')
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    api.status(f"{GROUP}/namespaces/{namespace}/clusters/{name}", {}, {
        "phase": "Cluster in healthy state", "instances": 1, "readyInstances": 1, "currentPrimary": f"{name}-1",
        "managedRolesStatus": {"byStatus": {"reconciled": [role["name"] for role in wanted]}},
        "conditions": [ready(now, "ClusterIsReady")],
    })


def reconcile_database(api, database, clusters):
    meta, spec = database["metadata"], database["spec"]
    cluster = clusters.get((meta["namespace"], spec["cluster"]["name"]), {})
    if database.get("status", {}).get("applied") or not cluster.get("status", {}).get("managedRolesStatus"):
        return
    name = cluster["metadata"]["name"]
    if spec["name"] not in existing(meta["namespace"], name, ("datname", "pg_database")):
        sql(meta["namespace"], name, f'create database "{spec["name"]}" owner "{spec["owner"]}";')
    api.status(f"{GROUP}/namespaces/{meta['namespace']}/databases/{meta['name']}", {}, {"applied": True})


def reconcile(api, folder):
    clusters = api.items(f"{GROUP}/clusters")
    for cluster in clusters:
        reconcile_cluster(api, cluster, folder)
    known = {(c["metadata"]["namespace"], c["metadata"]["name"]): c for c in clusters}
    for database in api.items(f"{GROUP}/databases"):
        reconcile_database(api, database, known)
