// What follows a bilinear interpolation, in one pass with it: cross-entropy and its gradient, or the best class.
//
//     u = interpolated logits of a pixel,  y = its label,  h = hard[y],  e_c = even[c],  S = h + sum of e
//     loss = S log(sum of exp(u)) - h u_y - sum of e_c u_c
//     dloss / du_c = S exp(u_c) / sum of exp(u) - e_c - (h where c = y)
//     best class = the first c of the largest u_c
//
// Logits are (images, height, width, classes), classes fastest. An output row is interpolated vertically into a buffer
// of low-resolution width, and horizontally one pixel at a time, so that no more than a row exists at any time.
#include <vector>

#include "class_rows.h"

namespace {

// out = wa a + wb b, and its largest element. `out` may be a or b.
template <class E> E blend(const E* a, const E* b, E wa, E wb, int64_t size, E* out) {
    using V = Vector<E>;
    V largest = broadcast<V>(-std::numeric_limits<E>::infinity());
    for (int64_t c = 0; c < size; c += lanes<E>) {
        const V value = wa * load<V>(a + c) + wb * load<V>(b + c);
        store(out + c, value);
        largest = value > largest ? value : largest;
    }
    return horizontal_max(largest);
}

struct alignas(64) Sums {  // a cache line each: threads add to neighbours at the same time
    double loss = 0, weight = 0, pixels = 0, correct = 0, invalid = 0;
};

template <class E> struct Loss {
    const E* logits;
    const int64_t* labels;  // (images, out_height, out_width)
    int64_t images, height, width, classes, out_height, out_width;
    const int64_t *start_y, *start_x;  // for each output row and column, the first of its two input rows and columns
    const E *weight_y, *weight_x;      // and the weights of the two; where the input has but one, the second is 0
    const E *weight, *hard, *even;     // (classes), of the formula; without label smoothing `even` is null
    int64_t ignore_index;
    E* gradient;  // like logits, zeros; or null

    // One output row. `row` and `row_gradient` are (max(width, 2), size), `pixel` and `smooth` (size).
    template <bool smoothing>
    void run_row(const E* row, const int64_t* label, E* row_gradient, E* pixel, const E* smooth, E smooth_sum,
                 Sums& sums) const {
        using V = Vector<E>;
        const int64_t size = padded<E>(classes);
        for (int64_t x = 0; x < out_width; ++x) {
            const int64_t y = label[x];
            if (y == ignore_index) continue;
            ++sums.pixels;
            if (y < 0 || y >= classes) {
                ++sums.invalid;
                continue;
            }
            const int64_t left = start_x[x] * size;
            const E wa = weight_x[2 * x], wb = weight_x[2 * x + 1];
            const E largest = blend(row + left, row + left + size, wa, wb, size, pixel);
            const E target = pixel[y] - largest;
            // Of equal logits the first counts as the prediction, as in argmax.
            if (target == 0) sums.correct += std::find(pixel, pixel + y, largest) == pixel + y;

            V powers = V(), smooth_losses = V();
            for (int64_t c = 0; c < size; c += lanes<E>) {
                const V difference = load<V>(pixel + c) - largest, power = exponential(difference);
                if (smoothing) smooth_losses -= load<V>(smooth + c) * difference;
                store(pixel + c, power);
                powers += power;
            }
            const E sum = horizontal_sum(powers), log_sum = std::log(sum);
            sums.weight += weight[y];
            sums.loss += hard[y] * (log_sum - target);
            if (smoothing) sums.loss += smooth_sum * log_sum + horizontal_sum(smooth_losses);

            if (!row_gradient) continue;
            const E scale = (hard[y] + smooth_sum) / sum;
            E* ga = row_gradient + left;
            E* gb = ga + size;
            for (int64_t c = 0; c < size; c += lanes<E>) {
                V g = scale * load<V>(pixel + c);
                if (smoothing) g -= load<V>(smooth + c);
                store(ga + c, load<V>(ga + c) + wa * g);
                store(gb + c, load<V>(gb + c) + wb * g);
            }
            ga[y] -= wa * hard[y];
            gb[y] -= wb * hard[y];
        }
    }

    void run(int64_t threads, double* result) const {
        const int64_t size = padded<E>(classes), row_size = std::max<int64_t>(width, 2) * size;
        const int64_t next = height > 1 ? width * classes : 0;
        // Output rows between the same two input rows are one task; rows that begin at `above` are [first, first + 1).
        std::vector<int64_t> first(height + 1, out_height);
        for (int64_t y = out_height - 1; y >= 0; --y) first[start_y[y]] = y;
        for (int64_t above = height - 1; above >= 0; --above) first[above] = std::min(first[above], first[above + 1]);
        std::vector<Sums> sums(images * height);

#pragma omp parallel num_threads(threads)
        {
            const Buffer<E> row(row_size, padding<E>), row_gradient(row_size, 0), pixel(size, 0), smooth(size, 0);
            E smooth_sum = 0;
            if (even) {
                std::copy(even, even + classes, smooth.data());
                for (int64_t c = 0; c < classes; ++c) smooth_sum += even[c];
            }
            // A task adds to the gradient of its two input rows: even tasks never meet each other, nor do odd ones, and
            // each input row gets its sums in the same order whatever the number of threads.
            for (int64_t parity = 0; parity < 2; ++parity) {
                const int64_t tasks = (height + 1 - parity) / 2;
#pragma omp for schedule(dynamic)
                for (int64_t task = 0; task < images * tasks; ++task) {
                    const int64_t image = task / tasks, above = task % tasks * 2 + parity;
                    const int64_t offset = (image * height + above) * width * classes;
                    for (int64_t y = first[above]; y < first[above + 1]; ++y) {
                        const E *w = weight_y + 2 * y, *from = logits + offset;
                        take_row<false>(from, w[0], width, classes, size, row.data());
                        take_row<true>(from + next, w[1], width, classes, size, row.data());
                        if (gradient) std::fill_n(row_gradient.data(), row_size, E(0));
                        const auto step = even ? &Loss::run_row<true> : &Loss::run_row<false>;
                        (this->*step)(row.data(), labels + (image * out_height + y) * out_width,
                                      gradient ? row_gradient.data() : nullptr, pixel.data(), smooth.data(), smooth_sum,
                                      sums[image * height + above]);
                        if (gradient) give_row(row_gradient.data(), w[0], size, gradient + offset);
                        if (gradient && next) give_row(row_gradient.data(), w[1], size, gradient + offset + next);
                    }
                }
            }
        }
        std::fill_n(result, 5, 0.);
        for (const Sums& s : sums) {
            const double parts[] = {s.loss, s.weight, s.pixels, s.correct, s.invalid};
            for (int i = 0; i < 5; ++i) result[i] += parts[i];
        }
    }

    // take_row's transpose: row += w buffer.
    void give_row(const E* buffer, E w, int64_t size, E* row) const {
        for (int64_t x = 0; x < width; ++x, row += classes, buffer += size)
            for_vectors<E>(0, classes, [=](auto tag, int64_t c) {
                using V = decltype(tag);
                store(row + c, load<V>(row + c) + w * load<V>(buffer + c));
            });
    }
};

// The class of the largest interpolated logit, the first of equal ones. Each output row is a sum of `taps_y` input rows
// from start_y on, each column of `taps_x`. NaN is never the largest; where all is NaN the class is 0.
template <class E>
void argmax(const E* logits, int64_t images, int64_t height, int64_t width, int64_t classes, int64_t out_height,
            int64_t out_width, int64_t taps_y, int64_t taps_x, const int64_t* start_y, const E* weight_y,
            const int64_t* start_x, const E* weight_x, int64_t threads, int64_t* result) {
    const int64_t size = padded<E>(classes);
#pragma omp parallel num_threads(threads)
    {
        const Buffer<E> row(width * size, padding<E>), pixel(size, 0);
        E* const values = pixel.data();
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < images * out_height; ++task) {
            const int64_t image = task / out_height, y = task % out_height;
            const E* from = logits + (image * height + start_y[y]) * width * classes;
            take_row<false>(from, weight_y[y * taps_y], width, classes, size, row.data());
            for (int64_t k = 1; k < taps_y; ++k)
                take_row<true>(from + k * width * classes, weight_y[y * taps_y + k], width, classes, size, row.data());
            for (int64_t x = 0; x < out_width; ++x) {
                const E* a = row.data() + start_x[x] * size;
                const E* w = weight_x + x * taps_x;
                E largest = taps_x == 1 ? blend(a, a, w[0] / 2, w[0] / 2, size, values)
                                        : blend(a, a + size, w[0], w[1], size, values);
                for (int64_t k = 2; k < taps_x; ++k) largest = blend(a + k * size, values, w[k], E(1), size, values);
                const int64_t best = find_first(values, largest, size);
                result[task * out_width + x] = best < classes ? best : 0;
            }
        }
    }
}

}  // namespace

#define UPSAMPLED(NAME, E)                                                                                             \
    extern "C" void upsampled_loss_##NAME(                                                                             \
        const E* logits, const int64_t* labels, int64_t images, int64_t height, int64_t width, int64_t classes,        \
        int64_t out_height, int64_t out_width, const int64_t* start_y, const E* weight_y, const int64_t* start_x,      \
        const E* weight_x, const E* weight, const E* hard, const E* even, int64_t ignore_index, int64_t threads,       \
        E* gradient, double* result) {                                                                                 \
        const Loss<E> loss{logits,  labels,   images,   height, width, classes, out_height,   out_width, start_y,      \
                           start_x, weight_y, weight_x, weight, hard,  even,    ignore_index, gradient};               \
        loss.run(threads, result);                                                                                     \
    }                                                                                                                  \
    extern "C" void upsampled_argmax_##NAME(                                                                           \
        const E* logits, int64_t images, int64_t height, int64_t width, int64_t classes, int64_t out_height,           \
        int64_t out_width, int64_t taps_y, int64_t taps_x, const int64_t* start_y, const E* weight_y,                  \
        const int64_t* start_x, const E* weight_x, int64_t threads, int64_t* result) {                                 \
        argmax(logits, images, height, width, classes, out_height, out_width, taps_y, taps_x, start_y, weight_y,       \
               start_x, weight_x, threads, result);                                                                    \
    }
UPSAMPLED(float, float)
UPSAMPLED(double, double)
