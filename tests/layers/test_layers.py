#!/usr/bin/env python3
"""The layers keep to themselves: what each library needs, and what each file includes.

usage: test_layers.py SOURCE_ROOT LAYER=SHARED_LIBRARY...

Also looks for what must not be in the tree: paths of somebody's machine, and hosts of
package registries.
"""

import os
import re
import shutil
import subprocess
import sys

# What a layer may use, and the public headers that are its own.
MAY_USE = {
    "core": [],
    "net": ["core"],
    "store": ["core"],
    "raft": ["core"],
    "cluster": ["core", "net", "store", "raft"],
}
HEADERS = {
    "core": "alloc.h arena.h base.h clock.h crc32c.h error.h errors.def executor.h fs.h "
            "heap_profile.h list.h log.h mem.h metrics.h mpmc.h mpmc_typed.h pool.h random.h "
            "sim.h slice.h spsc.h",
    "net": "address.h http.h http1.h http_client.h loop.h multipart.h proxy_protocol.h resolve.h router.h shared.h "
           "socket.h tls.h udp.h url.h ws.h ws_codec.h",
    "store": "aof.h aof_admin.h kv.h kv_admin.h object_store.h tiers.h",
    "raft": "raft.h",
    "cluster": "backup.h client.h client_election.h client_lock.h client_view.h client_watch.h cluster_admin.h node.h presence.h "
               "transaction.h watch.h wire.h wire_kinds.def",
}
PROGRAMS = ["bopd", "cli"]  # Public headers of any layer, and their own.
PARTS = {"malloc": "core"}  # Of a layer, with a library of their own: its private headers too.
LAYER_OF = {header: layer for layer, headers in HEADERS.items() for header in headers.split()}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)

# Put together here, so that this file does not have them itself.
MACHINE = re.compile(r"(?<![\w.$}*])/(?:" + "|".join(["wo" + "rk/", "ro" + "ot/", "tmp/" + "bop"]) + ")")
REGISTRIES = ["pypi" + ".org", "pythonhosted" + ".org", "crates" + ".io", "npmjs" + ".",
              "proxy.golang" + ".org", "rubygems" + ".org", "maven" + ".org",
              "maven.apache" + ".org", "docker" + ".io", "ghcr" + ".io"]


def files_under(folder, suffixes=(".c", ".h", ".def")):
    for path, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            if name.endswith(suffixes):
                yield os.path.join(path, name)


def includes(path):
    with open(path, encoding="utf-8") as file:
        return INCLUDE.findall(file.read())


def check_public(name, users, problems, path):
    """A public header, included by a file of a layer that may use `users`."""
    if not name.startswith("bop/"):
        return
    layer = LAYER_OF.get(name[len("bop/"):])
    if layer is None:
        problems.append(f"{path}: <{name}> belongs to no layer: add it to HEADERS")
    elif layer not in users:
        problems.append(f"{path}: <{name}> is of {layer}")


def check_folder(root, folder, users, whole=None):
    """The includes of src/folder, a part of src/whole if that is given. Returns what is wrong."""
    problems = []
    own = os.path.realpath(os.path.join(root, "src", folder))
    allowed = [own + os.sep]
    if whole:
        allowed.append(os.path.realpath(os.path.join(root, "src", whole)) + os.sep)
    for path in files_under(own):
        for quote, name in includes(path):
            shown = os.path.relpath(path, root)
            if quote == "<":
                check_public(name, users, problems, shown)
                continue
            # The compiler looks beside the file first; nothing but the folder itself is
            # an include directory.
            places = [os.path.join(os.path.dirname(path), name), os.path.join(own, name)]
            found = [os.path.realpath(place) for place in places if os.path.exists(place)]
            if not found or not found[0].startswith(tuple(allowed)):
                problems.append(f'{shown}: "{name}" is not of src/{folder}')
    return problems


def check_public_headers(root):
    problems = []
    folder = os.path.join(root, "include", "bop")
    for path in files_under(folder):
        shown = os.path.relpath(path, root)
        layer = LAYER_OF.get(os.path.basename(path))
        if layer is None:
            problems.append(f"{shown} belongs to no layer: add it to HEADERS")
            continue
        for quote, name in includes(path):
            if quote == '"':
                problems.append(f'{shown}: "{name}" is not public')
            else:
                check_public(name, MAY_USE[layer] + [layer], problems, shown)
    return problems


def check_library(layer, path):
    """The libraries of ours that a shared library needs: those of the layers it may use."""
    output = subprocess.run(["readelf", "-d", path], check=True, capture_output=True, text=True,
                            env={**os.environ, "LC_ALL": "C"}).stdout
    needed = re.findall(r"\(NEEDED\).*\[libbop-(\w+)\.so", output)
    return [f"libbop-{layer} needs libbop-{other}" for other in needed
            if other not in MAY_USE[layer]]


def tree(root):
    """The files that belong to the project."""
    if os.path.exists(os.path.join(root, ".git")) and shutil.which("git"):
        output = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True)
        if output.returncode == 0:
            return [name for name in output.stdout.decode().split("\0") if name]
    names = []
    for path, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in (".git", "build")]
        names += [os.path.relpath(os.path.join(path, name), root) for name in files]
    return sorted(names)


def check_tree(root, wrong):
    problems = []
    for name in tree(root):
        path = os.path.join(root, name)
        if not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            text = file.read().decode("utf-8", errors="replace")
        for number, line in enumerate(text.split("\n"), 1):
            found = wrong(line)
            if found:
                problems.append(f"{name}:{number}: {found}")
    return problems


def machine_path(line):
    match = MACHINE.search(line)
    return match and match.group(0)


def registry(line):
    return next((host for host in REGISTRIES if host in line), None)


def main():
    root = sys.argv[1]
    libraries = [argument.split("=", 1) for argument in sys.argv[2:]]
    tests = [(f"libbop-{layer} needs no layer but those it may use",
              lambda layer=layer, path=path: check_library(layer, path))
             for layer, path in libraries]
    tests += [(f"src/{layer} includes what its layer may use",
               lambda layer=layer: check_folder(root, layer, MAY_USE[layer] + [layer]))
              for layer in MAY_USE]
    tests += [(f"src/{program} includes public headers and its own",
               lambda program=program: check_folder(root, program, list(MAY_USE)))
              for program in PROGRAMS]
    tests += [(f"src/{part} includes what src/{whole} may, and its private headers",
               lambda part=part, whole=whole: check_folder(root, part, MAY_USE[whole] + [whole],
                                                           whole))
              for part, whole in PARTS.items()]
    tests += [
        ("every folder of src is a layer, a part of one or a program",
         lambda: sorted(set(os.listdir(os.path.join(root, "src"))) - set(MAY_USE)
                        - set(PROGRAMS) - set(PARTS))),
        ("public headers include what their layer may use", lambda: check_public_headers(root)),
        ("no file names a path of somebody's machine", lambda: check_tree(root, machine_path)),
        ("no file names a package registry", lambda: check_tree(root, registry)),
    ]
    print("TAP version 13")
    print(f"1..{len(tests)}")
    failed = 0
    for number, (name, check) in enumerate(tests, 1):
        problems = check()
        for problem in problems:
            print(f"# {problem}")
        failed += bool(problems)
        print(f"{'not ok' if problems else 'ok'} {number} - layers: {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
