#!/bin/sh
# prepare_arm64.sh: sets up what test_arm64.py needs on a Debian x86-64 machine, as root:
#   - qemu-user of Debian 13, registered with the kernel (containers included) until the next boot. That of Debian 12
#     (7.2) exposes the host's /proc/cpuinfo, in which ONNX Runtime finds no Arm processor and crashes;
#   - the image python:3.11-slim-bookworm-arm64, made with debootstrap, without an image registry.
# It downloads from this machine's Debian mirror, or from MIRROR=URL; the image gets this machine's CA certificates.
set -eu
apt_mirror() {
    sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb  *\(\[.*\]  *\)\{0,1\}\([^ ]*\).*/\2/p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null | head -n 1
}
mirror=${MIRROR:-$(apt_mirror)}
[ -n "$mirror" ] || { echo "apt's sources name no mirror: set MIRROR to one." >&2; exit 2; }
base=python:3.11-slim-bookworm-arm64
qemu=/usr/local/bin/qemu-aarch64
[ "$(id -u)" = 0 ] || { echo "prepare_arm64.sh registers an interpreter with the kernel: run it as root." >&2; exit 2; }
for program in apt-get debootstrap docker; do
    command -v "$program" >/dev/null || { echo "$program is missing: install it." >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT  # a debootstrap that failed may have left /proc and /sys mounted

# Unpacked, not installed, since it would replace this release's package; apt verifies its signature.
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

# Flag F: the kernel opens the interpreter at registration, so that it works inside containers.
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
