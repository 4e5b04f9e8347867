"""Integer streams in plain Python, written from docs/format.md alone: a function for each kind, in KINDS."""

import math
from bisect import bisect_left
from collections import defaultdict
from itertools import accumulate
from typing import NamedTuple

from tests.file.small_bytes import Bits, Bytes, check, unzigzag


class Layout(NamedTuple):
    """How many integers a stream has, in how many rows, and the shape of the tensor's kernel."""

    n: int
    n_rows: int = 1
    kernel: tuple = ()

    @property
    def n_columns(self):
        return self.n // self.n_rows

    @property
    def n_kernel(self):
        return math.prod(self.kernel)

    @property
    def n_line(self):
        return self.kernel[-1] if self.n_kernel > 1 else self.n_columns


def integers(source, layout, may_be=("adaptive", "predicted", "static")):
    """The integers of the stream that comes next; `may_be`: the kinds that the page allows here."""
    kind = KINDS.get(source.peek(), static)
    check(kind.__name__ in may_be, "a stream of another kind")
    return kind(source, layout)


def predicted(source, layout):
    _, shift = source.take(2)
    m = layout.n_kernel if layout.n_kernel > 1 else layout.n_columns
    check(shift <= 10 and 2 <= m <= 1024 and m < layout.n // m, "a shift, or lines")
    section = Bytes(source.take(source.varint()))
    coefficients = integers(section, Layout(m * (m + 1) // 2), ("adaptive", "static"))
    check(not section.rest(), "bytes after the coefficients")
    check(max(map(abs, coefficients)) <= 2047, "a coefficient")
    triangle = iter(coefficients[m:])
    per_tensor = [(b, [next(triangle) for _ in range(j)]) for j, b in enumerate(coefficients[:m])]
    residuals, q = iter(integers(source, layout, ("adaptive", "static"))), []
    for _ in range(layout.n // m):
        line = []
        for b, c in per_tensor:
            total = b + sum(x * y for x, y in zip(c, line, strict=True)) + (1 << shift) // 2
            line.append(next(residuals) + (total >> shift))
        q += line
    check(-(2**31) <= min(q) <= max(q) < 2**31, "an integer of more than 32 bits")
    return q


def adaptive(source, layout):
    check(source.uint(1) == 0x2F and layout.n <= 1 << 20, "an adaptive stream")
    decisions, q = Decisions(source), []
    in_columns, in_row = [0] * layout.n_columns, 0
    for at in range(layout.n):
        j = at % layout.n_columns
        in_row = in_row if j else 0
        contexts = neighbourhood(q, layout, in_row, in_columns[j])
        length = 0
        while length < 32 and decisions.by_votes(contexts, length):
            length += 1
        value = lower_bits(decisions, length)
        q.append(value * sign(decisions, q, layout) if length else 0)
        check(-(2**31) <= q[-1] < 2**31, "an integer of more than 32 bits")
        in_row += magnitude(q[-1])
        in_columns[j] += magnitude(q[-1])
    decisions.close()
    return q


def neighbourhood(q, layout, in_row, in_column):
    """The seven contexts' values; the sums are of magnitudes in the next integer's row and column."""
    i, j = divmod(len(q), layout.n_columns)
    left, second = magnitude(q[-1]) if j else 0, magnitude(q[-2]) if j > 1 else 0
    above = magnitude(q[-layout.n_columns]) if i else 0
    channel = magnitude(q[-layout.n_kernel]) if j >= layout.n_kernel else 0
    over = magnitude(q[-layout.n_line]) if j % layout.n_kernel >= layout.n_line else 0
    row, column = 512 * in_row // (j + 4), 512 * in_column // (i + 1)
    row_size, column_size = size(row) if j >= 4 else 31, size(column) if i else 31
    return (
        0,
        row_size,
        column_size,
        size(row + column),
        (min((2 * left + second + above + 2 * over).bit_length(), 15), j % layout.n_kernel % 16),
        (row_size, column_size),
        tuple(min(x, 3) for x in (left, above, channel, over)),
    )


def magnitude(x):
    return min(abs(x), 1 << 20)


def size(x):
    n = x.bit_length()
    return n if n <= 1 else min(2 * n - 2 + (x >> n - 2 & 1), 30)


def lower_bits(decisions, length):
    """The magnitude that has so many bits."""
    if not length:
        return 0
    value = 1
    for place in range(2, length + 1):
        if place == 2:
            bit = decisions.by_counter(("second", length))
        elif place == 3:
            bit = decisions.by_counter(("third", length, value & 1))
        else:
            bit = decisions.next(32768)
        value = value << 1 | bit
    return value


def sign(decisions, q, layout):
    """1 or -1, for the integer that comes next."""
    j = len(q) % layout.n_columns
    place = j % layout.n_kernel if layout.n_kernel > 1 else j
    before = q[-1] if place % layout.n_line else 0
    over = q[-layout.n_line] if place >= layout.n_line else 0
    leaning = 3 * ((before > 0) - (before < 0)) + (over > 0) - (over < 0)
    likely = 1 if leaning > 0 else -1
    return likely if decisions.by_counter(("sign", abs(leaning))) else -likely


class Decisions:
    """Binary decisions, decoded from a number, and what is learnt from them."""

    def __init__(self, source):
        self.content, self.at = source.rest(), 0
        self.low, self.high = 0, LARGEST
        self.counters = defaultdict(Counter)
        self.weights = defaultdict(lambda: [13107] * 7)

    def next(self, p):
        window = self.content[self.at : self.at + 6]
        middle = self.low + (self.high - self.low) // 65536 * (65536 - p)
        decision = int(int.from_bytes(window.ljust(6, b"\0"), "big") > middle)
        self.low, self.high = (middle + 1, self.high) if decision else (self.low, middle)
        while self.low >> 40 == self.high >> 40:
            self.low, self.high = self.low << 8 & LARGEST, self.high << 8 & LARGEST | 255
            self.at += 1
        return decision

    def close(self):
        """The bytes that are left are the fewest whose number is in the interval, and of those the lowest."""
        up = {n: -(-self.low // 256 ** (6 - n)) * 256 ** (6 - n) for n in range(7)}
        n = min(n for n, number in up.items() if number <= self.high)
        check(self.content[self.at :] == up[n].to_bytes(6, "big")[:n], "the last bytes")
        check(self.at <= len(self.content), "too few bytes")

    def by_counter(self, which):
        counter = self.counters[which]
        decision = self.next(min(max(counter.v // 64, 1), 65535))
        counter.learn(decision)
        return decision

    def by_votes(self, contexts, length):
        counters = [self.counters[c, value, length] for c, value in enumerate(contexts)]
        votes = [logit(counter.v // 64) * (counter.t + 1) // (counter.t + 3) for counter in counters]
        weights = self.weights[length]
        p = logistic(sum(w * a for w, a in zip(weights, votes, strict=True)) // 65536)
        decision = self.next(p)
        e = 4 * (65536 * decision - p)
        self.weights[length] = [w + (a * e + 262144) // 524288 for w, a in zip(weights, votes, strict=True)]
        for counter in counters:
            counter.learn(decision)
        return decision


LARGEST = (1 << 48) - 1


class Counter:
    def __init__(self):
        self.v, self.t = 1 << 21, 0

    def learn(self, decision):
        self.v += 2 * ((decision << 22) - self.v) // (2 * self.t + 3)
        self.t = min(self.t + 1, 255)


def logistic(x):
    k, f = divmod(min(max(x, -3071), 3071) + 3072, 64)
    return min(max((G[k] * (64 - f) + G[k + 1] * f + 32) // 64, 1), 65535)


def logit(p):
    return bisect_left(LOGISTIC, p) - 3071


G = [round(65536 / (1 + math.exp(-(k - 48) / 4))) for k in range(97)]
LOGISTIC = [logistic(x) for x in range(-3071, 3072)]


def static(source, layout, is_labels=False, may_be_of=None):
    """`is_labels`: the stream of row classes or of drops, inside another; `may_be_of`: a plane's integers."""
    lanes, shape, orders = source.take(3)
    n_classes, precision, resolution = (lanes >> 4) + 1, shape & 15, 1 << (shape >> 4 & 3)
    by_formula, by_columns, order = shape & 64, shape & 128, orders >> 5
    check(lanes & 15 <= 8 <= precision and not (is_labels and n_classes > 1), "a stream's header")
    check(not (by_formula and resolution > 1) and not (by_columns and n_classes == 1), "a stream's header")
    lo, width = unzigzag(source.varint()), source.varint() + 1
    check(width < 1 << precision and -(2**31) <= lo <= 2**31 - width, "a table's range")
    span = range(lo, lo + width)
    if by_formula:
        check(width <= 4096, "a wide table by a formula")
        weights = list(weights_by_formula(source, n_classes, order, span))
    else:
        weights = weights_by_levels(source, n_classes, order, width, resolution)
    tables = [frequencies(ws, 1 << precision) for ws in weights]
    check(not is_labels or not tables[0][-1], "labels that may escape")
    if may_be_of:
        check(not by_columns and not any(table[-1] for table in tables), "a plane that may escape or drops")
        check(span[0] in may_be_of and span[-1] in may_be_of, "a plane's table")
    rows, drops = [0] * layout.n_rows, [0] * layout.n_columns
    if n_classes > 1:
        rows = labels(source, layout.n_rows, n_classes)
    if by_columns:
        drops = labels(source, layout.n_columns, n_classes)
    symbols = list(decoded(source, 1 << (lanes & 15), tables, (max(0, r - d) for r in rows for d in drops)))
    bits = Bits(source)
    q = [span[s] if s < width else escape(bits, orders & 31, span) for s in symbols]
    bits.close()
    return q


KINDS = {0x2F: adaptive, 0x1F: predicted}


def labels(source, n, n_classes):
    found = static(source, Layout(n), is_labels=True)
    check(set(found) <= set(range(n_classes)), "the class of a row, or the drop of a column")
    return found


def rice(bits, order):
    return unzigzag(bits.number(order, bits.run(1)))


T = (65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194, 131072)


def weights_by_levels(source, n_classes, order, width, resolution):
    bits, weights = Bits(source), []
    for _ in range(n_classes):
        _, *levels = accumulate((rice(bits, order) for _ in range(width + 1)), initial=2 * resolution)
        check(0 <= min(levels) <= max(levels) <= 16 * resolution + 1, "a level")
        octaves = [divmod(level - 1, resolution) for level in levels]
        weights.append([T[part * 8 // resolution] << octave if octave >= 0 else 0 for octave, part in octaves])
    bits.close()
    return weights


def weights_by_formula(source, n_classes, order, span):
    p, c = source.uint(1), unzigzag(source.varint())
    h, e = source.uint(1), source.uint(1)
    bits = Bits(source)
    spikes = list(accumulate(rice(bits, order) for _ in range(n_classes)))
    bits.close()
    check(1 <= p <= 63 and -1024 <= c <= 1024 and e <= 240, "a formula's parameters")
    check(-112 <= min(spikes) <= max(spikes) <= 112, "a spike")
    logs = {x: log2(abs(x)) for x in span if x}
    for k, spike in enumerate(spikes):
        costs = {x: exp2(min(p * (log - 16 * (c + h * k)) // 8 + 2048, 3584)) for x, log in logs.items()}
        costs[0] = -32 * spike
        yield [max(1, exp2(7680 - costs[x])) for x in span] + [exp2(32 * e) if e else 0]


def exp2(x):
    if x < 0:
        return 0
    u, part = divmod(x, 256)
    v, w = divmod(part, 32)
    return (T[v] + (T[v + 1] - T[v]) * w // 32 << u) >> 16


def log2(x):
    n = x.bit_length() - 1
    y = (x << 16) >> n
    for _ in range(8):
        y, n = y * y >> 16, 2 * n
        if y >= 1 << 17:
            y, n = y >> 1, n + 1
    return n


def frequencies(weights, whole):
    total = sum(weights)
    check(total, "an empty table")
    found = [max(1, (w * whole + total // 2) // total) if w else 0 for w in weights]
    largest = found.index(max(found))
    found[largest] += whole - sum(found)
    check(found[largest] > 0, "an overfull table")
    return found


def decoded(source, n_lanes, tables, classes):
    """The symbols, one for each of `classes`, which says whose table it is of."""
    n_words = source.varint()
    states = [source.uint(4) for _ in range(n_lanes)]
    words = Bytes(source.take(2 * n_words))
    check(min(states) >= 1 << 16, "a lane's state")
    slots = [[(s, f, bias) for s, f in enumerate(table) for bias in range(f)] for table in tables]
    for i, c in enumerate(classes):
        rest, slot = divmod(states[i % n_lanes], len(slots[c]))
        symbol, frequency, bias = slots[c][slot]
        x = frequency * rest + bias
        states[i % n_lanes] = x if x >= 1 << 16 else x << 16 | words.uint(2)
        yield symbol
    check(set(states) == {1 << 16} and not words.rest(), "the words' end")


def escape(bits, order, span):
    n_zeros = bits.run(0)
    check(n_zeros <= 34 - order, "an escape too long")
    u = bits.number(n_zeros + order, 1) - (1 << order)
    value = span.start - 1 - (u - 1) // 2 if u % 2 else span.stop + u // 2
    check(-(2**31) <= value < 2**31, "an integer of more than 32 bits")
    return value
