// A 3x3 convolution of an upsampled map, after its nine taps, 1x1 convolutions, have run at the map's own resolution:
//
//     out[Y][X] (+)= sum over taps (i, j) of  up(z[., ., i, j])[Y + i - 1][X + j - 1]
//
// interpolates, shifts and adds. NHWC memory; z is [h][w][9][channels], the taps row by row.
//
// Interpolation and shift are linear along each axis. An axis comes as a table: position Y of the output takes, of tap
// i, the rows index[6 Y + 2 i], index[6 Y + 2 i + 1] with those weights, zero where the tap reaches into the padding.
#include <vector>

#include "simd.h"

namespace {

constexpr int64_t strip = 128;  // channels at a time: the rows that neighbours share then stay in the cache

template <class E> struct Axis {
    const int32_t* index;
    const E* weight;
};

template <class E>
void add_taps(const E* z, E* out, int64_t w, int64_t height, int64_t width, int64_t channels, Axis<E> down,
              Axis<E> across, bool add, int threads) {
    const int64_t strips = (channels + strip - 1) / strip, rows = 16, chunks = (height + rows - 1) / rows;
#pragma omp parallel for collapse(2) num_threads(threads) schedule(dynamic)
    for (int64_t s = 0; s < strips; ++s)
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            const int64_t base = s * strip, count = std::min(strip, channels - base);
            std::vector<E> row(w * 3 * strip);
            for (int64_t y = chunk * rows; y < std::min(height, (chunk + 1) * rows); ++y) {
                const E* r[6];
                for (int k = 0; k < 6; ++k)
                    r[k] = z + (int64_t(down.index[6 * y + k]) * w * 9 + k / 2 * 3) * channels + base;
                const E* weight = down.weight + 6 * y;
                for (int64_t x = 0; x < w; ++x)
                    for (int64_t j = 0; j < 3; ++j) {
                        const int64_t at = (x * 9 + j) * channels;
                        E* to = row.data() + (x * 3 + j) * strip;
                        for_vectors<E>(0, count, [&](auto tag, int64_t c) {
                            using V = decltype(tag);
                            V sum = weight[0] * load<V>(r[0] + at + c);
                            for (int k = 1; k < 6; ++k) sum += weight[k] * load<V>(r[k] + at + c);
                            store(to + c, sum);
                        });
                    }
                for (int64_t x = 0; x < width; ++x) {
                    const E* from[6];
                    for (int k = 0; k < 6; ++k) from[k] = row.data() + (across.index[6 * x + k] * 3 + k / 2) * strip;
                    const E* weight = across.weight + 6 * x;
                    E* to = out + (y * width + x) * channels + base;
                    for_vectors<E>(0, count, [&](auto tag, int64_t c) {
                        using V = decltype(tag);
                        V sum = weight[0] * load<V>(from[0] + c);
                        if (add) sum += load<V>(to + c);
                        for (int k = 1; k < 6; ++k) sum += weight[k] * load<V>(from[k] + c);
                        store(to + c, sum);
                    });
                }
            }
        }
}

// For row y of z, the table's rows that reach it: entries first[y] .. first[y + 1] of (6 Y + k) and their weights.
template <class T, class E = Compute<T>>
void taps_gradient(const T* grad, E* z, int64_t h, int64_t w, int64_t height, int64_t width, int64_t channels,
                   Axis<E> down, Axis<E> across, const int32_t* first, const int32_t* entries, int threads) {
    const int64_t strips = (channels + strip - 1) / strip;
    const int64_t scale = std::max<int64_t>(1, height / h), rows = std::max<int64_t>(1, 16 / scale);
    const int64_t chunks = (h + rows - 1) / rows;
#pragma omp parallel for collapse(2) num_threads(threads) schedule(dynamic)
    for (int64_t s = 0; s < strips; ++s)
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            const int64_t base = s * strip, count = std::min(strip, channels - base);
            const int64_t begin = chunk * rows, end = std::min(h, begin + rows);
            int64_t low = height, high = 0;
            for (int64_t e = first[begin]; e < first[end]; ++e) {
                low = std::min<int64_t>(low, entries[e] / 6);
                high = std::max<int64_t>(high, entries[e] / 6 + 1);
            }
            const int64_t line = w * 3 * strip;
            std::vector<E> reduced(std::max<int64_t>(0, high - low) * line, E(0));
            for (int64_t y = low; y < high; ++y)
                for (int64_t x = 0; x < width; ++x) {
                    E* to[6];
                    for (int k = 0; k < 6; ++k)
                        to[k] = reduced.data() + (y - low) * line + (across.index[6 * x + k] * 3 + k / 2) * strip;
                    const E* weight = across.weight + 6 * x;
                    const T* from = grad + (y * width + x) * channels + base;
                    for_vectors<E>(0, count, [&](auto tag, int64_t c) {
                        using V = decltype(tag);
                        const V g = load<V>(from + c);
                        for (int k = 0; k < 6; ++k) store(to[k] + c, load<V>(to[k] + c) + weight[k] * g);
                    });
                }
            for (int64_t y = begin; y < end; ++y)
                for (int64_t x = 0; x < w; ++x)
                    for (int64_t tap = 0; tap < 9; ++tap) {
                        const E* from = reduced.data() + (x * 3 + tap % 3) * strip;
                        E* to = z + ((y * w + x) * 9 + tap) * channels + base;
                        for_vectors<E>(0, count, [&](auto tag, int64_t c) {
                            using V = decltype(tag);
                            V sum = V();
                            for (int64_t e = first[y]; e < first[y + 1]; ++e)
                                if (entries[e] % 6 / 2 == tap / 3)
                                    sum += down.weight[entries[e]] * load<V>(from + (entries[e] / 6 - low) * line + c);
                            store(to + c, sum);
                        });
                    }
        }
}

}  // namespace

#define FORWARD(suffix, E)                                                                                             \
    extern "C" void forward_##suffix(const E* z, E* out, int64_t /* h */, int64_t w, int64_t height, int64_t width,    \
                                     int64_t channels, const int32_t* down, const E* down_weight,                      \
                                     const int32_t* across, const E* across_weight, int64_t add, int64_t threads) {    \
        add_taps<E>(z, out, w, height, width, channels, {down, down_weight}, {across, across_weight}, add,             \
                    int(threads));                                                                                     \
    }
#define BACKWARD(suffix, T)                                                                                            \
    extern "C" void backward_##suffix(const T* grad, Compute<T>* z, int64_t h, int64_t w, int64_t height,              \
                                      int64_t width, int64_t channels, const int32_t* down,                            \
                                      const Compute<T>* down_weight, const int32_t* across,                            \
                                      const Compute<T>* across_weight, const int32_t* first, const int32_t* entries,   \
                                      int64_t threads) {                                                               \
        taps_gradient<T>(grad, z, h, w, height, width, channels, {down, down_weight}, {across, across_weight}, first,  \
                         entries, int(threads));                                                                       \
    }
FORWARD(f32, float)
FORWARD(f64, double)
BACKWARD(f32, float)
BACKWARD(bf16, bf16)
BACKWARD(f64, double)
