#!/bin/sh
# bundle.sh [--no-compiler] [--image NAME] OUTPUT.tar: everything that a machine without a network needs to install
# or run the service: these folders, wheels of all run-time packages, and the Docker image NAME.
#   --no-compiler  leave out the compiler (90 MB) that machines without a C compiler need for the custom operator
# The wheels are those of this machine's kind and of the Python in PYTHON (python3). There:
#   tar -xf OUTPUT.tar && cd qa-onnx && PIP_NO_INDEX=1 WHEELS=$PWD/wheels make serve
#   ... PIP_NO_INDEX=1 WHEELS=$PWD/wheels deploy/systemd/install.sh        or        docker load -i image.tar
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
usage() { echo "usage: deploy/bundle.sh [--no-compiler] [--image NAME] OUTPUT.tar" >&2; exit 2; }
compiler=1 image=
while [ $# -gt 1 ]; do
    case $1 in
        --no-compiler) compiler= ; shift ;;
        --image) image=$2; shift 2 ;;
        *) usage ;;
    esac
done
[ $# -eq 1 ] || usage
case $1 in -*) usage ;; esac
output=$1
python=${PYTHON:-python3}
"$python" -m pip --version >/dev/null || { echo "$python has no pip: set PYTHON to one that has." >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=$work/qa-onnx
mkdir -p "$bundle/models" "$bundle/wheels"
for part in service deploy docs requirements.txt LICENSE README.md Makefile; do
    [ ! -e "$root/$part" ] || cp -r "$root/$part" "$bundle/"
done
cp -r "$root/models/default" "$bundle/models/"
find "$bundle" \( -name __pycache__ -o -name '*.so' \) -prune -exec rm -rf {} +
zig=$(sed -n 's/^zig=//p' "$root/deploy/native.sh")
"$python" -m pip download --quiet --no-deps --only-binary :all: --dest "$bundle/wheels" \
    --requirement "$root/requirements.txt" ${compiler:+"$zig"}
[ -z "$image" ] || docker save --output "$bundle/image.tar" "$image"
tar -C "$work" -cf "$output" qa-onnx
