"""The page's conventions: bytes, varints, names, and sections of bits, in plain Python."""


class Refused(Exception):  # noqa: N818
    """The page does not allow these bytes."""


def check(condition, complaint):
    if not condition:
        raise Refused(complaint)


ENDINGS = [b"", b".weight", b".bias", b".running_mean", b".running_var", b".num_batches_tracked", b"weight", b"bias"]
ENDINGS += [b"conv1.weight", b"conv2.weight", b"bn1.weight", b"bn2.weight"]
ENDINGS += [b"norm.weight", b"LayerNorm.weight", b"dense.weight", b"_proj.weight"]


class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        check(n <= len(self.data) - self.at, "a length runs past the end")
        self.at += n
        return self.data[self.at - n : self.at]

    def peek(self):
        return self.data[self.at] if self.at < len(self.data) else None

    def rest(self):
        return self.take(len(self.data) - self.at)

    def uint(self, n):
        return int.from_bytes(self.take(n), "little")

    def varint(self):
        value = 0
        for i in range(9):
            byte = self.uint(1)
            value |= (byte & 127) << 7 * i
            if byte < 128:
                check(byte or not i, "a varint is longer than it need be")
                return value
        raise Refused("a varint is longer than nine bytes")

    def name(self, previous):
        shared, kind = self.varint(), self.varint()
        check(shared <= len(previous), "a name's length")
        name = previous[:shared] + self.take(kind // 16) + ENDINGS[kind % 16]
        check(1 <= len(name) <= 1024, "a name's length")
        check(name.decode(errors="replace").encode() == name, "a name is not UTF-8")
        return name

    def names(self):
        """Names, each with a varint."""
        found, previous = {}, b""
        for _ in range(self.varint()):
            previous = self.name(previous)
            check(previous.decode() not in found, "a name twice")
            found[previous.decode()] = self.varint()
        return found


class Bits:  # a section of them, which `close` ends at a whole byte
    def __init__(self, source):
        self.source, self.byte, self.left = source, 0, 0

    def bit(self):
        if not self.left:
            self.byte, self.left = self.source.uint(1), 8
        self.left -= 1
        return self.byte >> self.left & 1

    def number(self, n, value=0):
        for _ in range(n):
            value = value << 1 | self.bit()
        return value

    def run(self, of):
        n = 0
        while self.bit() == of:
            n += 1
        return n

    def close(self):
        check(self.byte & (1 << self.left) - 1 == 0, "padding is not zero")


def unzigzag(z):
    return -(z + 1) // 2 if z % 2 else z // 2
