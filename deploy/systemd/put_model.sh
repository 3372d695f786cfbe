#!/bin/sh
# put_model.sh RELEASE MODEL: copy the model folder MODEL, verify the copy with the version in RELEASE, and make it
# the installed model. The previous one is kept (/opt/qa-onnx/model.before). The service is not reloaded.
set -eu
release=$1 home=/opt/qa-onnx
model=$(CDPATH='' cd -- "$2" && pwd)

copy=$home/models/$(date -u +%Y%m%dT%H%M%SZ)-$$
cp -rL "$model" "$copy"
chmod -R a+rX,go-w "$copy"
# Verify the copy, since it is what will be served.
if ! (cd "$release" && QA_THREADS=1 venv/bin/python -m service check "$copy"); then
    rm -rf "$copy"
    exit 2
fi
before=$(readlink "$home/model" || true)
[ -z "$before" ] || { ln -sfn "$before" "$home/model.before.new"; mv -T "$home/model.before.new" "$home/model.before"; }
ln -sfn "$copy" "$home/model.new"
mv -T "$home/model.new" "$home/model"
for old in "$home"/models/*; do
    case $old in "$copy" | "$before") ;; *) rm -rf "$old" ;; esac
done
