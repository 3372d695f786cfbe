#!/bin/sh
# uninstall.sh [--settings]: stop the systemd service qa-onnx and remove it; with --settings also /etc/qa-onnx and
# the changes made by `systemctl edit`.
set -eu
unit=qa-onnx.service
case ${1:-} in '' | --settings) ;; *) echo "usage: deploy/systemd/uninstall.sh [--settings]" >&2; exit 2 ;; esac
[ "$(id -u)" = 0 ] || { echo "uninstall.sh writes to /opt and /etc/systemd: run it as root." >&2; exit 2; }

systemctl disable --now --quiet "$unit" 2>/dev/null || true
rm -f "/etc/systemd/system/$unit"
rm -rf /opt/qa-onnx
if [ "${1:-}" = --settings ]; then
    rm -rf /etc/qa-onnx "/etc/systemd/system/$unit.d"
fi
systemctl daemon-reload
systemctl reset-failed --quiet "$unit" 2>/dev/null || true
