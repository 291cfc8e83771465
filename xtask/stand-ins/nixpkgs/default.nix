# A stand-in for nixpkgs: only what containers/*/default.nix ask for, made from this machine's own programs.
{ system ? builtins.currentSystem }:

let
  run = name: attributes: script: derivation ({
    inherit name system;
    builder = "/bin/bash";
    # With a last word of its own bash stays: a program in its place may close its output a moment before it ends, and
    # Nix kills a builder that has nothing more to say.
    args = [ "-euo" "pipefail" "-c" "${script}\nexit 0" ];
    PATH = "/usr/bin:/bin:/usr/sbin";
  } // attributes);

  # A host file that must be there; the message names the Debian package that brings it.
  host = package: path:
    if builtins.pathExists path then path
    else throw "the stand-in nixpkgs needs ${toString path}: install Debian's ${package} (cargo xtask setup --for rehearse)";

  # The host's programs with their libraries. Their hashes make a changed program a new path.
  programs = name: package: paths:
    let files = map (host package) paths; in
    run name {
      files = map toString files;
      hashes = map (builtins.hashFile "sha256") files;
      patchelf = toString (host "patchelf" /usr/bin/patchelf);
    } (builtins.readFile ./import.sh);

  inBin = map (name: /usr/bin + "/${name}");

  newest = folder: let versions = builtins.attrNames (builtins.readDir folder); in
    folder + "/${builtins.elemAt versions (builtins.length versions - 1)}";

  psql =
    if builtins.pathExists /usr/lib/postgresql then newest /usr/lib/postgresql + "/bin/psql"
    else /usr/lib/postgresql/psql;

  bash = programs "bash-stand-in" "bash" [ /bin/bash ];
  socat = programs "socat-stand-in" "socat" [ /usr/bin/socat ];
  postgresql = programs "postgresql-client-stand-in" "postgresql-client" [ psql ];
  openssl = programs "openssl-stand-in" "openssl" [ /usr/bin/openssl ];

  certificates = host "ca-certificates" /etc/ssl/certs/ca-certificates.crt;
  zones = host "tzdata" /usr/share/zoneinfo/tzdata.zi;

  # Every store path that `roots` need, one to a line.
  closureInfo = { rootPaths }: run "closure-info" { exportReferencesGraph = graphs rootPaths; } ''
    mkdir "$out"
    cat graph-* | grep '^/nix/store/[^/]*$' | grep -v '\.drv$' | sort -u > "$out/store-paths"
  '';
  graphs = paths: builtins.concatLists
    (builtins.genList (n: [ "graph-${toString n}" (builtins.elemAt paths n) ]) (builtins.length paths));
in
rec {
  lib.version = "stand-in";

  inherit bash closureInfo openssl;
  coreutils = programs "coreutils-stand-in" "coreutils" (inBin [
    "basename" "cat" "chmod" "cp" "cut" "date" "dirname" "env" "head" "id" "ln" "ls" "mkdir" "mktemp" "mv" "od"
    "rm" "sha256sum" "sleep" "sort" "stat" "tail" "timeout" "touch" "tr" "uname" "wc"
  ]);
  dumb-init = programs "dumb-init-stand-in" "dumb-init" [ /usr/bin/dumb-init ];
  redis = programs "redis-stand-in" "redis-server" (inBin [ "redis-server" "redis-cli" ]);

  cacert = run "cacert-stand-in" {
    bundle = builtins.toFile "ca-bundle.crt" (builtins.readFile certificates);
  } ''mkdir -p "$out/etc/ssl/certs"; cp "$bundle" "$out/etc/ssl/certs/ca-bundle.crt"'';

  tzdata = run "tzdata-stand-in" { hash = builtins.hashFile "sha256" zones; } ''
    mkdir -p "$out/share/zoneinfo"
    cd /usr/share/zoneinfo
    cp -rL --no-preserve=mode Africa America Asia Etc Europe UTC tzdata.zi zone.tab "$out/share/zoneinfo"
  '';

  # Not authentik: a program that starts, waits for the same services and answers at the same addresses.
  authentik = run "authentik-stand-in" {
    script = ./ak;
    inherit bash socat postgresql openssl;
  } ''
    mkdir -p "$out/bin"
    sed -e "s|@bash@|$bash|; s|@tools@|$socat/bin:$postgresql/bin:$openssl/bin|" "$script" > "$out/bin/ak"
    chmod 0555 "$out/bin/ak"
  '';

  dex-oidc = run "dex-stand-in" { } ''
    echo "the stand-in nixpkgs has no dex: it holds only what a rehearsal runs" >&2
    exit 1
  '';

  dockerTools = {
    fakeNss = run "fake-nss" { } ''
      mkdir -p "$out/etc" "$out/var/empty"
      printf '%s\n' 'root:x:0:0:root:/var/empty:/bin/sh' 'nobody:x:65534:65534:nobody:/var/empty:/bin/sh' > "$out/etc/passwd"
      printf '%s\n' 'root:x:0:' 'nobody:x:65534:' > "$out/etc/group"
      echo 'hosts: files dns' > "$out/etc/nsswitch.conf"
    '';

    # As nixpkgs has it: the archive is the stream, compressed, and the stream stays at hand.
    buildLayeredImage = { name, ... }@args:
      let stream = dockerTools.streamLayeredImage args; in
      run "${baseNameOf name}.tar.gz" { inherit stream; } ''"$stream" | gzip --no-name -1 > "$out"''
      // { inherit stream; inherit (stream) imageTag; };

    # An executable that writes the archive; `conf` is what it is made of.
    streamLayeredImage =
      { name, tag ? "latest", contents ? [ ], config ? { }, extraCommands ? "", fakeRootCommands ? ""
      , created ? "1970-01-01T00:00:01Z", mtime ? "1970-01-01T00:00:01Z", uid ? 0, gid ? 0, uname ? "root", gname ? "root"
      , maxLayers ? 100 }:
      let
        baseName = baseNameOf name;
        python = toString (host "python3" /usr/bin/python3);

        # As a file of its own, whose references are the paths that the configuration names.
        baseJson = run "${baseName}-base.json" {
          base = builtins.toJSON {
            inherit config;
            architecture = { x86_64-linux = "amd64"; aarch64-linux = "arm64"; }.${system};
            os = "linux";
          };
        } ''printf %s "$base" > "$out"'';

        customisationLayer = run "${baseName}-customisation-layer" {
          inherit contents extraCommands fakeRootCommands python;
          writer = ./image.py;
          fakeroot = toString (host "fakeroot" /usr/bin/fakeroot-sysv);
        } ''
          mkdir root "$out"
          "$python" "$writer" link root $contents
          (cd root && eval "$extraCommands")
          # Ownership that the commands give is seen by whoever reads it in the same session; the sandbox has no other user.
          export out FAKEROOTDONTTRYCHOWN=1
          "$fakeroot" /bin/bash -euc 'cd root && eval "$fakeRootCommands" &&
            tar --sort=name --numeric-owner --mtime=@1 --hard-dereference -cf "$out/layer.tar" .'
          sha256sum "$out/layer.tar" | cut -f 1 -d " " > "$out/checksum"
        '';

        conf = run "${baseName}-conf.json" {
          inherit baseJson customisationLayer created mtime uid gid uname gname maxLayers python;
          exportReferencesGraph = graphs [ baseJson customisationLayer ];
          repository = "${name}:${tag}";
          writer = ./image.py;
        } ''
          created=$(date --utc -Iseconds -d "$created") mtime=$(date --utc -Iseconds -d "$mtime")
          "$python" "$writer" conf "$out"
        '';
      in
      run "stream-${baseName}" { inherit conf python; script = ./stream_layered_image.py; } ''
        printf '#!/bin/bash\nexec %s %s %s "$@"\n' "$python" "$script" "$conf" > "$out"
        chmod 0555 "$out"
      '' // { inherit conf; imageTag = tag; isExe = true; };
  };
}
