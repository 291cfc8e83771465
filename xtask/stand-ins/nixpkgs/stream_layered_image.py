"""Writes an image to stdout, as nixpkgs' script of this name does: the same layers and the same configuration."""

import datetime
import hashlib
import io
import itertools
import json
import os
import pathlib
import sys
import tarfile


class Checksum:
    """Takes a tarball for its digest and its size alone."""

    def __init__(self):
        self.digest, self.size = hashlib.sha256(), 0

    def write(self, data):
        self.digest.update(data)
        self.size += len(data)


def archive(out, paths, stamp):
    """The tarball of store paths."""

    def stamped(info):
        info.mtime, info.uid, info.gid, info.uname, info.gname = stamp
        return info

    def folder(path):
        info = tarfile.TarInfo(path)
        info.type, info.mode = tarfile.DIRTYPE, 0o0555
        return stamped(info)

    with tarfile.open(fileobj=out, mode="w|") as tar:
        tar.addfile(folder("/nix"))
        tar.addfile(folder("/nix/store"))
        for path in map(pathlib.Path, paths):
            below = [] if path.is_symlink() else path.rglob("*")
            for name in sorted(itertools.chain([path], below)):
                info = tar.gettarinfo(name)
                info.name = "/" + info.name
                if info.islnk():
                    info.type, info.linkname, info.size = tarfile.REGTYPE, "", name.stat().st_size
                if stamped(info).isfile():
                    with open(name, "rb") as content:
                        tar.addfile(info, content)
                else:
                    tar.addfile(info)


def add(tar, name, size, content):
    info = tarfile.TarInfo(name)
    info.size = size
    tar.addfile(info, content)


def store_layer(tar, paths, stamp):
    checksum = Checksum()
    archive(checksum, paths, stamp)
    digest = checksum.digest.hexdigest()
    content = io.BytesIO()
    archive(content, paths, stamp)
    content.seek(0)
    add(tar, f"{digest}/layer.tar", checksum.size, content)
    return digest, paths


def customisation_layer(tar, path):
    with open(os.path.join(path, "checksum")) as file:
        digest = file.read().strip()
    layer = os.path.join(path, "layer.tar")
    with open(layer, "rb") as content:
        add(tar, f"{digest}/layer.tar", os.path.getsize(layer), content)
    return digest, [path]


def main(conf):
    with open(conf) as file:
        conf = json.load(file)
    created, mtime = (datetime.datetime.fromisoformat(conf[name]) for name in ("created", "mtime"))
    stamp = (int(mtime.timestamp()), int(conf["uid"]), int(conf["gid"]), conf["uname"], conf["gname"])
    with tarfile.open(mode="w|", fileobj=sys.stdout.buffer) as tar:
        layers = [store_layer(tar, paths, stamp) for paths in conf["store_layers"]]
        layers.append(customisation_layer(tar, conf["customisation_layer"]))
        image = {
            "created": datetime.datetime.isoformat(created),
            "architecture": conf["architecture"],
            "os": "linux",
            "config": conf["config"],
            "rootfs": {"diff_ids": [f"sha256:{digest}" for digest, _ in layers], "type": "layers"},
            "history": [
                {"created": datetime.datetime.isoformat(created), "comment": f"store paths: {paths}"}
                for _, paths in layers
            ],
        }
        image = json.dumps(image, indent=4).encode()
        name = f"{hashlib.sha256(image).hexdigest()}.json"
        add(tar, name, len(image), io.BytesIO(image))
        manifest = [{"Config": name, "RepoTags": [conf["repo_tag"]], "Layers": [f"{digest}/layer.tar" for digest, _ in layers]}]
        manifest = json.dumps(manifest, indent=4).encode()
        add(tar, "manifest.json", len(manifest), io.BytesIO(manifest))


if __name__ == "__main__":
    main(sys.argv[1])
