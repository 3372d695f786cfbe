#!/bin/sh
# kernel.sh: compile service/engine/kernel for this machine, into the folder of its sources.
#
# It is an acceleration: without it, and on CPUs it is not for, ONNX Runtime does all the work, so nothing
# here makes an installation fail. The compiler is $CC, or cc, or one that pip can bring for the occasion
# (pinned below; $WHEELS is a folder of wheels to look into as well).
set -u
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root/service/engine/kernel" || exit 0
[ "$(uname -sm)" = "Linux x86_64" ] || exit 0
zig=ziglang==0.17.1

without() { echo "No kernel ($1): ONNX Runtime will do all the work, at about two thirds of the speed." >&2; exit 0; }

# compile COMMAND [ARG ...]: the library appears whole or not at all.
compile() {
    "$@" -O3 -std=gnu11 -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni \
        -shared -fPIC -pthread -o "$library.new" encoder.c -lm && mv "$library.new" "$library"
}

library=encoder-x86_64.so
rm -f "$library" "$library.new"
cc=${CC:-cc}
if command -v "$cc" >/dev/null 2>&1; then
    compile "$cc" || without "$cc could not compile it"
    exit 0
fi
python=${1:-python3}
work=$(mktemp -d) || exit 0
trap 'rm -rf "$work"' EXIT
echo "There is no C compiler: fetching one for the moment ..." >&2
"$python" -m venv "$work/venv" && "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --no-deps ${WHEELS:+--find-links "$WHEELS"} "$zig" || without "no C compiler"
# An older C library than this machine's will do.
ZIG_GLOBAL_CACHE_DIR=$work/cache ZIG_LOCAL_CACHE_DIR=$work/cache compile \
    "$work/venv/bin/python" -m ziglang cc -target x86_64-linux-gnu.2.28 || without "it does not compile"
