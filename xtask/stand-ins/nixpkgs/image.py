"""Writes what nixpkgs' buildLayeredImage writes: one layer to a store path, and one for the rest."""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile


def link(root, packages):
    """Puts links to the packages' files where an image has them."""
    for package in packages:
        for folder, folders, files in os.walk(package):
            target = os.path.join(root, os.path.relpath(folder, package))
            os.makedirs(target, exist_ok=True)
            # A link to a folder counts as a file here.
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in files + links:
                if not os.path.lexists(os.path.join(target, name)):
                    os.symlink(os.path.join(folder, name), os.path.join(target, name))


def entries(top):
    """Every path below `top`, in an order that is always the same."""
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(files + folders):
            yield os.path.join(folder, name)


def layer(paths, name_of, keep_owner):
    """An uncompressed tarball without anything of this machine or this moment."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in paths:
            info = tar.gettarinfo(path, name_of(path))
            info.mtime = 1
            info.uname = info.gname = ""
            if info.islnk():
                info.type, info.size = tarfile.REGTYPE, os.path.getsize(path)
            if not keep_owner:
                info.uid = info.gid = 0
            if info.isreg():
                with open(path, "rb") as content:
                    tar.addfile(info, content)
            else:
                tar.addfile(info)
    return buffer.getvalue()


def closure():
    """The store paths that the image needs, without what only the configuration's own file is."""
    paths = set()
    for graph in sorted(name for name in os.listdir(".") if name.startswith("graph-")):
        with open(graph) as lines:
            paths.update(line.strip() for line in lines if line.startswith("/nix/store/"))
    return sorted(path for path in paths if not path.endswith(".drv") and path != os.environ["configFile"])


def store_layers(most):
    """One layer to a path; what is beyond `most` shares the last."""
    paths = closure()
    groups = [[path] for path in paths[: most - 1]] + ([paths[most - 1 :]] if paths[most - 1 :] else [])
    for group in groups:
        members = ["/nix", "/nix/store"]
        for path in group:
            members += [path] + (list(entries(path)) if os.path.isdir(path) and not os.path.islink(path) else [])
        yield layer(members, lambda path: path.lstrip("/"), keep_owner=False)


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(content), 1, 0o644
    tar.addfile(info, io.BytesIO(content))


def image(root, out):
    """The docker-archive."""
    layers = list(store_layers(int(os.environ["maxLayers"]) - 1))
    layers.append(layer(list(entries(root)), lambda path: os.path.relpath(path, root), keep_owner=True))
    digests = [hashlib.sha256(content).hexdigest() for content in layers]
    with open(os.environ["configFile"]) as file:
        config = json.load(file)
    document = {
        "architecture": os.environ["architecture"],
        "config": config,
        "created": os.environ["created"],
        "history": [{"created": os.environ["created"]} for _ in layers],
        "os": "linux",
        "rootfs": {"diff_ids": ["sha256:" + digest for digest in digests], "type": "layers"},
    }
    document = json.dumps(document, sort_keys=True).encode()
    names = [digest + "/layer.tar" for digest in digests]
    config_name = hashlib.sha256(document).hexdigest() + ".json"
    manifest = [{"Config": config_name, "Layers": names, "RepoTags": [os.environ["repository"]]}]
    with open(out, "wb") as file, gzip.GzipFile("", "wb", 1, file, 0) as packed:
        with tarfile.open(fileobj=packed, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in zip(names, layers):
                add(tar, name, content)
            add(tar, config_name, document)
            add(tar, "manifest.json", json.dumps(manifest).encode())


if __name__ == "__main__":
    command, root, *rest = sys.argv[1:]
    link(root, rest) if command == "link" else image(root, *rest)
