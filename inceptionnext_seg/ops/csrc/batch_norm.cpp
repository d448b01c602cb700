// Batch normalization and an optional ReLU, forward and backward, on NHWC maps as (count, channels) matrices:
//
//     mean = sum x / count,    variance = sum (x - mean)^2 / count
//     y = relu(scale x + shift),    scale = gamma / sqrt(variance + epsilon),    shift = beta - scale mean
//     g = dy where scale x + shift > 0, else 0;    dgamma, dbeta from sum g (x - mean), sum g
//     dx = scale g + slope x + offset,    slope and offset from the two sums
//
// What has no sum over the pixels in it is a vector of `channels` and the caller's. Each pass reads its maps once.
//
// Sums are of 64 pixels in the compute type, then in double; the second moment of these is taken about the median of
// three of them, so that neither a large mean nor a pixel far from it cancels it. Threads share the pixels; their sums
// are added in a fixed order.
#include <vector>

#include "simd.h"

namespace {

constexpr int64_t block = 64;  // pixels

struct Sum {
    void operator()(int64_t, int64_t, int64_t, double a, double b, double& first, double& second) const {
        first += a;
        second += b;
    }
};

// Calls rows(begin, end, first, second) on each thread's pixels, block by block, and adds what it leaves in the two
// sums.
template <class E, class Rows, class Add = Sum>
void two_sums(int64_t count, int64_t channels, double* first, double* second, int threads, Rows rows,
              Add add = Add()) {
    const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(threads * 4, count / block));
    std::vector<double> partial(parts * 2 * channels, 0.);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < parts; ++part) {
        std::vector<E> sums(2 * channels);
        double* total = partial.data() + part * 2 * channels;
        const int64_t end = count * (part + 1) / parts;
        for (int64_t begin = count * part / parts; begin < end; begin += block) {
            const int64_t last = std::min(end, begin + block);
            rows(begin, last, sums.data(), sums.data() + channels);
            for (int64_t c = 0; c < channels; ++c)
                add(begin, last, c, sums[c], sums[channels + c], total[c], total[channels + c]);
        }
    }
    for (int64_t c = 0; c < channels; ++c) {
        first[c] = second[c] = 0;
        for (int64_t part = 0; part < parts; ++part) {
            first[c] += partial[part * 2 * channels + c];
            second[c] += partial[part * 2 * channels + channels + c];
        }
    }
}

// The median of three of the pixels [begin, end).
template <class V, class T> inline V middle(const T* x, int64_t begin, int64_t end, int64_t channels, int64_t c) {
    const V a = load<V>(x + begin * channels + c), b = load<V>(x + (begin + end) / 2 * channels + c);
    const V d = load<V>(x + (end - 1) * channels + c), low = a < b ? a : b, high = a < b ? b : a;
    const V least = high < d ? high : d;
    return low < least ? least : low;
}

template <class T, class E = Compute<T>>
void statistics(const T* x, double* mean, double* variance, int64_t count, int64_t channels, int threads) {
    const auto about_middle = [&](int64_t begin, int64_t end, E* first, E* second) {
        for_vectors<E>(0, channels, [&](auto tag, int64_t c) {
            using V = decltype(tag);
            const V shift = middle<V>(x, begin, end, channels, c);
            V sum = V(), squares = V();
            for (int64_t row = begin; row < end; ++row) {
                const V d = load<V>(x + row * channels + c) - shift;
                sum += d;
                squares += d * d;
            }
            store(first + c, sum);
            store(second + c, squares);
        });
    };
    const auto about_first = [&](int64_t begin, int64_t end, int64_t c, double sum, double squares, double& first,
                                 double& second) {
        const double n = double(end - begin), d = double(middle<E>(x, begin, end, channels, c)) - load<E>(x + c);
        first += sum + n * d;
        second += squares + d * (2 * sum + n * d);
    };
    two_sums<E>(count, channels, mean, variance, threads, about_middle, about_first);
    for (int64_t c = 0; c < channels; ++c) {
        const double shift = load<E>(x + c), d = mean[c] / count, v = variance[c] / count - d * d;
        variance[c] = v < 0 ? 0 : v;  // so that NaN passes
        mean[c] = shift + d;
    }
}

template <class T, class E = Compute<T>>
void transform(const T* x, const E* scale, const E* shift, T* y, bool relu, int64_t count, int64_t channels,
               int threads) {
    for_matrix<E>(count, channels, threads, [=](auto tag, int64_t at, int64_t c) {
        using V = decltype(tag);
        const V v = load<V>(x + at) * load<V>(scale + c) + load<V>(shift + c);
        store(y + at, relu ? (v < V() ? V() : v) : v);  // NaN is not below 0 and passes, as in torch
    });
}

// Sums of g and of g (x - mean).
template <class T, class E = Compute<T>>
void gradient_sums(const T* grad, const T* x, const E* scale, const E* shift, const E* mean, double* sum,
                   double* product, bool relu, int64_t count, int64_t channels, int threads) {
    two_sums<E>(count, channels, sum, product, threads, [&](int64_t begin, int64_t end, E* first, E* second) {
        for_vectors<E>(0, channels, [&](auto tag, int64_t c) {
            using V = decltype(tag);
            const V a = load<V>(scale + c), b = load<V>(shift + c), m = load<V>(mean + c);
            V s = V(), p = V();
            for (int64_t row = begin; row < end; ++row) {
                const V v = load<V>(x + row * channels + c);
                V g = load<V>(grad + row * channels + c);
                if (relu) g = v * a + b > V() ? g : V();
                s += g;
                p += g * (v - m);
            }
            store(first + c, s);
            store(second + c, p);
        });
    });
}

template <class T, class E = Compute<T>>
void gradient(const T* grad, const T* x, const E* scale, const E* shift, const E* slope, const E* offset, T* out,
              bool relu, int64_t count, int64_t channels, int threads) {
    for_matrix<E>(count, channels, threads, [=](auto tag, int64_t at, int64_t c) {
        using V = decltype(tag);
        const V v = load<V>(x + at), a = load<V>(scale + c);
        V g = load<V>(grad + at);
        if (relu) g = v * a + load<V>(shift + c) > V() ? g : V();
        store(out + at, a * g + load<V>(slope + c) * v + load<V>(offset + c));
    });
}

}  // namespace

#define SYMBOLS(suffix, T)                                                                                             \
    extern "C" void statistics_##suffix(const T* x, double* mean, double* variance, int64_t count, int64_t channels,   \
                                        int64_t threads) {                                                             \
        statistics<T>(x, mean, variance, count, channels, int(threads));                                               \
    }                                                                                                                  \
    extern "C" void transform_##suffix(const T* x, const Compute<T>* scale, const Compute<T>* shift, T* y,             \
                                       int64_t relu, int64_t count, int64_t channels, int64_t threads) {               \
        transform<T>(x, scale, shift, y, relu, count, channels, int(threads));                                         \
    }                                                                                                                  \
    extern "C" void gradient_sums_##suffix(const T* grad, const T* x, const Compute<T>* scale,                         \
                                           const Compute<T>* shift, const Compute<T>* mean, double* sum,               \
                                           double* product, int64_t relu, int64_t count, int64_t channels,             \
                                           int64_t threads) {                                                          \
        gradient_sums<T>(grad, x, scale, shift, mean, sum, product, relu, count, channels, int(threads));              \
    }                                                                                                                  \
    extern "C" void gradient_##suffix(const T* grad, const T* x, const Compute<T>* scale, const Compute<T>* shift,     \
                                      const Compute<T>* slope, const Compute<T>* offset, T* out, int64_t relu,         \
                                      int64_t count, int64_t channels, int64_t threads) {                              \
        gradient<T>(grad, x, scale, shift, slope, offset, out, relu, count, channels, int(threads));                   \
    }
SYMBOLS(f32, float)
SYMBOLS(bf16, bf16)
SYMBOLS(f64, double)
