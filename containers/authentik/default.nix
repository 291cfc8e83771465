# authentik: one image for the server and the worker; the manifest chooses by its args.
{ pkgs ? import <nixpkgs> { } }:

let
  # Lists every store path that authentik is made of, to find its Python part among them.
  closure = pkgs.closureInfo { rootPaths = [ pkgs.authentik ]; };
in
pkgs.dockerTools.buildLayeredImage {
  name = "blumeops/authentik";
  tag = "latest";

  contents = [
    pkgs.authentik
    pkgs.bash
    # `ak` calls mkdir, cat and rm, which its wrapper does not bring.
    pkgs.coreutils
    pkgs.cacert
    pkgs.tzdata
    # A passwd entry for the user, and nsswitch.conf so that /etc/hosts is read before DNS.
    pkgs.dockerTools.fakeNss
  ];

  # An image has no /tmp of its own.
  # The built-in blueprints are copied: their discovery does not descend into linked directories.
  extraCommands = ''
    mkdir -p tmp data media certs templates blueprints/custom
    chmod 1777 tmp
    for django in $(grep -e '-authentik-django-' ${closure}/store-paths || true); do
      cp -r --no-preserve=mode "$django"/blueprints/. blueprints/
    done
  '';

  # Uploads go here when no volume is mounted.
  fakeRootCommands = ''
    chown 65534:65534 data media
  '';

  config = {
    # authentik starts children and reaps none that it inherits, so process 1 is an init.
    Entrypoint = [ "${pkgs.dumb-init}/bin/dumb-init" "--" "${pkgs.authentik}/bin/ak" ];
    Cmd = [ "server" ];
    # A number, because runAsNonRoot cannot judge a name.
    User = "65534";
    ExposedPorts = {
      "8000/tcp" = { };
      "8443/tcp" = { };
      "9300/tcp" = { };
    };
    Env = [
      "PATH=/bin"
      "SSL_CERT_FILE=${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt"
      "TZDIR=${pkgs.tzdata}/share/zoneinfo"
      "AUTHENTIK_LISTEN__HTTP=0.0.0.0:8000"
      "AUTHENTIK_LISTEN__HTTPS=0.0.0.0:8443"
      "AUTHENTIK_LISTEN__METRICS=0.0.0.0:9300"
      # The package's own defaults for these directories lie in the store or do not exist.
      "AUTHENTIK_BLUEPRINTS_DIR=/blueprints"
      "AUTHENTIK_CERT_DISCOVERY_DIR=/certs"
      "AUTHENTIK_EMAIL__TEMPLATE_DIR=/templates"
      # Uploads: the first name up to 2025.10, the second from 2025.12.
      "AUTHENTIK_STORAGE__MEDIA__FILE__PATH=/media"
      "AUTHENTIK_STORAGE__FILE__PATH=/data"
      # It has no reason to call home.
      "AUTHENTIK_DISABLE_UPDATE_CHECK=true"
      "AUTHENTIK_DISABLE_STARTUP_ANALYTICS=true"
    ];
  };
}
