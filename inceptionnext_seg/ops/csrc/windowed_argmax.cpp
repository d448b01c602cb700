// The best class of every pixel of a map that is interpolated along both axes, a row at a time.
//
//     u = sum over taps k of row y, l of column x:  weight_y[y, k] weight_x[x, l] logits[index_y[y, k], index_x[x, l]]
//     best class = the first c of the largest u_c; with `sums`, of the largest sums_c, to which softmax(u)_c is added
//
// Logits are (images, height, width, classes), classes fastest. An output row is summed vertically into a buffer of the
// logits' width, and horizontally one pixel at a time. A tap of weight 0 is no tap, and is not read.
#include <vector>

#include "class_rows.h"

namespace {

// out = the sum of `count` vectors with their weights, and its largest element.
template <int fixed, class E> E blend(const E* const* from, const E* w, int64_t count, int64_t size, E* out) {
    using V = Vector<E>;
    const int64_t n = fixed ? fixed : count;
    V largest = broadcast<V>(-std::numeric_limits<E>::infinity());
    for (int64_t c = 0; c < size; c += lanes<E>) {
        V value = w[0] * load<V>(from[0] + c);
        for (int64_t k = 1; k < n; ++k) value += w[k] * load<V>(from[k] + c);
        store(out + c, value);
        largest = value > largest ? value : largest;
    }
    return horizontal_max(largest);
}

// sums += softmax(values); then values = sums, whose largest element is returned.
template <class E> E add_softmax(E* values, E largest, int64_t classes, int64_t size, E* sums) {
    using V = Vector<E>;
    V total = V();
    for (int64_t c = 0; c < size; c += lanes<E>) {
        const V power = exponential(load<V>(values + c) - largest);
        store(values + c, power);
        total += power;
    }
    const E scale = 1 / horizontal_sum(total);
    for_vectors<E>(0, classes, [=](auto tag, int64_t c) {
        using W = decltype(tag);
        const W sum = load<W>(sums + c) + scale * load<W>(values + c);
        store(sums + c, sum);
        store(values + c, sum);
    });
    E best = -1;
    for (int64_t c = 0; c < classes; ++c) best = std::max(best, values[c]);
    return best;
}

// NaN is never the largest; where all is NaN the class is 0.
template <class E>
void argmax(const E* logits, int64_t images, int64_t height, int64_t width, int64_t classes, int64_t out_height,
            int64_t out_width, int64_t taps_y, int64_t taps_x, const int64_t* index_y, const E* weight_y,
            const int64_t* index_x, const E* weight_x, int64_t threads, E* sums, int64_t* result) {
    const int64_t size = padded<E>(classes);
#pragma omp parallel num_threads(threads)
    {
        const Buffer<E> row(width * size, padding<E>), pixel(size, 0);
        E* const values = pixel.data();
        std::vector<const E*> from(taps_x);
        std::vector<E> w(taps_x);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < images * out_height; ++task) {
            const int64_t image = task / out_height, y = task % out_height;
            bool empty = true;
            for (int64_t k = y * taps_y; k < (y + 1) * taps_y; ++k) {
                if (weight_y[k] == 0) continue;
                const E* source = logits + (image * height + index_y[k]) * width * classes;
                if (empty) take_row<false>(source, weight_y[k], width, classes, size, row.data());
                else take_row<true>(source, weight_y[k], width, classes, size, row.data());
                empty = false;
            }
            for (int64_t x = 0; x < out_width; ++x) {
                int64_t count = 0;
                for (int64_t l = x * taps_x; l < (x + 1) * taps_x; ++l) {
                    if (weight_x[l] == 0) continue;
                    from[count] = row.data() + index_x[l] * size;
                    w[count++] = weight_x[l];
                }
                E largest = count == 2   ? blend<2>(from.data(), w.data(), count, size, values)
                            : count == 4 ? blend<4>(from.data(), w.data(), count, size, values)
                                         : blend<0>(from.data(), w.data(), count, size, values);
                const int64_t at = task * out_width + x;
                if (sums) largest = add_softmax(values, largest, classes, size, sums + at * classes);
                const int64_t best = find_first(values, largest, size);
                result[at] = best < classes ? best : 0;
            }
        }
    }
}

}  // namespace

#define WINDOWED(NAME, E)                                                                                              \
    extern "C" void windowed_argmax_##NAME(                                                                            \
        const E* logits, int64_t images, int64_t height, int64_t width, int64_t classes, int64_t out_height,           \
        int64_t out_width, int64_t taps_y, int64_t taps_x, const int64_t* index_y, const E* weight_y,                  \
        const int64_t* index_x, const E* weight_x, int64_t threads, E* sums, int64_t* result) {                        \
        argmax(logits, images, height, width, classes, out_height, out_width, taps_y, taps_x, index_y, weight_y,       \
               index_x, weight_x, threads, sums, result);                                                              \
    }
WINDOWED(float, float)
WINDOWED(double, double)
