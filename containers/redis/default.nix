# Redis for authentik, in its own namespace and reachable from there only.
{ pkgs ? import <nixpkgs> { } }:

pkgs.dockerTools.buildLayeredImage {
  name = "blumeops/redis";
  tag = "latest";

  contents = [
    # Brings redis-cli too, for the readiness probe.
    pkgs.redis
    # Names the user, and lets the probe find the pod's name in /etc/hosts.
    pkgs.dockerTools.fakeNss
  ];

  extraCommands = ''
    mkdir data
  '';

  # Redis cannot write a directory of root's, and refuses every write once a save has failed.
  fakeRootCommands = ''
    chown 65534:65534 data
  '';

  config = {
    Entrypoint = [ "${pkgs.redis}/bin/redis-server" ];
    # Arguments and not part of the entrypoint, so that a manifest's args replace them.
    Cmd = [
      # One argument each, as the configuration file would have it on one line.
      "--bind" "* -::*"
      # Without a password, protected mode denies everyone but loopback: a network policy guards it.
      "--protected-mode" "no"
      "--dir" "/data"
      "--save" "60 1"
      "--appendonly" "yes"
      "--maxmemory" "96mb"
    ];
    User = "65534";
    WorkingDir = "/data";
    ExposedPorts = { "6379/tcp" = { }; };
    # For probes and for people: `redis-cli` is found by name.
    Env = [ "PATH=/bin" ];
  };
}
