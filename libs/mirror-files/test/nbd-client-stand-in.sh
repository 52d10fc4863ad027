#!/bin/bash
# Stands in for nbd-client and the kernel's nbd module, which test machines lack: takes the arguments that the manual of
# nbd-client 3.24 documents for -nofork and -nonetlink, and makes a device node that is a loop device in truth.
# Beside it: sys/<device>/{pid,size} as in /sys/block, and log with what it was called with.
set -u
here=$(dirname "$0")
echo "$*" >> "$here/log"
unset MIDMIRROR_FILES_OF
unix= name= readonly= foreground= ioctl= plain=()
while [ $# -gt 0 ]; do
  case $1 in
    -unix) unix=1 ;;
    -name) name=$2; shift ;;
    -block-size) shift ;;
    -readonly) readonly=1 ;;
    -nofork) foreground=1 ;;
    -nonetlink) ioctl=1 ;;
    -*) echo "unknown option $1" >&2; exit 1 ;;
    *) plain+=("$1") ;;
  esac
  shift
done
[ -n "$foreground" ] && [ -n "$ioctl" ] || { echo 'would leave a daemon' >&2; exit 1; }
if [ -n "$unix" ]; then uri="nbd+unix:///$name?socket=${plain[0]}"; device=${plain[1]}
else uri="nbd://${plain[0]}:${plain[1]}/$name"; device=${plain[2]}; fi
sys=$here/sys/$(basename "$device")
if [ -e "$here/busy-$(basename "$device")" ]; then echo 'Error: Device or resource busy' >&2; exit 1; fi
point=$here/fuse-$$
mkdir "$point"
nbdfuse ${readonly:+--readonly} "$point" "$uri" &
server=$!
until [ -e "$point/nbd" ]; do kill -0 $server 2>/dev/null || { echo 'Error: Connection refused' >&2; exit 1; }; sleep 0.02; done
loop=$(losetup --find --show ${readonly:+--read-only} "$point/nbd")
undo() {
  rm -f "$sys/pid"; echo 0 > "$sys/size"
  rm -f "$device"
  # Either goes once nothing uses it any more, which we need not wait for.
  losetup --detach "$loop"
  fusermount3 -u -z "$point"
  rmdir "$point"
  exit 0
}
trap undo TERM INT
mknod "$device" b 7 "${loop#/dev/loop}"
cat "/sys/block/$(basename "$loop")/size" > "$sys/size"
echo $$ > "$sys/pid"
while :; do sleep 60 & wait $!; done
