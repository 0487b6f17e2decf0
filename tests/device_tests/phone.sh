#!/bin/sh
# An Arm phone without a phone: a real adbd on the loopback of a network of its own. What its shell runs is arm64, translated
# by qemu through a registration that only this user namespace sees; adbd and the adb server are the host's.
#
#   unshare --user --map-root-user --mount --net --pid --fork phone.sh ROOT SOCKET ADB BUSYBOX SYSROOT CPU TMPFS_SIZE
#
# ROOT: an empty folder. SOCKET: where the adb server listens. BUSYBOX: a static arm64 one. SYSROOT: arm64 libraries.
# Ends when its standard input does. While ROOT.unplugged exists, adbd is not started again.
set -eu
root=$1 socket=$2 adb=$3 busybox=$4 sysroot=$5 cpu=$6 size=$7

mount --make-rprivate /
mount -t proc proc /proc
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
# P keeps argv[0], which busybox goes by; F opens the interpreter now, so that it is found inside the phone as well.
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":burnish-arm64:M::$magic:$mask:$(command -v qemu-aarch64):PF" > /proc/sys/fs/binfmt_misc/register
ip link set lo up

mount -t tmpfs -o mode=755 phone "$root"
mkdir -p "$root/bin" "$root/lib" "$root/lib64" "$root/usr/lib" "$root/usr/sbin" "$root/proc" "$root/sys" "$root/dev" \
  "$root/data/local/tmp" "$root/etc" "$root/tmp"
mount -t tmpfs -o "mode=1777,size=$size" phone-data "$root/data/local/tmp"
mount --bind "$sysroot/lib" "$root/lib"
cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
mount --rbind /usr/lib "$root/usr/lib"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
for device in null zero urandom; do
  : > "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
for name in $("$busybox" --list); do ln -s busybox "$root/bin/$name"; done
rm "$root/bin/busybox"
cp "$busybox" "$root/bin/busybox"
cp "$(readlink -f /usr/lib/android-sdk/platform-tools/adbd)" "$root/usr/sbin/adbd"
# What a phone says of itself, as the test wrote it.
printf '%s\n' '#!/bin/sh' 'grep -F "$1=" /etc/properties | head -n 1 | cut -d= -f2-' > "$root/bin/getprop"
chmod 755 "$root/bin/getprop"
cp "$root.properties" "$root/etc/properties"

ADB_SERVER_SOCKET="localfilesystem:$socket" "$adb" -L "localfilesystem:$socket" server nodaemon >"$root.server.log" 2>&1 &
chroot=$(command -v chroot)
(
  export ADBD_PORT=5555 QEMU_CPU="$cpu"
  export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu/android
  while :; do
    [ -e "$root.unplugged" ] || PATH=/bin "$chroot" "$root" /usr/sbin/adbd || true
    sleep 0.2
  done
) >"$root.adbd.log" 2>&1 &
cat > /dev/null
