// Winograd's minimal filtering F(4x4, 3x3) on NHWC memory:
//
//     y = A^T [(G g G^T) * (B^T d B)] A
//
// for each tile of 4x4 outputs y and its 6x6 inputs d, with B, G, A the matrices below. The transforms are here; the
// products between them, summed over the input channels, are the caller's.
//
// Points 0, +-a, +-b, infinity with a = sqrt(1/2), b = sqrt(2): (x^2 - a^2)(x^2 - b^2) = x^4 - 5/2 x^2 + 1, whose small
// coefficients keep the error near that of a direct convolution. Gradients are the transposed transforms.
//
// Tiles are numbered by (image, tile row, tile column). A call handles the tile rows [first, first + rows) of all
// images in sequence; a tile buffer is [36][plane], plane >= rows * tiles_x * channels, the channels contiguous.
#include "simd.h"

namespace {

template <class E> struct Point {
    static constexpr E a = E(0.70710678118654752440), b = E(1.41421356237309504880);
};

// B^T d: six inputs at stride s to six at stride t.
template <class E, class V> inline void input_1d(const V* d, int s, V* r, int t) {
    const V p = d[4 * s] - E(2) * d[2 * s], q = Point<E>::a * (d[3 * s] - E(2) * d[s]);
    const V u = d[4 * s] - E(.5) * d[2 * s], v = Point<E>::b * (d[3 * s] - E(.5) * d[s]);
    r[0] = d[0] - E(2.5) * d[2 * s] + d[4 * s];
    r[t] = p + q;
    r[2 * t] = p - q;
    r[3 * t] = u + v;
    r[4 * t] = u - v;
    r[5 * t] = d[s] - E(2.5) * d[3 * s] + d[5 * s];
}

// B v, its transpose: six to six.
template <class E, class V> inline void input_1d_transposed(const V* r, int t, V* d, int s) {
    const V p = r[t] + r[2 * t], q = Point<E>::a * (r[t] - r[2 * t]);
    const V u = r[3 * t] + r[4 * t], v = Point<E>::b * (r[3 * t] - r[4 * t]);
    d[0] = r[0];
    d[s] = r[5 * t] - E(2) * q - E(.5) * v;
    d[2 * s] = E(-2.5) * r[0] - E(2) * p - E(.5) * u;
    d[3 * s] = q + v - E(2.5) * r[5 * t];
    d[4 * s] = r[0] + p + u;
    d[5 * s] = r[5 * t];
}

// A^T m: six to four.
template <class E, class V> inline void output_1d(const V* m, int s, V* y, int t) {
    constexpr E a = Point<E>::a, b = Point<E>::b;
    const V p = m[s] + m[2 * s], q = m[s] - m[2 * s], u = m[3 * s] + m[4 * s], v = m[3 * s] - m[4 * s];
    y[0] = m[0] + p + u;
    y[t] = a * q + b * v;
    y[2 * t] = E(.5) * p + E(2) * u;
    y[3 * t] = E(.5) * a * q + E(2) * b * v + m[5 * s];
}

// A y, its transpose: four to six.
template <class E, class V> inline void output_1d_transposed(const V* y, int t, V* m, int s) {
    constexpr E a = Point<E>::a, b = Point<E>::b;
    const V p = y[0] + E(.5) * y[2 * t], q = a * y[t] + E(.5) * a * y[3 * t];
    const V u = y[0] + E(2) * y[2 * t], v = b * y[t] + E(2) * b * y[3 * t];
    m[0] = y[0];
    m[s] = p + q;
    m[2 * s] = p - q;
    m[3 * s] = u + v;
    m[4 * s] = u - v;
    m[5 * s] = y[3 * t];
}

// G g: three to six, and G^T u: six to three.
template <class E, class V> inline void filter_1d(const V* g, int s, V* u, int t) {
    constexpr E a = Point<E>::a, b = Point<E>::b;
    const V p = (g[0] + E(.5) * g[2 * s]) * E(-1 / 1.5), q = a * g[s] * E(-1 / 1.5);
    const V r = (g[0] + E(2) * g[2 * s]) * E(1 / 6.), v = b * g[s] * E(1 / 6.);
    u[0] = g[0];
    u[t] = p + q;
    u[2 * t] = p - q;
    u[3 * t] = r + v;
    u[4 * t] = r - v;
    u[5 * t] = g[2 * s];
}

template <class E, class V> inline void filter_1d_transposed(const V* u, int t, V* g, int s) {
    constexpr E a = Point<E>::a, b = Point<E>::b;
    const V p = (u[t] + u[2 * t]) * E(-1 / 1.5), q = (u[t] - u[2 * t]) * E(-1 / 1.5);
    const V r = (u[3 * t] + u[4 * t]) * E(1 / 6.), v = (u[3 * t] - u[4 * t]) * E(1 / 6.);
    g[0] = u[0] + p + r;
    g[s] = a * q + b * v;
    g[2 * s] = E(.5) * p + E(2) * r + u[5 * t];
}

struct Tiles {
    int64_t height, width, channels, tiles_y, tiles_x, first, rows, plane;
};

template <class T, class E = Compute<T>> void input_tiles(const T* x, E* v, Tiles t, int threads) {
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
    for (int64_t row = 0; row < t.rows; ++row)
        for (int64_t column = 0; column < t.tiles_x; ++column) {
            const int64_t image = (t.first + row) / t.tiles_y, top = (t.first + row) % t.tiles_y * 4 - 1;
            const int64_t left = column * 4 - 1;
            const T* from = x + image * t.height * t.width * t.channels;
            E* to = v + (row * t.tiles_x + column) * t.channels;
            for_vectors<E>(0, t.channels, [&](auto tag, int64_t c) {
                using V = decltype(tag);
                V d[36], r[36];
                for (int i = 0; i < 6; ++i)
                    for (int j = 0; j < 6; ++j) {
                        const int64_t y = top + i, z = left + j;
                        const bool inside = y >= 0 && y < t.height && z >= 0 && z < t.width;
                        d[6 * i + j] = inside ? load<V>(from + (y * t.width + z) * t.channels + c) : V();
                    }
                for (int j = 0; j < 6; ++j) input_1d<E>(d + j, 6, r + j, 6);
                for (int i = 0; i < 6; ++i) input_1d<E>(r + 6 * i, 1, d + 6 * i, 1);
                for (int k = 0; k < 36; ++k) store(to + k * t.plane + c, d[k]);
            });
        }
}

// Neighbouring tiles share inputs: the first to come sets them, the next adds, and the threads share the channels. So
// the calls must come in the order of the tile rows.
template <class E> void input_gradient(const E* v, E* x, Tiles t, int threads) {
    constexpr int64_t strip = 64;  // channels at a time
    const int64_t strips = (t.channels + strip - 1) / strip;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t s = 0; s < strips; ++s)
        for (int64_t row = 0; row < t.rows; ++row)
            for (int64_t column = 0; column < t.tiles_x; ++column) {
                const int64_t image = (t.first + row) / t.tiles_y, top = (t.first + row) % t.tiles_y * 4 - 1;
                const int64_t left = column * 4 - 1;
                E* to = x + image * t.height * t.width * t.channels;
                const E* from = v + (row * t.tiles_x + column) * t.channels;
                for_vectors<E>(s * strip, std::min(t.channels, (s + 1) * strip), [&](auto tag, int64_t c) {
                    using V = decltype(tag);
                    V d[36], r[36];
                    for (int k = 0; k < 36; ++k) d[k] = load<V>(from + k * t.plane + c);
                    for (int j = 0; j < 6; ++j) input_1d_transposed<E>(d + j, 6, r + j, 6);
                    for (int i = 0; i < 6; ++i) input_1d_transposed<E>(r + 6 * i, 1, d + 6 * i, 1);
                    for (int i = 0; i < 6; ++i)
                        for (int j = 0; j < 6; ++j) {
                            const int64_t y = top + i, z = left + j;
                            if (y < 0 || y >= t.height || z < 0 || z >= t.width) continue;
                            E* p = to + (y * t.width + z) * t.channels + c;
                            const bool set = (i < 2 && top > 0) || (j < 2 && left > 0);
                            store(p, set ? load<V>(p) + d[6 * i + j] : d[6 * i + j]);
                        }
                });
            }
}

// y = the tiles' outputs, plus what `added` (like y, of the compute type) holds and the channels' `bias`, if given.
template <class T, class E = Compute<T>>
void output_tiles(const E* m, const E* added, const E* bias, T* y, Tiles t, int threads) {
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
    for (int64_t row = 0; row < t.rows; ++row)
        for (int64_t column = 0; column < t.tiles_x; ++column) {
            const int64_t image = (t.first + row) / t.tiles_y, top = (t.first + row) % t.tiles_y * 4;
            const int64_t left = column * 4, start = image * t.height * t.width * t.channels;
            const E* from = m + (row * t.tiles_x + column) * t.channels;
            for_vectors<E>(0, t.channels, [&](auto tag, int64_t c) {
                using V = decltype(tag);
                V d[36], r[24], o[16];
                for (int k = 0; k < 36; ++k) d[k] = load<V>(from + k * t.plane + c);
                for (int j = 0; j < 6; ++j) output_1d<E>(d + j, 6, r + j, 6);
                for (int i = 0; i < 4; ++i) output_1d<E>(r + 6 * i, 1, o + 4 * i, 1);
                if (bias)
                    for (int k = 0; k < 16; ++k) o[k] += load<V>(bias + c);
                for (int i = 0; i < 4 && top + i < t.height; ++i)
                    for (int j = 0; j < 4 && left + j < t.width; ++j) {
                        const int64_t at = start + ((top + i) * t.width + left + j) * t.channels + c;
                        store(y + at, added ? o[4 * i + j] + load<V>(added + at) : o[4 * i + j]);
                    }
            });
        }
}

template <class T, class E = Compute<T>> void output_gradient(const T* y, E* m, Tiles t, int threads) {
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
    for (int64_t row = 0; row < t.rows; ++row)
        for (int64_t column = 0; column < t.tiles_x; ++column) {
            const int64_t image = (t.first + row) / t.tiles_y, top = (t.first + row) % t.tiles_y * 4;
            const int64_t left = column * 4;
            const T* from = y + image * t.height * t.width * t.channels;
            E* to = m + (row * t.tiles_x + column) * t.channels;
            for_vectors<E>(0, t.channels, [&](auto tag, int64_t c) {
                using V = decltype(tag);
                V o[16], r[24], d[36];
                for (int i = 0; i < 4; ++i)
                    for (int j = 0; j < 4; ++j) {
                        const bool inside = top + i < t.height && left + j < t.width;
                        o[4 * i + j] = inside ? load<V>(from + ((top + i) * t.width + left + j) * t.channels + c)
                                              : V();
                    }
                for (int i = 0; i < 4; ++i) output_1d_transposed<E>(o + 4 * i, 1, r + 6 * i, 1);
                for (int j = 0; j < 6; ++j) output_1d_transposed<E>(r + j, 6, d + j, 6);
                for (int k = 0; k < 36; ++k) store(to + k * t.plane + c, d[k]);
            });
        }
}

constexpr int64_t block = 1024;  // filters at a time

// Filters g[9][count] to u[36][count], and the gradient back.
template <class E> void filters(const E* g, E* u, int64_t count, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t begin = 0; begin < count; begin += block)
        for_vectors<E>(begin, std::min(count, begin + block), [&](auto tag, int64_t n) {
            using V = decltype(tag);
            V d[9], r[18], o[36];
            for (int k = 0; k < 9; ++k) d[k] = load<V>(g + k * count + n);
            for (int j = 0; j < 3; ++j) filter_1d<E>(d + j, 3, r + j, 3);
            for (int i = 0; i < 6; ++i) filter_1d<E>(r + 3 * i, 1, o + 6 * i, 1);
            for (int k = 0; k < 36; ++k) store(u + k * count + n, o[k]);
        });
}

template <class E> void filter_gradient(const E* u, E* g, int64_t count, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t begin = 0; begin < count; begin += block)
        for_vectors<E>(begin, std::min(count, begin + block), [&](auto tag, int64_t n) {
            using V = decltype(tag);
            V d[36], r[18], o[9];
            for (int k = 0; k < 36; ++k) d[k] = load<V>(u + k * count + n);
            for (int i = 0; i < 6; ++i) filter_1d_transposed<E>(d + 6 * i, 1, r + 3 * i, 1);
            for (int j = 0; j < 3; ++j) filter_1d_transposed<E>(r + j, 3, o + j, 3);
            for (int k = 0; k < 9; ++k) store(g + k * count + n, o[k]);
        });
}

}  // namespace

#define SIZES                                                                                                          \
    int64_t height, int64_t width, int64_t channels, int64_t tiles_y, int64_t tiles_x, int64_t first, int64_t rows,    \
        int64_t plane, int64_t threads
#define TILES {height, width, channels, tiles_y, tiles_x, first, rows, plane}, int(threads)
#define OF_ANY_TYPE(suffix, T)                                                                                         \
    extern "C" void input_tiles_##suffix(const T* from, Compute<T>* to, SIZES) { input_tiles<T>(from, to, TILES); }    \
    extern "C" void output_tiles_##suffix(const Compute<T>* from, const Compute<T>* added, const Compute<T>* bias,     \
                                          T* to, SIZES) {                                                              \
        output_tiles<T>(from, added, bias, to, TILES);                                                                 \
    }                                                                                                                  \
    extern "C" void output_gradient_##suffix(const T* from, Compute<T>* to, SIZES) {                                   \
        output_gradient<T>(from, to, TILES);                                                                           \
    }
#define OF_COMPUTE_TYPE(suffix, E)                                                                                     \
    extern "C" void input_gradient_##suffix(const E* from, E* to, SIZES) { input_gradient<E>(from, to, TILES); }       \
    extern "C" void filters_##suffix(const E* g, E* u, int64_t count, int64_t threads) {                               \
        filters<E>(g, u, count, int(threads));                                                                         \
    }                                                                                                                  \
    extern "C" void filter_gradient_##suffix(const E* u, E* g, int64_t count, int64_t threads) {                       \
        filter_gradient<E>(u, g, count, int(threads));                                                                 \
    }
OF_ANY_TYPE(f32, float)
OF_ANY_TYPE(bf16, bf16)
OF_ANY_TYPE(f64, double)
OF_COMPUTE_TYPE(f32, float)
OF_COMPUTE_TYPE(f64, double)
