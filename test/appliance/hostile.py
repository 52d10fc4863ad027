# Requests that no well-behaved client sends, with libnbd's own checks switched off. Prints what went wrong.
import sys
import nbd

uri = sys.argv[1]
h = nbd.NBD()
h.connect_uri(uri)
h.set_strict_mode(0)
size = h.get_size()
wrong = []


def refused(what, act):
    try:
        act()
        wrong.append(what + ": was not refused")
    except nbd.Error as error:
        if error.errno in ("ESHUTDOWN", "ENOTCONN"):
            wrong.append(what + ": the connection was lost")


refused("read beyond the end", lambda: h.pread(4096, size))
refused("read over the end", lambda: h.pread(4096, size - 512))
refused("read that is not aligned", lambda: h.pread(512, 1))
refused("read of an odd length", lambda: h.pread(100, 0))
refused("write beyond the end", lambda: h.pwrite(b"x" * 4096, size))
refused("write that is not aligned", lambda: h.pwrite(b"x" * 512, 7))
refused("write of an odd length", lambda: h.pwrite(b"x" * 513, 0))
refused("trim over the end", lambda: h.trim(8192, size - 4096))
refused("zeroes over the end", lambda: h.zero(8192, size - 4096))
refused("zero length read", lambda: h.pread(0, 0))
refused("zero length write", lambda: h.pwrite(b"", 0))
refused("unknown flags of a read", lambda: h.pread(512, 0, flags=0x80))
refused("unknown flags of a write", lambda: h.pwrite(b"x" * 512, 0, flags=0x80))
refused("unknown flags of a flush", lambda: h.flush(flags=0x10))
refused("a write larger than any", lambda: h.pwrite(bytes(33 * 1024 * 1024), 0))
refused("cache, which is not offered", lambda: h.cache(512, 0))
refused("block status without its context", lambda: h.block_status(4096, 0, lambda *a: 0))

# The connection has lived through all of it and still works.
data = bytes(range(256)) * 16
h.pwrite(data, 4096)
h.flush()
if h.pread(4096, 4096) != data:
    wrong.append("data after the hostile requests differs")
h.shutdown()
print("\n".join(wrong))
sys.exit(1 if wrong else 0)
