#!/bin/sh
# install.sh KIND VENV: the one way an environment of this project comes to be.
#   KIND  runtime | export | dev (each holds the one before)
#   VENV  folder of the virtual environment
# Environment:
#   PYTHON       the interpreter to build on, 3.11 or later; without it the first that fits on PATH
#   WHEELS       a folder of wheels to look into as well
#   TORCH_INDEX  the index that torch comes from; without it PyTorch's own index of CPU builds
set -eu

usage() { echo "usage: deploy/install.sh runtime|export|dev VENV" >&2; exit 2; }
[ $# -eq 2 ] || usage
kind=$1 venv=$2
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
case $kind in
    runtime) file=$root/requirements.txt ;;
    export) file=$root/requirements-export.txt ;;
    dev) file=$root/requirements-dev.txt ;;
    *) usage ;;
esac

# The stamp names what is installed. It is taken away first and written last, so an interrupted
# installation never looks finished.
stamp=$venv/.qa-onnx-installed
native=$root/service/engine/native
state="$kind $(cksum < "$file") $(cksum < "$0") $(cat "$native"/*.[ch] "$root/deploy/native.sh" 2>/dev/null | cksum)"
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null || true)" = "$state" ]; then
    exit 0
fi
was=$(cut -d ' ' -f 1 "$stamp" 2>/dev/null || true)
rm -f "$stamp"

fits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" && echo "$PYTHON" && return
        echo "PYTHON=$PYTHON is not a Python 3.11 or later with its venv module: name another." >&2
        exit 2
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        fits "$candidate" && echo "$candidate" && return
    done
    echo "qa-onnx needs Python 3.11 or later with its venv module: install it, or set PYTHON." >&2
    exit 2
}

# Made anew: an environment that was interrupted; one of another kind, which would leave things behind
# (torch beside the service); and a run-time one always, for that takes seconds and it shall hold its
# pins and nothing else.
if [ "$kind" = runtime ] || [ "$was" != "$kind" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1
then
    if [ -n "$(ls -A "$venv" 2>/dev/null)" ] && [ ! -f "$venv/pyvenv.cfg" ]; then
        echo "$venv holds something that is not a virtual environment: name another folder." >&2
        exit 2
    fi
    python=$(find_python)
    "$python" -m venv --clear "$venv"
fi

install() {
    "$venv/bin/python" "$root/deploy/strict_pip.py" install --quiet --disable-pip-version-check --no-deps \
        ${WHEELS:+--find-links "$WHEELS"} "$@"
}

echo "Installing the $kind packages into $venv ..." >&2
torch=$(grep '^torch==' "$file" || true)
if [ -n "$torch" ] && ! "$venv/bin/python" - "${torch#torch==}" <<'PY' 2>/dev/null
import sys, importlib.metadata as m
sys.exit(m.version("torch").partition("+")[0] != sys.argv[1])
PY
then
    # On Linux the general index's torch brings gigabytes of CUDA. Asking for the build by its name
    # keeps every index and folder that pip is configured with from slipping that one in; another
    # build is taken only where TORCH_INDEX says so.
    index=${TORCH_INDEX:-}
    if [ -z "$index" ] && [ "$(uname -s)" = Linux ]; then
        index=https://download.pytorch.org/whl/cpu
        torch=$torch+cpu
    fi
    if ! install --retries 1 --timeout 20 ${index:+--index-url "$index"} "$torch"; then
        echo "$torch could not be installed${index:+ from $index}: set TORCH_INDEX to an index that has it," \
            "or WHEELS to a folder with its wheel." >&2
        exit 1
    fi
fi
# Compiled while pip is at work. An image's environments are made before the sources come in: there it is a
# step of its own.
[ ! -d "$native" ] || "$root/deploy/native.sh" "$venv/bin/python" &
install --requirement "$file"
wait
echo "$state" > "$stamp"
