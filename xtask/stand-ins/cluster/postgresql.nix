# An image of this machine's own PostgreSQL, for nodes that are another machine. It finds its files where Debian has them.
{ pkgs ? import <nixpkgs> { } }:

let
  folder = /usr/lib/postgresql;
  versions = builtins.attrNames (builtins.readDir folder);
  version = builtins.elemAt versions (builtins.length versions - 1);
in
pkgs.dockerTools.buildLayeredImage {
  name = "stand-ins/postgresql";
  tag = "1";
  contents = [ pkgs.bash pkgs.openssl pkgs.coreutils ];
  # The programs as they are, with the libraries and the loader where those look for them.
  extraCommands = ''
    own=usr/lib/postgresql/${version}
    mkdir -p $own/bin $own/lib usr/share/postgresql/${version} usr/share/zoneinfo usr/lib/locale etc tmp
    cp -L /$own/bin/{postgres,initdb,psql,pg_isready} $own/bin
    cp -L /$own/lib/{plpgsql,dict_snowball,libpqwalreceiver}.so $own/lib
    cp -rL /usr/share/postgresql/${version}/. usr/share/postgresql/${version}
    cp -L /usr/share/zoneinfo/{UTC,GMT} usr/share/zoneinfo
    cp -rL /usr/lib/locale/C.utf8 usr/lib/locale
    ln -s ${version} usr/lib/postgresql/current
    for library in $(ldd $own/bin/* $own/lib/*.so | grep -o '/[^ ]*' | grep -v ':$' | sort -u); do
      mkdir -p ".$(dirname "$library")"
      cp -L --no-clobber "$library" ".$library"
    done
    echo 'postgres:x:26:26:postgres:/tmp:/bin/bash' > etc/passwd
    echo 'postgres:x:26:' > etc/group
  '';
}
