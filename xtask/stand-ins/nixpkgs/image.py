"""What nixpkgs' dockerTools does in its builders: links to the contents, and the list of layers."""

import json
import os
import sys


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


def closure():
    """The store paths that the image needs, without those that only say what it is."""
    paths = set()
    for graph in sorted(name for name in os.listdir(".") if name.startswith("graph-")):
        with open(graph) as lines:
            paths.update(line.strip() for line in lines if line.startswith("/nix/store/"))
    own = {os.environ["baseJson"], os.environ["customisationLayer"]}
    return sorted(path for path in paths - own if not path.endswith(".drv"))


def conf(out):
    """One layer to a path; what is beyond the most layers shares the last."""
    paths, most = closure(), int(os.environ["maxLayers"]) - 1
    layers = [[path] for path in paths[: most - 1]] + ([paths[most - 1 :]] if paths[most - 1 :] else [])
    with open(os.environ["baseJson"]) as file:
        document = json.load(file)
    document |= {name: os.environ[name] for name in ("created", "mtime", "uid", "gid", "uname", "gname")}
    document |= {"repo_tag": os.environ["repository"], "from_image": None, "store_dir": "/nix/store"}
    document |= {"customisation_layer": os.environ["customisationLayer"], "store_layers": layers}
    with open(out, "w") as file:
        json.dump(document, file)


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    link(rest[0], rest[1:]) if command == "link" else conf(*rest)
