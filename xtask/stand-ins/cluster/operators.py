"""Runs the stand-ins for the operators, again and again: operators.py FOLDER TAILNET ADDRESS REVISION POSTGRES."""

import sys
import time

import argocd
import cnpg
import external_secrets
from kube import Api
from tailscale import Tailscale


def main():
    folder, tailnet, address, revision, postgres = sys.argv[1:6]
    api, tailscale = Api(), Tailscale(folder, tailnet, address)
    steps = [
        external_secrets.reconcile, lambda api: cnpg.reconcile(api, postgres), tailscale.reconcile,
        lambda api: argocd.reconcile(api, revision),
    ]
    while True:
        for step in steps:
            try:
                step(api)
            except (OSError, KeyError, RuntimeError) as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        time.sleep(1)


main()
