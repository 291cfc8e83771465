# Dex: the OIDC provider in service today.
{ pkgs ? import <nixpkgs> { } }:

pkgs.dockerTools.buildLayeredImage {
  name = "blumeops/dex";
  tag = "latest";

  contents = [
    pkgs.dex-oidc
    pkgs.cacert
    pkgs.tzdata
  ];

  config = {
    Entrypoint = [ "${pkgs.dex-oidc}/bin/dex" ];
    Cmd = [ "serve" "/etc/dex/cfg/config.yaml" ];
    # A number, because runAsNonRoot cannot judge a name.
    User = "65534";
    ExposedPorts = { "5556/tcp" = { }; };
    Env = [
      "SSL_CERT_FILE=${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt"
      "TZDIR=${pkgs.tzdata}/share/zoneinfo"
    ];
  };
}
