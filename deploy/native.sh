#!/bin/sh
# native.sh [PYTHON]: compile service/engine/native for this machine, into the folder of its sources.
#
# The compiled parts are optional accelerations, so a failure here does not fail the installation. The compiler is
# $CC, or cc, or a temporary one installed by pip (pinned below; $WHEELS is an additional folder of wheels).
set -u
unset PYTHONPATH PYTHONHOME
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root/service/engine/native" || exit 0
python=${1:-python3}
machine=$(uname -m)
zig=ziglang==0.17.1

say() { echo "$1: the service will use the slower portable graph." >&2; }

# build FLAG ...: compile the operator atomically, so that concurrent runs of this script are safe.
build() {
    # shellcheck disable=SC2086 # the compiler may be several words
    $compiler -O3 -std=gnu11 -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni "$@" \
        -s -shared -fPIC -pthread -o "operator.$$.new" operator.c -lm && mv "operator.$$.new" "operator-$machine.so"
}

rm -f ./*.so ./*.new
[ "$machine" = x86_64 ] || exit 0  # the operator needs AVX-512: there is nothing to compile on other machines
compiler=${CC:-cc}
if ! command -v "${compiler%% *}" >/dev/null 2>&1; then
    [ "$(uname -s)" = Linux ] || { say "There is no C compiler"; exit 0; }
    echo "There is no C compiler: installing a temporary one ..." >&2
    work=$(mktemp -d) || exit 0
    trap 'rm -rf "$work"' EXIT
    "$python" -m venv "$work/venv" \
        && "$work/venv/bin/python" "$root/deploy/install_packages.py" \
            ${WHEELS:+--find-links "$WHEELS"} "$zig" || { say "There is no C compiler"; exit 0; }
    export ZIG_GLOBAL_CACHE_DIR="$work/cache" ZIG_LOCAL_CACHE_DIR="$work/cache"
    # Compatible with older C libraries than this machine's.
    compiler="$work/venv/bin/python -m ziglang cc -target $machine-linux-gnu.2.28"
fi
# gcc before 11 does not know AMX, which the operator uses where the CPU has it.
build -mamx-tile -mamx-int8 2>/dev/null || build || say "native/operator.c could not be compiled"
