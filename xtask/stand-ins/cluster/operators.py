"""Runs the stand-ins for the operators, again and again: operators.py FOLDER TAILNET ADDRESS REVISION POSTGRES.

POSTGRES is the folder of this machine's PostgreSQL, or an image of it: then the node is another machine.
"""

import subprocess
import sys
import time

import argocd
import cnpg
import external_secrets
from forward import Forwards
from kube import Api
from tailscale import Tailscale


def main():
    folder, tailnet, address, revision, postgres = sys.argv[1:6]
    api, tailscale = Api(), Tailscale(folder, tailnet, address)
    steps = [
        external_secrets.reconcile, lambda api: cnpg.reconcile(api, postgres), tailscale.reconcile,
        lambda api: argocd.reconcile(api, revision),
    ]
    if not postgres.startswith("/"):
        steps.append(Forwards().reconcile)
    while True:
        for step in steps:
            try:
                step(api)
            except (OSError, KeyError, RuntimeError, subprocess.SubprocessError) as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        time.sleep(1)


main()
