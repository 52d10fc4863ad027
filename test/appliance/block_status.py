# Asks BLOCK_STATUS of a whole disk, in every context named, with libnbd. Prints JSON: [offset, length, flags] by context.
# With an API's URL of a sync before the contexts: asks, has the volume synced, and asks again on the same connection.
import json
import sys
import urllib.request
import nbd

uri, *names = sys.argv[1:]
sync = names.pop(0) if names[0].startswith("http:") else None
h = nbd.NBD()
for name in names:
    h.add_meta_context(name)
h.connect_uri(uri)
for name in names:
    if not h.can_meta_context(name):
        sys.exit("the server does not have " + name)


def ask():
    size = h.get_size()
    extents = {name: [] for name in names}
    at = 0
    while at < size:
        reached = {}

        def take(name, offset, entries, error):
            for length, flags in zip(entries[0::2], entries[1::2]):
                extents[name].append([offset, length, flags])
                offset += length
            reached[name] = offset
            return 0

        h.block_status(min(size - at, 4 << 20), at, take)
        # Contexts may get to different places: go on where the slowest one is, without what the others know.
        end = min(reached.values())
        if set(reached) != set(names) or end <= at:
            sys.exit("an answer without all contexts: " + str(reached))
        for name in names:
            kept = [e for e in extents[name] if e[0] < end]
            if kept[-1][0] + kept[-1][1] > end:
                kept[-1][1] = end - kept[-1][0]
            extents[name] = kept
        at = end
    return extents


answers = [ask()]
if sync is not None:
    urllib.request.urlopen(urllib.request.Request(sync, b"{}", {"content-type": "application/json"})).read()
    answers.append(ask())
print(json.dumps(answers))

# What no well-behaved client sends is refused, and the connection lives on.
h.set_strict_mode(0)
for length, offset in [(0, 0), (512, h.get_size()), (4096, h.get_size() - 512), (513, 0), (512, 1), (0xFFFFFE00, 0)]:
    try:
        h.block_status(length, offset, lambda *a: 0)
        sys.exit("block status of %d at %d was not refused" % (length, offset))
    except nbd.Error as error:
        if error.errno in ("ESHUTDOWN", "ENOTCONN"):
            sys.exit("the connection was lost")
h.pread(512, 0)
h.shutdown()
