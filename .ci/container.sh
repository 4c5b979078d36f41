#!/usr/bin/env bash
# Builds the Dockerfile with buildah, on a base made from Debian's own packages, and uses the image: the demo, and the
# recipe that bakes a model into another image, with its token as a secret. Needs root, buildah and debootstrap.
set -euo pipefail
cd "$(dirname "$0")/.."
for program in buildah debootstrap; do
    command -v $program >/dev/null || { echo "SKIPPED: $program is not on PATH"; exit 77; }
done
work=$(mktemp -d)
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot CONTAINERS_STORAGE_CONF="$work/storage.conf"
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "%s"\n' "$work/graph" "$work/run" > "$work/storage.conf"
trap 'rm -rf "$work"' EXIT

debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/root" > "$work/log" 2>&1 ||
    { tail -5 "$work/log"; exit 1; }
cp /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/"  # also those of this machine
base=$(buildah from scratch)
buildah add -q "$base" "$work/root" / >/dev/null
buildah commit -q "$base" localhost/python-base >/dev/null
rm -rf "$work/root"

buildah bud -q --network host --build-arg PYTHON=localhost/python-base -t mdl . >/dev/null
image=$(buildah from localhost/mdl)
buildah run "$image" -- mdl --version
[ "$(buildah run "$image" -- id -u)" = 1000 ]
buildah run "$image" -- mdl demo > "$work/demo" 2>&1 || { cat "$work/demo"; exit 1; }
echo "the demo runs in the image, as user 1000"

# The recipe of docs/recipes.md, with a file beside the catalog in the place of a hub.
mkdir "$work/own"
printf 'a model' > "$work/own/model.bin"
: > "$work/http"
python3 -I -u -m http.server --bind 127.0.0.1 --directory "$work/own" 0 > "$work/http" 2>&1 &
server=$!
trap 'kill $server; rm -rf "$work"' EXIT
until port=$(grep -o 'port [0-9]*' "$work/http"); do sleep 0.1; done
cat > "$work/own/catalog.toml" <<CATALOG
schema = 1
[models.bert-fa]
[[models.bert-fa.files]]
path = "model.bin"
url = "http://127.0.0.1:${port#port }/model.bin"
size = 7
sha256 = "$(sha256sum < "$work/own/model.bin" | cut -d ' ' -f 1)"
CATALOG
buildah run -v "$work/own:/own" --user 0 "$image" -- mdl lock --catalog /own/catalog.toml >/dev/null
printf 'secret' > "$work/token"
awk '/^```dockerfile/ { on = 1; next } /^```/ { on = 0 } on' docs/recipes.md |
    sed -e 's|python:3.12-slim|localhost/python-base|' -e 's|FROM mdl|FROM localhost/mdl|' > "$work/own/Dockerfile"
buildah bud -q --network host --secret "id=hf_token,src=$work/token" -t own "$work/own" >/dev/null
own=$(buildah from localhost/own)
[ "$(buildah run "$own" -- cat /models/bert-fa/model.bin)" = "a model" ]
echo "the recipe bakes a model into another image"
