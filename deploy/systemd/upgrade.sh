#!/bin/sh
# upgrade.sh MODEL | --back: switch the running service to another model folder, or back to the previous one,
# without losing a request: the old model answers until the new one has loaded, and finishes running requests.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
home=/opt/qa-onnx unit=qa-onnx.service
# Time-out in seconds for loading the new model and draining the old workers (QA_DRAIN_SECONDS).
patience=${PATIENCE:-90}

[ $# -eq 1 ] || { echo "usage: deploy/systemd/upgrade.sh MODEL | --back" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "upgrade.sh writes to $home: run it as root." >&2; exit 2; }
systemctl is-active --quiet "$unit" || { echo "The service does not run: systemctl start qa-onnx" >&2; exit 2; }

back() { # swap the two links
    now=$(readlink "$home/model") before=$(readlink "$home/model.before")
    ln -sfn "$before" "$home/model.new" && mv -T "$home/model.new" "$home/model"
    ln -sfn "$now" "$home/model.new" && mv -T "$home/model.new" "$home/model.before"
}

if [ "$1" = --back ]; then
    [ -e "$home/model.before" ] || { echo "There is no previous model." >&2; exit 2; }
    back
else
    "$here/put_model.sh" "$home/current" "$1"
fi

main=$(systemctl show --property MainPID --value "$unit")
workers=$(cat "/proc/$main/task/$main/children")
systemctl reload "$unit"
while [ "$patience" -gt 0 ]; do
    left=
    for worker in $workers; do [ ! -d "/proc/$worker" ] || left=1; done
    [ -n "$left" ] || { echo "The service answers with $(readlink "$home/model")."; exit 0; }
    sleep 1
    patience=$((patience - 1))
done
back
echo "The service could not load the model and keeps the previous one: see journalctl -u qa-onnx" >&2
exit 1
