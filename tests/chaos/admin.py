"""Administration of a cluster, as docs/design/wire-protocol.md has it: for the rows that change
members and hand leadership over."""

import wire

MEMBERS, CHANGE, TRANSFER = 160, 162, 164
ADD, PROMOTE, DEMOTE, REMOVE, PRIORITY = 1, 2, 3, 4, 5
OK, NO_LEADER, BUSY, MOVING, LAGS, NO_QUORUM, UNKNOWN_NODE, EXISTS, TOO_MANY, BAD_REQUEST, \
    UNCERTAIN, REFUSED = range(12)
PASSING = (NO_LEADER, BUSY, MOVING, LAGS)  # The same request may succeed a moment later.


def change(node, action, target, timeout=8.0):
    """Ask a node to change what `target` is. Returns (code, sentence); code None: no answer."""
    payload = (wire.u8(action) + wire.u8(0) + wire.u64(target.number) +
               wire.u32(1 if action == ADD else 0) +
               wire.blob(target.address if action == ADD else ""))
    return _ask(node, CHANGE, payload, timeout)


def transfer(node, target=0, timeout=8.0):
    """Ask for the leadership to go to a node; 0: whichever is furthest."""
    return _ask(node, TRANSFER, wire.u64(target), timeout)


def voters(node):
    """The numbers of those that vote, as the leader says; None: no answer."""
    try:
        with node.connect(timeout=5.0) as connection:
            reader = connection.ask(MEMBERS)
            code = reader.u8()
            reader.text()
            if code != OK:
                return None
            for _ in range(4):
                reader.u64()
            reader.flag()
            found = []
            for _ in range(reader.u8()):
                number, _, role = reader.u64(), reader.text(), reader.u8()
                reader.flag()
                reader.u32()
                reader.u64()
                reader.flag()
                reader.u64()
                reader.u64()
                reader.u32()
                if role == wire.VOTER:
                    found.append(number)
            return found
    except (OSError, wire.Closed):
        return None


def _ask(node, kind, payload, timeout):
    try:
        with node.connect(timeout=timeout) as connection:
            reader = connection.ask(kind, payload)
            return reader.u8(), reader.text()
    except (OSError, wire.Closed) as error:
        return None, str(error)
