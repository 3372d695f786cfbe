#!/bin/sh
# install.sh KIND VENV: the one way an environment of this project comes to be.
#   KIND  runtime | export | dev (each holds the one before)
#   VENV  folder of the virtual environment
# Environment: PYTHON (interpreter to use), WHEELS (folder of wheels to prefer), TORCH_INDEX.
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

# Written last, so an interrupted installation never looks finished.
stamp=$venv/.qa-onnx-installed
state="$kind $(cksum < "$file") $(cksum < "$0")"
[ "$(cat "$stamp" 2>/dev/null || true)" = "$state" ] && exit 0

if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
        then python=$candidate; break; fi
    done
    if [ -z "$python" ]; then
        echo "qa-onnx needs Python 3.11 or later with its venv module: install it, or set PYTHON." >&2
        exit 2
    fi
    "$python" -m venv --clear "$venv"
fi

pip() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        ${WHEELS:+--find-links "$WHEELS"} "$@"
}

echo "Installing the $kind packages into $venv ..." >&2
torch=$(grep '^torch==' "$file" || true)
if [ -n "$torch" ] && ! "$venv/bin/python" - "${torch#torch==}" <<'PY' 2>/dev/null
import sys, importlib.metadata as m
sys.exit(m.version("torch").partition("+")[0] != sys.argv[1])
PY
then
    # On Linux the general index's torch comes with gigabytes of CUDA; this index has the CPU's.
    # Never the other way round: without it, and without a wheel at hand, the installation stops.
    if [ "$(uname -s)" = Linux ]; then
        pip --retries 1 --timeout 20 --index-url "${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}" "$torch"
    else
        pip "$torch"
    fi
fi
pip --requirement "$file"
echo "$state" > "$stamp"
