// Rows of pixels whose classes lie together, padded to whole vectors with a number so low that its exponential is 0 and
// no class is below it.
#pragma once

#include <limits>

#include "simd.h"

namespace {

// Finite, because interpolation multiplies it by 0.
template <class E> constexpr E padding = std::numeric_limits<E>::lowest() / 4;

template <class E> int64_t padded(int64_t classes) { return (classes + lanes<E> - 1) / lanes<E> * lanes<E>; }

// Row of (width, classes) into a buffer of (width, size): buffer = w row, or buffer += w row.
template <bool add, class E> void take_row(const E* row, E w, int64_t width, int64_t classes, int64_t size, E* buffer) {
    for (int64_t x = 0; x < width; ++x, row += classes, buffer += size)
        for_vectors<E>(0, classes, [=](auto tag, int64_t c) {
            using V = decltype(tag);
            store(buffer + c, add ? load<V>(buffer + c) + w * load<V>(row + c) : w * load<V>(row + c));
        });
}

// The first element of `values` that is `largest`, or `size` where none is. `values` are whole vectors.
template <class E> int64_t find_first(const E* values, E largest, int64_t size) {
    using V = Vector<E>;
    using Integer = Element<Integers<V>>;
    Integers<V> first = broadcast<Integers<V>>(Integer(size)), at;
    for (int i = 0; i < lanes<E>; ++i) at[i] = Integer(size) + i;
    for (int64_t c = size - lanes<E>; c >= 0; c -= lanes<E>) {
        at -= Integer(lanes<E>);
        first = load<V>(values + c) == largest ? at : first;
    }
    return horizontal_min(first);
}

}  // namespace
