#!/bin/sh
# native.sh [PYTHON]: compile service/engine/native for this machine, into the folder of its sources.
#
# Each part is an acceleration that the service does without where it is missing, so nothing here makes an
# installation fail. The compiler is $CC, or cc, or one that pip brings for the occasion (pinned below;
# $WHEELS is a folder of wheels to look into as well).
set -u
unset PYTHONPATH PYTHONHOME
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root/service/engine/native" || exit 0
python=${1:-python3}
machine=$(uname -m)
zig=ziglang==0.17.1

say() { echo "$1: the service will do without, and be slower." >&2; }

# library NAME [FLAG ...]: appears whole or not at all, even where two of these run at once.
library() {
    name=$1
    shift
    # shellcheck disable=SC2086 # the compiler may be several words
    $compiler -O3 -std=gnu11 "$@" -s -shared -fPIC -pthread -o "$name.$$.new" "$name.c" -lm \
        && mv "$name.$$.new" "$name-$machine.so" || say "native/$name.c could not be compiled"
}

rm -f ./*.so ./*.new
[ "$machine" = x86_64 ] || exit 0  # the operator is for AVX-512: elsewhere there is nothing to compile
compiler=${CC:-cc}
if ! command -v "${compiler%% *}" >/dev/null 2>&1; then
    [ "$(uname -s)" = Linux ] || { say "There is no C compiler"; exit 0; }
    echo "There is no C compiler: fetching one for the moment ..." >&2
    work=$(mktemp -d) || exit 0
    trap 'rm -rf "$work"' EXIT
    "$python" -m venv "$work/venv" \
        && "$work/venv/bin/python" "$root/deploy/install_packages.py" \
            ${WHEELS:+--find-links "$WHEELS"} "$zig" || { say "There is no C compiler"; exit 0; }
    export ZIG_GLOBAL_CACHE_DIR="$work/cache" ZIG_LOCAL_CACHE_DIR="$work/cache"
    # For older C libraries than this machine's, too.
    compiler="$work/venv/bin/python -m ziglang cc -target $machine-linux-gnu.2.28"
fi
library operator -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni
