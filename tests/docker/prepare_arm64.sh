#!/bin/sh
# prepare_arm64.sh: makes what test_arm64.py needs on a Debian machine of another kind, as root:
#   - Debian 13's qemu-user, registered with the kernel until the next boot, containers included. Debian 12's (7.2)
#     leaves /proc/cpuinfo as this machine's, and ONNX Runtime, which looks for Arm processors there, crashes;
#   - the image python:3.11-slim-bookworm-arm64, by debootstrap: no registry of images is needed.
# Run with MIRROR=URL, a Debian mirror; pip in the image trusts the certificates that this machine trusts.
set -eu
mirror=${MIRROR:?set it to a Debian mirror, as /etc/apt/sources.list names one}
base=python:3.11-slim-bookworm-arm64
qemu=/usr/local/bin/qemu-aarch64
for program in debootstrap docker; do
    command -v "$program" >/dev/null || { echo "$program is missing: install it." >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# As a package it would replace this release's: unpacked only, its signature checked by apt.
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$work/sources.list"
debian_13() {
    apt-get -qq -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" \
        -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root "$@"
}
debian_13 update
(cd "$work" && debian_13 download qemu-user)
dpkg-deb -x "$work"/qemu-user_*.deb "$work/qemu-user"
install -m 755 "$work/qemu-user/usr/bin/qemu-aarch64" "$qemu"

# F: the kernel opens it now, so that it is found from within any container.
binfmt=/proc/sys/fs/binfmt_misc
[ -e "$binfmt/register" ] || mount -t binfmt_misc binfmt_misc "$binfmt"
[ ! -e "$binfmt/qemu-aarch64" ] || echo -1 > "$binfmt/qemu-aarch64"
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":qemu-aarch64:M::$magic:$mask:$qemu:F" > "$binfmt/register"

root=$work/image/root
debootstrap --arch=arm64 --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv \
    bookworm "$root" "$mirror"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
ln -s /usr/bin/python3 "$root/usr/local/bin/python"
ln -s /usr/bin/python3 "$root/usr/local/bin/python3"
tar -C "$root" -cf "$work/image/root.tar" .
rm -rf "$root"
cat > "$work/image/Dockerfile" <<'DOCKERFILE'
FROM scratch
ADD root.tar /
ENV PATH=/usr/local/bin:/usr/bin:/bin PIP_CERT=/etc/ssl/certs/ca-certificates.crt
CMD ["python3"]
DOCKERFILE
DOCKER_BUILDKIT=1 docker build --platform linux/arm64 -t "$base" "$work/image"
docker run --rm --platform linux/arm64 "$base" python -c 'import platform; print(platform.machine())'
