#!/bin/sh
# install.sh [--unix-socket] [MODEL]: install this checkout as the systemd service qa-onnx, and start it.
#   MODEL  an exported model folder; without it the one that is installed, else models/default
# Run again, it replaces an older version with this checkout's; requests wait while the service restarts.
# PYTHON and WHEELS are as for deploy/install.sh.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
home=/opt/qa-onnx unit=qa-onnx.service drop_ins=/etc/systemd/system/qa-onnx.service.d

usage() { echo "usage: deploy/systemd/install.sh [--unix-socket] [MODEL]" >&2; exit 2; }
socket=
if [ "${1:-}" = --unix-socket ]; then socket=1; shift; fi
[ $# -le 1 ] || usage
case ${1:-} in -*) usage ;; esac
[ "$(id -u)" = 0 ] || { echo "install.sh writes to $home and /etc/systemd: run it as root." >&2; exit 2; }
command -v systemctl >/dev/null || { echo "There is no systemd here." >&2; exit 2; }

umask 022
release=$home/releases/$(date -u +%Y%m%dT%H%M%SZ)-$$
mkdir -p "$release" "$home/models" /etc/qa-onnx "$drop_ins"
trap 'rm -rf "$release"' EXIT  # until it is complete
for part in service deploy docs requirements.txt LICENSE; do
    [ ! -e "$root/$part" ] || cp -r "$root/$part" "$release/"
done
find "$release" -name __pycache__ -prune -exec rm -rf {} +
"$release/deploy/install.sh" runtime "$release/venv"
"$release/venv/bin/python" -m compileall -q "$release/service"

model=${1:-}
[ -n "$model" ] || [ -e "$home/model" ] || model=$root/models/default
[ -z "$model" ] || "$here/put_model.sh" "$release" "$model"

[ -e /etc/qa-onnx/qa-onnx.env ] || install -m 0640 "$here/qa-onnx.env" /etc/qa-onnx/qa-onnx.env
install -m 0644 "$here/$unit" "/etc/systemd/system/$unit"
if [ -n "$socket" ]; then
    install -m 0644 "$here/unix-socket.conf" "$drop_ins/"
    sed -i '/^QA_HOST=/d' /etc/qa-onnx/qa-onnx.env  # it would override the drop-in
fi

before=$(readlink "$home/current" || true)
ln -sfn "$release" "$home/current.new"
mv -T "$home/current.new" "$home/current"
trap - EXIT
systemctl daemon-reload
systemctl enable --quiet "$unit"
if ! systemctl restart "$unit"; then
    echo "The service did not start: see journalctl -u qa-onnx. The previous version is $before." >&2
    exit 1
fi
for old in "$home"/releases/*; do
    case $old in "$release" | "$before") ;; *) rm -rf "$old" ;; esac
done
echo "qa-onnx $(cd "$release" && venv/bin/python -c 'import service; print(service.__version__)') is running."
