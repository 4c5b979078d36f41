#!/usr/bin/env bash
# Builds the wheel and the source archive of the last commit, looks at them as a package index would, and installs each
# with pip, pipx and uv into environments that have nothing else. In each of them mdl says its version, lists the models
# that it ships, and runs the demo. With a folder as its argument, it leaves the two files there.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' mdl/__init__.py)
head=$(git rev-parse HEAD)
commit=${head:0:8}
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$head")
export SOURCE_DATE_EPOCH
export PIP_DISABLE_PIP_VERSION_CHECK=1

python3 -I -m venv "$work/tools"
"$work/tools/bin/pip" install -q build twine check-wheel-contents pipx uv
for number in 1 2; do
    git clone -q . "$work/clone$number"
    git -C "$work/clone$number" checkout -q "$head"
    "$work/tools/bin/python" -m build --outdir "$work/dist$number" "$work/clone$number" > "$work/log" 2>&1 ||
        { tail -20 "$work/log"; exit 1; }
done
diff -r "$work/dist1" "$work/dist2" || { echo "two builds of one commit differ"; exit 1; }
wheel=$(echo "$work"/dist1/*.whl)
source=$(echo "$work"/dist1/*.tar.gz)
"$work/tools/bin/twine" check --strict "$wheel" "$source"
"$work/tools/bin/check-wheel-contents" "$wheel"

clean() { # a command in an environment without any setting of this machine
    env -i HOME="$work/home" PATH="$PATH" LANG=C.UTF-8 "$@"
}

try() { # an mdl that was just installed: its version, the list and the demo
    rm -rf "$work/home"
    mkdir "$work/home"
    [ "$(clean "$1" --version)" = "mdl $version ($commit)" ] || { clean "$1" --version; exit 1; }
    clean "$1" list -q --columns name > "$work/list" && grep -qx bert-fa "$work/list" || { cat "$work/list"; exit 1; }
    clean "$1" demo > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    echo "$2: version, list and demo"
}

for package in "$wheel" "$source"; do
    name=${package##*/}
    python3 -I -m venv "$work/pip"
    "$work/pip/bin/pip" install -q "$package"
    try "$work/pip/bin/mdl" "pip, $name"
    rm -rf "$work/pip"

    PIPX_HOME="$work/pipx" PIPX_BIN_DIR="$work/pipx/bin" PIPX_MAN_DIR="$work/pipx/man" \
        "$work/tools/bin/pipx" install -q "$package" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    try "$work/pipx/bin/mdl" "pipx, $name"
    rm -rf "$work/pipx"

    UV_TOOL_DIR="$work/uv" UV_TOOL_BIN_DIR="$work/uv/bin" \
        "$work/tools/bin/uv" tool install -q --python "$(command -v python3)" "$package"
    try "$work/uv/bin/mdl" "uv, $name"
    rm -rf "$work/uv"
done

# A clone that is installed as it stands, and one that is edited in place.
python3 -I -m venv "$work/pip"
"$work/pip/bin/pip" install -q "$work/clone1"
try "$work/pip/bin/mdl" "pip, a clone"
"$work/pip/bin/pip" install -q -e "$work/clone1"
[ "$(clean "$work/pip/bin/mdl" --version)" = "mdl $version (checkout $commit)" ]
echo "pip, an editable clone: version"
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    cp "$wheel" "$source" "$1"
    (cd "$1" && sha256sum "${wheel##*/}" "${source##*/}")
fi
