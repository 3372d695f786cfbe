#!/bin/sh
# trim.sh VENV: drop from a run-time environment what inference never loads (about 100 MB).
set -eu
packages=$(echo "$1"/lib/python3*/site-packages)

# The environment is finished: nothing will be installed into it.
rm -rf "$packages"/pip "$packages"/pip-*.dist-info
rm -rf "$packages"/setuptools "$packages"/setuptools-*.dist-info \
    "$packages"/pkg_resources "$packages"/_distutils_hack "$packages"/distutils-precedence.pth
# The C library of ONNX Runtime for other programs: the Python module carries its own.
rm -f "$packages"/onnxruntime/capi/libonnxruntime.so*
# Tools of the build side.
rm -rf "$packages"/onnxruntime/transformers "$packages"/onnxruntime/quantization \
    "$packages"/onnxruntime/tools "$packages"/onnxruntime/datasets
# Tests and compilers' tools of NumPy.
rm -rf "$packages"/numpy/f2py "$packages"/numpy/distutils
find "$packages"/numpy "$packages"/gunicorn -type d -name tests -prune -exec rm -rf {} +
find "$packages" -name '*.pyi' -delete
# What was dropped must not be missed.
"$1"/bin/python -c 'import flask, gunicorn, msgspec, numpy, onnxruntime, tokenizers'
